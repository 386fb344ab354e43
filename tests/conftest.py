"""What all tests share: nothing is read from or written to the user's own folders, and nothing is downloaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# One folder for all test processes and the processes that they start, before anything reads these variables.
_home = os.environ.setdefault("NAS_YOLO_TEST_HOME", tempfile.mkdtemp(prefix="nas-yolo-tests-"))
for _kind in ("CACHE", "CONFIG", "DATA"):
    os.environ[f"XDG_{_kind}_HOME"] = f"{_home}/{_kind.lower()}"
os.environ.pop("NAS_YOLO_STORAGE", None)
# Several test processes share the machine; before torch is imported, which reads these once.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

from nas_yolo.environment import ultralytics_environment  # noqa: E402

os.environ.update(ultralytics_environment())

from evaluators.evaluation import Epoch  # noqa: E402
from search_spaces.architecture import Architecture  # noqa: E402
from storage import Repository, Search, State, Trial, TrialState  # noqa: E402
from storage.events import EpochEnded, Event, TrialAdded, TrialMoved  # noqa: E402

# Two processes share the files, each taken as a whole: the longest first, so that none is left for the end.
LONGEST = (
    *("search", "crash", "search_devices", "stock", "replay", "warm_start", "training", "registry", "complexity"),
    *("train_cli", "cli", "runtime_contract", "deployed", "ray_connection", "validate_cli", "failure_modes", "latency"),
    *("target_cli", "ssh", "block_contract", "presets"),
)


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # by the number of tests, as pytest-xdist would: the longest have the fewest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


QUICK = """

WARM_UP_S = MIN_S = 0.05
WARM_UP_LIMIT_S = MAX_S = WIDE_S = 0.3
MIN_BLOCKS = FEW_BLOCKS = 2
LOOK_S = 0.01
TOO_WIDE = TOO_MUCH_DRIFT = TOO_MUCH_LOAD = EXCLUSIVE_LOAD = NEARLY = float("inf")
"""


@pytest.fixture
def quick_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real probe, content with little time and with whatever else the machine does meanwhile.

    It has locks of its own, so that no test waits for another one's trainings or measurements.
    """
    from evaluators import latency, probe
    from evaluators.connections import _exchange

    path, locks = tmp_path / "quick_probe.py", tmp_path / "locks"
    path.write_text(_exchange.PROBE.read_text() + QUICK + f"LOCKS = Path({str(locks)!r})\n")
    monkeypatch.setattr(probe, "LOCKS", locks)
    monkeypatch.setattr(_exchange, "PROBE", path)
    monkeypatch.setattr(latency, "DRIFTED", float("inf"))
    monkeypatch.setattr(latency, "OFF", float("inf"))
    monkeypatch.setattr(latency, "CALIBRATION_SESSIONS", 2)


@pytest.fixture(scope="session")
def digits() -> Path:
    """The data YAML of the embedded data set."""
    import fcntl

    from nas_yolo.digits import write_digits

    folder = Path(_home) / "digits"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:  # several test processes may come here at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        return write_digits(folder)


@pytest.fixture(scope="session")
def few_digits(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 32 training and 16 validation images: enough to train on for real, in a second."""
    import shutil

    folder = tmp_path_factory.mktemp("few")
    for split, count in (("train", 32), ("val", 16)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
            for file in sorted((digits.parent / kind / split).iterdir())[:count]:
                shutil.copy(file, folder / kind / split)
    shutil.copy(digits, folder / "data.yaml")
    return folder / "data.yaml"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """The URL of a database of its own; also the default storage of commands."""
    url = f"sqlite:///{tmp_path / 'search.db'}"
    os.environ["NAS_YOLO_STORAGE"] = url
    yield url
    del os.environ["NAS_YOLO_STORAGE"]


class ByHand:
    """Writes down what never happened, as a search would that did it."""

    def __init__(self, repository: Repository, search: Search):
        self.repository, self.search = repository, search

    def record(self, *events: Event) -> State:
        """The state after these events."""
        with self.repository.claimed(self.search) as claim:
            journal = self.repository.journal(self.search, claim)
            journal.record(events, 0.0)
            return journal.state

    def move(self, number: int, *states: TrialState, reason: str = "") -> None:
        """Takes a trial through states."""
        self.record(*(TrialMoved(number, state, reason) for state in states))

    def trial(self, number: int, architecture: Architecture, origin: str, *maps: float, state: str = "new") -> Trial:
        """A trial that reached these accuracies, an epoch each."""
        epochs = (EpochEnded(number, Epoch(e, value, value, 1.0, 1.0)) for e, value in enumerate(maps, start=1))
        after = self.record(TrialAdded(number, architecture, origin), *epochs)
        ways: dict[str, tuple[TrialState, ...]] = {
            "new": (),
            "ready": ("ready",),
            "failed": ("failed",),
            "paused": ("ready", "training", "paused"),
            "complete": ("ready", "training", "complete"),
        }
        self.move(number, *ways[state])
        return after.trials[number]


@pytest.fixture(scope="session")
def by_hand() -> type[ByHand]:
    """`by_hand(repository, search)` writes to a search."""
    return ByHand

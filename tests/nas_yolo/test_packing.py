"""How a search comes by the number of trainings that share a GPU. The GPU is made up: none was at hand."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evaluators.accuracy.gpu_sharing import MadeUpTraining
from evaluators.packing import Packing, Run
from nas_yolo.application import make_config
from nas_yolo.application.gpu_share import with_packing
from nas_yolo.cli import main
from nas_yolo.config import SearchConfig
from nas_yolo.driver import Driver
from nas_yolo.runners import Kind, Report, Work
from nas_yolo.runners.simulated import Inline
from nas_yolo.strategy import context_of
from search_spaces import UserError
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from storage import Repository, Search

SPACE = Path(__file__).parent / "space.yaml"
FOUND = Packing("a GPU", 2**36, (Run(1, 100.0), Run(2, 190.0), Run(4, 310.0), Run(8, 300.0)), Run(1, 50.0), 8, "cores")


@pytest.fixture
def config_with(few_digits: Path) -> Callable[..., SearchConfig]:
    def make(**changes: Any) -> SearchConfig:
        return make_config(str(few_digits), ("cpu",), ("1gpu-h",), space=str(SPACE), imgsz=64, epochs=3, **changes)

    return make


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_yolo.application.machine.count_gpus", lambda: 1)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[MadeUpTraining, MadeUpTraining]]:
    """What the probe was asked to train; it answers `FOUND`."""
    asked = []

    def measure(typical: MadeUpTraining, largest: MadeUpTraining, cores: int, gpus: int) -> Packing:
        asked.append((typical, largest))
        threading.Event().wait(0.1)
        return FOUND

    monkeypatch.setattr("nas_yolo.application.gpu_share.measure_packing", measure)
    return asked


def packing(repository: Repository, search: Search, device: str) -> Search:
    with repository.claimed(search) as claim:
        return with_packing(repository, search, claim, device, 1, 16)


@pytest.mark.usefixtures("probed")
def test_what_was_measured_is_kept_and_charged(config_with: Callable[..., SearchConfig], database: str) -> None:
    repository = Repository(database)
    search = repository.create_search("a", config_with(gpus_per_trial="auto").document())
    packing(repository, search, FOUND.device)
    config = SearchConfig.from_document(repository.search("a").config)
    assert config.gpus_per_trial == 0.25
    assert config.packing is not None
    assert Packing.from_document(config.packing) == FOUND
    spent = repository.spent(search)
    assert spent.gpu_seconds == spent.wall_seconds > 0.1


def test_a_resumed_search_measures_again_on_another_gpu_only(
    config_with: Callable[..., SearchConfig], database: str, probed: list[Any]
) -> None:
    repository = Repository(database)
    search = repository.create_search("a", config_with(gpus_per_trial="auto").document())
    packed = packing(repository, search, FOUND.device)
    assert packing(repository, packed, FOUND.device) == packed
    assert len(probed) == 1
    packing(repository, packed, "a smaller GPU")
    assert len(probed) == 2


def test_a_number_that_was_given_is_not_measured(
    config_with: Callable[..., SearchConfig], database: str, probed: list[Any]
) -> None:
    repository = Repository(database)
    search = repository.create_search("a", config_with(gpus_per_trial=0.5).document())
    assert packing(repository, search, FOUND.device) == search
    assert probed == []


def test_the_probe_trains_the_stock_model_and_the_largest_design_as_the_search_would(
    config_with: Callable[..., SearchConfig], database: str, probed: list[tuple[MadeUpTraining, MadeUpTraining]]
) -> None:
    config = config_with(gpus_per_trial="auto", training=("batch=32",))
    repository = Repository(database)
    packing(repository, repository.create_search("a", config.document()), FOUND.device)
    ((typical, largest),) = probed
    assert typical.architecture == load_preset("yolov8n")
    assert config.space.choices_of(largest.architecture) is not None
    assert (typical.imgsz, typical.batch, typical.classes) == (ImageSize(64, 64), 32, 10)
    assert (largest.imgsz, largest.batch, largest.classes) == (ImageSize(64, 64), 32, 10)


@pytest.mark.parametrize("batch", ["-1", "0.7"])
def test_a_batch_that_takes_what_memory_is_there_cannot_share_it(
    config_with: Callable[..., SearchConfig], batch: str
) -> None:
    with pytest.raises(UserError, match="fixed batch"):
        config_with(gpus_per_trial="auto", training=(f"batch={batch}",))


def test_the_local_runner_trains_one_at_a_time_whatever_would_fit(config_with: Callable[..., SearchConfig]) -> None:
    config = config_with(gpus_per_trial="auto", runner="local")
    assert (config.gpus_per_trial, config.packing) == (1.0, None)


def search_with(value: str, few_digits: Path, database: str) -> Result:
    options = ("--data", str(few_digits), "--target", "cpu", "--budget", "soon", "--gpus-per-trial", value)
    return CliRunner().invoke(main, ["search", *options, "--space", str(SPACE), "--imgsz", "64"])


@pytest.mark.parametrize("value", ["auto", "1", "0.25", "0.3333", "2"])
def test_a_share_or_a_whole_number_of_gpus_is_taken(value: str, few_digits: Path, database: str) -> None:
    result = search_with(value, few_digits, database)
    assert "budget 'soon'" in result.stderr  # the next thing that is wrong


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "9", "all", "nan"])
def test_other_numbers_of_gpus_are_refused_in_one_line(value: str, few_digits: Path, database: str) -> None:
    result = search_with(value, few_digits, database)
    assert result.exit_code == 1
    assert result.stderr.strip() == (
        f"Error: --gpus-per-trial {value} must be auto, a share above 0 to 1, or a whole number up to 8"
    )


class Interrupted:
    """Holds what it is given for half a second; then the user stops the search."""

    slots = 4

    def __init__(self) -> None:
        self.now = 0.0

    def submit(self, key: str, kind: Kind, work: Work) -> None: ...

    def poll(self, timeout_s: float) -> Sequence[Report]:
        self.now += 0.5
        raise KeyboardInterrupt

    def cancel(self, key: str) -> None: ...

    def close(self) -> None: ...


def test_gpu_time_is_the_share_times_the_time(config_with: Callable[..., SearchConfig], database: str) -> None:
    repository = Repository(database)
    search = repository.create_search("a", config_with(gpus_per_trial=0.25).document())
    context = context_of(repository, search, slots=4, threads=1, on_gpu=True)
    with repository.claimed(search) as claim:
        driver = Driver(repository, search, claim, Interrupted(), context, executor=Inline())
        with pytest.raises(KeyboardInterrupt):
            driver.run()
    spent = repository.spent(search)
    assert (spent.wall_seconds, spent.gpu_seconds) == (0.5, 0.5 * 0.25)


def test_doctor_says_whether_the_multi_process_service_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_yolo.cli.doctor import _mps

    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert _mps().startswith("not running")
    os.mkfifo(tmp_path / "control")
    assert _mps().startswith(f"its pipe is in {tmp_path}")

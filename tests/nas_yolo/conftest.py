from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators.evaluation import Complexity, Latency
from nas_yolo.application import make_config
from nas_yolo.driver import Driver
from nas_yolo.planning import POLICIES, validate
from nas_yolo.runners.local import LocalRunner
from nas_yolo.snapshot import Snapshot
from nas_yolo.strategy import context_of
from search_spaces import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from storage import Repository, Search, Trial
from storage.events import LatencyMeasured, SearchMoved, Sized


@pytest.fixture
def trainings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finalists are not measured again, nor validated: a search and its repetition decide from the same numbers."""
    monkeypatch.setattr("nas_yolo.planning.confirm.FRONT_SESSIONS", 1)
    monkeypatch.setattr("nas_yolo.planning.confirm.FINAL_SESSIONS", 1)
    policies = tuple(policy for policy in POLICIES if policy is not validate.finalists)
    monkeypatch.setattr("nas_yolo.planning.POLICIES", policies)


@pytest.fixture
def run() -> Callable[..., list[Trial]]:
    """Runs a search in this process, to its end or that of its budget; returns its trials."""

    def run(
        repository: Repository, search: Search, view: Callable[[Snapshot], None] = lambda snapshot: None
    ) -> list[Trial]:
        runner = LocalRunner()
        with repository.claimed(search) as claim:
            try:
                context = context_of(repository, search, slots=1, threads=1, on_gpu=False)
                Driver(repository, search, claim, runner, context, [view]).run()
            finally:
                runner.close()
        return repository.trials(search)

    return run


@pytest.fixture
def finished(few_digits: Path, database: str, by_hand: Any) -> tuple[Repository, Search]:
    """A search whose rows were written by hand: stock, a faster and better net, a slow one, one that waits."""
    config = make_config(
        data=str(few_digits),
        targets=("cpu",),
        budgets=("2h",),
        space="yolov8n",
        imgsz=64,
        epochs=3,
        runner="local",
        inherit=False,
    )
    repository = Repository(database)
    search = repository.create_search("done", config.document())
    mark = config.targets[0][1]

    rows = by_hand(repository, search)

    def add(number: int, architecture: Architecture, origin: str, ms: float, maps: tuple[float, ...]) -> None:
        rows.trial(number, architecture, origin, *maps)
        rows.record(Sized(number, Complexity(2_000_000 + number, 1.0, 1_900_000, 0.9, 200)))
        latency = Latency(
            "cpu", mark, ImageSize(64, 64), ms, ms - 0.1, ms + 0.1, 1.0, ms, ms, ms, 100, 0.0, 0.0, "good"
        )
        rows.record(LatencyMeasured(number, latency))
        rows.move(number, "ready", "training", "complete" if len(maps) == 3 else "paused")

    add(0, load_preset("yolov8n"), "preset:yolov8n", 2.0, (0.1, 0.2, 0.30))
    add(1, load_preset("yolov8n-ghost"), "preset:yolov8n-ghost", 1.5, (0.1, 0.2, 0.35))
    add(2, load_preset("yolov8n-convnext"), "preset:yolov8n-convnext", 3.0, (0.1, 0.2, 0.40))
    add(3, load_preset("yolov8n-shufflev2"), "preset:yolov8n-shufflev2", 1.0, (0.1,))
    rows.record(SearchMoved("done"))
    return repository, repository.search("done")


@pytest.fixture(scope="session")
def scenarios() -> Any:
    """The module `scenarios.py`: tests are no package that it could be imported from."""
    spec = importlib.util.spec_from_file_location("scenarios", Path(__file__).parent / "scenarios.py")
    assert spec
    assert spec.loader
    sys.modules["scenarios"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

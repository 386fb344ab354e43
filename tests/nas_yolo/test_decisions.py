"""Whole searches in simulation: what they do, that nothing of it is lost, and that rows and events say the same."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import storage.journal
from nas_yolo.driver import Driver
from nas_yolo.runners.simulated import Inline, SimulatedRunner, World
from nas_yolo.strategy import context_of
from storage import Repository, Search
from storage.events import EpochEnded, LatencyMeasured
from storage.journal import Page
from storage.state import fold

GOLDEN = Path(__file__).parent / "golden_actions.json"
RECORDED: dict[str, list[str]] = json.loads(GOLDEN.read_text())


def drive(repository: Repository, search: Search, runner: SimulatedRunner, gpu: bool) -> None:
    with repository.claimed(search) as claim:
        context = context_of(repository, search, runner.slots, threads=1, on_gpu=gpu)
        Driver(repository, search, claim, runner, context, executor=Inline()).run()


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_search_does_what_it_did(name: str, scenarios: Any, tmp_path: Path) -> None:
    (scenario,) = (one for one in scenarios.SCENARIOS if one.name == name)
    assert scenarios.record(scenario, tmp_path / "run", drive) == RECORDED[name]


@pytest.mark.parametrize(
    "name",
    [
        "two targets with faults",
        "a parent too expensive, resumed",
        "repeats, resumed",
        "out of memory",
        "a parent that its first batches give away, resumed",
        "a library, resumed",
    ],
)
def test_rows_and_events_tell_the_same_after_everything_that_happens(
    name: str, scenarios: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = storage.journal.Journal.write
    checked = 0

    def check(journal: storage.journal.Journal, body: Callable[[Page], Any], now_s: float) -> Any:
        nonlocal checked
        result = write(journal, body, now_s)
        repository = Repository(f"sqlite:///{tmp_path / 'run' / 'search.db'}")
        loaded = repository.state(journal.search)
        folded = fold(recorded.event for recorded in repository.events(journal.search))
        repository.close()
        assert loaded == folded == journal.state
        checked += 1
        return result

    monkeypatch.setattr(storage.journal.Journal, "write", check)
    (scenario,) = (one for one in scenarios.SCENARIOS if one.name == name)
    scenarios.record(scenario, tmp_path / "run", drive)
    assert checked > 20


@dataclass
class Wreck:
    """What is left of a search whose process died just before a write: the database, and what was trained.

    Attributes:
        place: Of the write, counted from 0.
        checkpoints: Epochs that are kept, by the place of the checkpoint.
    """

    place: int
    database: bytes
    checkpoints: dict[str, int]


def finish(scenario: Any, wreck: Wreck | None, folder: Path, on_write: Callable[[int, Path, World], None]) -> Any:
    """Run a search to its end, from the beginning or from what is left of it; what comes of it, all consistent.

    Returns:
        Its trials, how much was measured, and CPU seconds in the ledger.
    """
    file, world = folder / f"{wreck.place if wreck else 'straight'}.db", scenario.world()
    if wreck:
        world.checkpoints = dict(wreck.checkpoints)
        file.write_bytes(wreck.database)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("UPDATE nas_searches SET owner = NULL")  # as if the lease had run out
            connection.commit()
    repository = Repository(f"sqlite:///{file}")
    search = repository.search("one") if wreck else repository.create_search("one", scenario.config.document())
    write, places = storage.journal.Journal.write, count()

    def watched(journal: storage.journal.Journal, body: Callable[[Page], Any], now_s: float) -> Any:
        on_write(next(places), file, world)
        return write(journal, body, now_s)

    with pytest.MonkeyPatch.context() as patch, repository.claimed(search) as claim:
        patch.setattr(storage.journal.Journal, "write", watched)
        runner = SimulatedRunner(world, scenario.slots)
        context = context_of(repository, search, runner.slots, threads=1, on_gpu=False)
        Driver(repository, search, claim, runner, context, executor=Inline(), tick_s=30.0).run()
    state, events = repository.state(search), [one.event for one in repository.events(search)]
    assert state == fold(events)
    assert state.spent == repository.spent(search)  # all entries are closed, and are what the jobs took
    trained = Counter((one.number, one.epoch.epoch) for one in events if isinstance(one, EpochEnded))
    assert set(trained.values()) == {1}
    measured = sum(isinstance(one, LatencyMeasured) for one in events)
    repository.close()
    trials = [(t.number, t.architecture, t.origin, t.state, t.map50_95, len(t.epochs)) for t in state.trials]
    library = {**state.entries}.keys(), [(one.architecture, one.map50_95) for one in state.assemblies]
    return (trials, measured, library), state.spent.cpu_seconds


@pytest.mark.parametrize("seed", range(20))
def test_a_search_that_dies_before_any_write_ends_as_if_it_had_not(seed: int, scenarios: Any, tmp_path: Path) -> None:
    scenario = scenarios.Scenario(
        "killed", budgets=("3trials",), epochs=6, seed=seed, inherits=seed % 2 == 0, repeats=seed % 3 == 0, slots=1
    )
    dies_anywhere(scenario, tmp_path, 1)


def test_a_search_with_a_library_that_dies_before_any_write_ends_as_if_it_had_not(
    scenarios: Any, tmp_path: Path
) -> None:
    dies_anywhere(scenarios.Scenario("killed", budgets=("3trials",), epochs=6, library=True), tmp_path, 10)


def dies_anywhere(scenario: Any, tmp_path: Path, step: int) -> None:
    """Killed before every write, or every so many."""
    wrecks: list[Wreck] = []

    def keep(place: int, file: Path, world: World) -> None:
        with closing(sqlite3.connect(file)) as connection:
            wrecks.append(Wreck(place, connection.serialize(), dict(world.checkpoints)))

    straight, cpu_seconds = finish(scenario, None, tmp_path, keep)
    assert len(wrecks) > 15
    for wreck in wrecks[::step]:
        resumed, with_loss = finish(scenario, wreck, tmp_path, lambda *_: None)
        assert resumed == straight, f"killed before write {wreck.place}"
        # What ran when it died may be paid for again: at most one training from its last checkpoint on, a measurement.
        assert with_loss <= cpu_seconds + 6 * 10.0 + 2.0

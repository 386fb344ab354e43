"""Whole searches in simulation: what they do, that nothing of it is lost, and that rows and events say the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import storage.journal
from nas_yolo.driver import Driver
from nas_yolo.runners.simulated import Inline, SimulatedRunner
from nas_yolo.strategy import context_of
from storage import Repository, Search
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
    ],
)
def test_rows_and_events_tell_the_same_after_everything_that_happens(
    name: str, scenarios: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = storage.journal.Journal.write
    count = 0

    def check(journal: storage.journal.Journal, body: Callable[[Page], Any], now_s: float) -> Any:
        nonlocal count
        result = write(journal, body, now_s)
        repository = Repository(f"sqlite:///{tmp_path / 'run' / 'search.db'}")
        loaded = repository.state(journal.search)
        folded = fold(recorded.event for recorded in repository.events(journal.search))
        repository.close()
        assert loaded == folded == journal.state
        count += 1
        return result

    monkeypatch.setattr(storage.journal.Journal, "write", check)
    (scenario,) = (one for one in scenarios.SCENARIOS if one.name == name)
    scenarios.record(scenario, tmp_path / "run", drive)
    assert count > 20


class KilledError(BaseException):
    """The process is gone: nothing that it would still do is done."""


def kill_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Dies after so many writes; what it returns lets processes live."""
    write, written = storage.journal.Journal.write, 0

    def dying(journal: storage.journal.Journal, body: Callable[[Page], Any], now_s: float) -> Any:
        nonlocal written
        if written >= count:
            raise KilledError
        written += 1
        return write(journal, body, now_s)

    monkeypatch.setattr(storage.journal.Journal, "write", dying)
    return lambda: monkeypatch.setattr(storage.journal.Journal, "write", write)


def killed_and_resumed(scenario: Any, count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The trials in the end, the sum of the ledger, and the sum of what its jobs took; None: it ended before."""
    folder.mkdir()
    repository = Repository(f"sqlite:///{folder / 'search.db'}")
    search, world = repository.create_search("one", scenario.config.document()), scenario.world()
    revive, killed = kill_after(count, monkeypatch), False
    runner = SimulatedRunner(world, scenario.slots)
    try:
        drive(repository, search, runner, False)
    except KilledError:
        killed = True
    revive()
    if killed:
        drive(repository, search, SimulatedRunner(world, scenario.slots), False)
    state, events = repository.state(search), [one.event for one in repository.events(search)]
    assert state == fold(events)
    assert state.spent == repository.spent(search)  # all entries are closed
    repository.close()
    return killed, [(t.number, t.architecture, t.origin, t.state, t.map50_95, len(t.epochs)) for t in state.trials]


def test_a_search_that_is_killed_after_any_write_ends_as_if_it_had_not_been(
    scenarios: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = scenarios.Scenario("killed", budgets=("3trials",), repeats=1, epochs=4)
    _, straight = killed_and_resumed(scenario, 10**9, tmp_path / "straight", monkeypatch)
    count = 0
    while True:
        killed, trials = killed_and_resumed(scenario, count, tmp_path / str(count), monkeypatch)
        if not killed:
            break
        assert trials == straight, f"killed after {count} writes"
        count += 1
    assert count > 15


@pytest.mark.parametrize("seed", range(20))
def test_searches_of_all_seeds_survive_being_killed(
    seed: int, scenarios: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = scenarios.Scenario("killed", budgets=("4trials",), seed=seed, inherits=seed % 2 == 0)
    _, straight = killed_and_resumed(scenario, 10**9, tmp_path / "straight", monkeypatch)
    _, trials = killed_and_resumed(scenario, random.Random(seed).randrange(60), tmp_path / "killed", monkeypatch)
    assert trials == straight

"""What befalls a search while it runs: databases that are away or gone, other processes, views that fail."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from evaluators.evaluation import Failure
from nas_yolo.driver import Driver, SearchError
from nas_yolo.runners import Report
from nas_yolo.runners.simulated import Inline, SimulatedRunner, Timed, World
from nas_yolo.snapshot import Snapshot
from nas_yolo.strategy import context_of
from storage import ClaimLostError, Repository, StorageAwayError, StorageError
from storage.events import TrialMoved
from storage.journal import Journal


@pytest.fixture(scope="module")
def scenario(scenarios: Any) -> Any:
    return scenarios.Scenario("one", budgets=("4trials",), epochs=4, slots=2)


@pytest.fixture
def repository(database: str) -> Iterator[Repository]:
    opened = Repository(database)
    yield opened
    opened.close()


def run(
    repository: Repository, scenario: Any, *listeners: Any, runner: SimulatedRunner | None = None, name: str = "one"
) -> SimulatedRunner:
    if name not in {search.name for search in repository.searches()}:
        repository.create_search(name, scenario.config.document())
    search = repository.search(name)
    runner = runner or SimulatedRunner(scenario.world(), scenario.slots)
    with repository.claimed(search) as claim:
        context = context_of(repository, search, runner.slots, threads=1, on_gpu=False)
        Driver(repository, search, claim, runner, context, listeners, Inline()).run()
    return runner


def trained(snapshot: Snapshot) -> int:
    return sum(len(trial.epochs) for trial in snapshot.trials)


def test_a_view_that_fails_is_logged_and_stops_nothing(
    repository: Repository, scenario: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(snapshot: Snapshot) -> None:
        raise BrokenPipeError("nobody reads this")

    seen: list[str] = []
    with caplog.at_level(logging.ERROR):
        run(repository, scenario, broken, lambda snapshot: seen.append(snapshot.phase))
    assert "a view of search one failed" in caplog.text
    assert seen[-1] == "done"
    assert repository.search("one").state == "done"


def test_listeners_hear_every_event_once_and_in_order(repository: Repository, scenario: Any) -> None:
    heard: list[object] = []
    run(repository, scenario, lambda snapshot: heard.extend(snapshot.events))
    recorded = [one.event for one in repository.events(repository.search("one"))]
    assert heard == recorded[-len(heard) :]
    assert len(recorded) - len(heard) <= 2  # what creating it wrote


def test_a_search_that_another_process_took_over_stops_and_writes_nothing_more(
    repository: Repository, scenario: Any
) -> None:
    other = Repository(repository.url)

    def take_over(snapshot: Snapshot) -> None:
        if trained(snapshot) == 2:
            with other._transaction() as connection:
                connection.execute(text("UPDATE nas_searches SET owner = :owner"), {"owner": '{"token":"another"}'})

    runner = SimulatedRunner(scenario.world(), scenario.slots)
    with pytest.raises(ClaimLostError, match="taken over"):
        run(repository, scenario, take_over, runner=runner)
    trials = other.trials(other.search("one"))
    assert sum(len(trial.epochs) for trial in trials) == 2
    assert runner.poll(1e6) == []  # its work was cancelled
    other.close()


def test_a_database_file_that_is_deleted_is_noticed(repository: Repository, scenario: Any, database: str) -> None:
    def delete(snapshot: Snapshot) -> None:
        if trained(snapshot) == 2:
            Path(database.removeprefix("sqlite:///")).unlink(missing_ok=True)

    with pytest.raises(StorageError, match="is gone or was replaced"):
        run(repository, scenario, delete)
    assert not Path(database.removeprefix("sqlite:///")).exists()  # nor made anew


def test_a_database_that_is_away_is_waited_for_and_the_view_says_so(
    repository: Repository, scenario: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Journal.write, 0

    def away(journal: Journal, body: Any, now_s: float) -> Any:
        nonlocal calls
        calls += 1
        if 20 <= calls < 25:
            raise StorageAwayError("storage does not answer")
        return write(journal, body, now_s)

    monkeypatch.setattr(Journal, "write", away)
    notices: list[str] = []
    run(repository, scenario, lambda snapshot: notices.append(snapshot.notice))
    assert notices.count("storage does not answer; trying again") == 5
    straight = run(repository, scenario, name="two")
    assert straight.now > 0
    one, two = (repository.trials(repository.search(name)) for name in ("one", "two"))
    assert [(t.architecture, t.state, t.epochs) for t in one] == [(t.architecture, t.state, t.epochs) for t in two]


def test_a_database_that_stays_away_ends_the_search_after_minutes(
    repository: Repository, scenario: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(journal: Journal, now_s: float) -> None:
        raise StorageAwayError("storage does not answer")

    monkeypatch.setattr(Journal, "charge", away)
    runner = SimulatedRunner(scenario.world(), scenario.slots)
    with pytest.raises(StorageAwayError):
        run(repository, scenario, runner=runner)
    assert 240 < runner.now < 400


def test_who_stops_a_search_while_its_database_is_away_waits_for_seconds(
    repository: Repository, scenario: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Journal.write, 0
    waited_s: list[float] = []

    def away(journal: Journal, body: Any, now_s: float) -> Any:
        nonlocal calls
        calls += 1
        if calls < 20:
            return write(journal, body, now_s)
        raise StorageAwayError("storage does not answer; continue with nas-yolo resume once it does")

    def interrupt(snapshot: Snapshot) -> None:
        if snapshot.notice:
            waited_s.append(snapshot.now_s)
            if len(waited_s) == 4:
                raise KeyboardInterrupt

    runner = SimulatedRunner(scenario.world(), scenario.slots)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", away)
        with pytest.raises(StorageAwayError, match=r"^stopped, but .*nas-yolo resume .*from the last checkpoints$"):
            run(repository, scenario, interrupt, runner=runner)
    assert 5 < runner.now - waited_s[3] < 15
    assert runner.poll(1e6) == []  # its work was cancelled
    assert repository.search("one").state == "running"
    run(repository, scenario)
    run(repository, scenario, name="two")
    one, two = (repository.trials(repository.search(name)) for name in ("one", "two"))
    assert [(t.architecture, t.state, t.epochs) for t in one] == [(t.architecture, t.state, t.epochs) for t in two]


def test_a_small_search_spends_seconds_on_a_parent_that_it_cannot_afford(
    repository: Repository, scenarios: Any
) -> None:
    name = "a parent that its first batches give away"
    (small,) = (one for one in scenarios.SCENARIOS if one.name == name)
    runner = run(repository, small)
    search = repository.search("one")
    parent = repository.trials(search)[0]
    assert (parent.is_parent, parent.state, parent.epochs) == (True, "rejected", ())
    assert "as its first batches predict" in parent.reason
    (given_up,) = (one for one in repository.events(search) if one.event == TrialMoved(0, "rejected", parent.reason))
    (begun,) = (one for one in repository.events(search) if one.event == TrialMoved(0, "training"))
    assert 0 < given_up.at_s - begun.at_s < 5
    assert small.world().epoch_s(parent.architecture, 1) > 15  # of which two were waited for
    assert runner.now < 285


class Broken(World):
    """After so many trainings, no process of this machine can import what it needs."""

    left = 2

    def _train(self, request: Any) -> Iterator[Timed]:
        self.left -= 1
        if self.left >= 0:
            yield from super()._train(request)
        else:
            yield 0.1, Failure("environment", "ModuleNotFoundError: No module named 'cv2'")


def test_a_machine_that_fails_stops_the_search_and_costs_no_trial(repository: Repository, scenario: Any) -> None:
    whole = scenario.world()
    broken = Broken(whole.map50_95, whole.latency_ms, whole.epoch_s)
    with pytest.raises(SearchError, match=r"^3 times running, this machine failed .*cv2.*nas-yolo resume one"):
        run(repository, scenario, runner=SimulatedRunner(broken, 1))
    assert not any(trial.state == "failed" for trial in repository.trials(repository.search("one")))
    assert repository.search("one").state == "stopped"
    run(repository, scenario)
    assert {trial.state for trial in repository.trials(repository.search("one"))} <= {"complete", "paused"}


class AllAtOnce(SimulatedRunner):
    """Reports at once: that the data changed, and two epochs of another training."""

    def poll(self, timeout_s: float) -> Sequence[Report]:
        reports = list(super().poll(timeout_s))
        training = [key for key in self._running if key.startswith("train")]
        if len(training) == 2 and any(report.key == training[1] for report in reports):
            changed = Failure("data_changed", "images/train is gone")
            reports = [Report(training[0], changed), Report(training[0], None), *reports]
        return reports


def test_what_was_paid_is_recorded_even_if_another_result_ends_the_search(
    repository: Repository, scenario: Any
) -> None:
    with pytest.raises(SearchError, match=r"images/train is gone.*nas-yolo resume one"):
        run(repository, scenario, runner=AllAtOnce(scenario.world(), 2))
    trials = repository.trials(repository.search("one"))
    assert sum(len(trial.epochs) for trial in trials) > 0
    assert all(trial.state not in ("training", "measuring") for trial in trials)
    run(repository, scenario)
    assert repository.search("one").state == "done"


def test_time_in_which_the_process_was_stopped_is_not_counted() -> None:
    code = (
        "import sys, time\n"
        "from nas_yolo.runners import clock\n"
        "clock.BEAT_S, clock.LONGEST_BEAT_S = 0.05, 0.2\n"
        "awake, began = clock.AwakeClock(), time.monotonic()\n"
        "print('begun', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(time.monotonic() - began - awake.now, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdin
        assert one.stdout
        assert one.stdout.readline() == "begun\n"
        os.kill(one.pid, signal.SIGSTOP)
        threading.Event().wait(2.0)
        os.kill(one.pid, signal.SIGCONT)
        not_counted_s = float(one.communicate("\n")[0])
    assert not_counted_s > 1.5

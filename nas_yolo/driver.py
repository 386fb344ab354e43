"""The loop of a search, and all its effects: poll, record, tell, act. What to do is decided elsewhere."""

from __future__ import annotations

import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TypeVar

from evaluators.evaluation import Failure
from nas_yolo.budget import Spending
from nas_yolo.config import SearchConfig
from nas_yolo.devices import SUSPECT_AFTER
from nas_yolo.planning import decide
from nas_yolo.planning.actions import Action, Begin, Cancel, Stop, events_of, is_current
from nas_yolo.planning.outcomes import of_end, of_result, standing
from nas_yolo.planning.situation import Context, Situation, spending
from nas_yolo.planning.stop import what_hangs
from nas_yolo.runners import Kind, Report, Runner
from nas_yolo.work import work_of
from search_spaces.errors import UserError
from storage import Claim, Device, Job, JobKind, Repository, Search, State, StorageAwayError, StorageError, Trial
from storage.events import DeviceMoved, Event, JobEnded, JobStarted, PhaseEntered, SearchMoved, TrialMoved
from storage.trial import Phase, SearchState

TICK_S, THINKING_S = 1.0, 0.02  # between two looks: at the clock, at a decision that is being thought out
PATIENCE_S = (1.0, 2.0, 4.0, 8.0, *[15.0] * 19)  # pauses before a database that is away is tried again: five minutes
SESSION = "session"

T = TypeVar("T")
log = logging.getLogger(__name__)


class SearchError(UserError, RuntimeError):
    """The search cannot go on; one line that says why."""


@dataclass(frozen=True)
class Snapshot:
    """How a search stands, for whoever looks on.

    Attributes:
        now_s: Time of the search.
        events: What happened since the last one.
        notice: What is wrong at the moment with what the search needs, if anything is.
    """

    search: Search
    config: SearchConfig
    state: State
    spending: Spending
    now_s: float
    events: tuple[Event, ...] = ()
    notice: str = ""

    @property
    def phase(self) -> Phase:
        """What the search is about."""
        return self.state.phase

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All, by number."""
        return self.state.trials

    @property
    def running(self) -> tuple[tuple[JobKind, int | None], ...]:
        """Kind and trial number (None: preparations) of what runs."""
        return tuple((job.kind, job.trial) for job in self.state.work)

    @property
    def away(self) -> Mapping[str, str]:
        """Targets that do not answer, and why; the rest of the search goes on."""
        devices = self.state.devices
        return {name: device.reason for name, device in devices.items() if device.away_since_s is not None}


Listener = Callable[[Snapshot], None]
"""Is told after every change and every second. One that fails is logged, and never stops a search."""


class Driver:
    """Runs one search until its budget is spent or nothing is left to do; goes on wherever it stands.

    Args:
        repository: Where the search is stored.
        search: The search.
        claim: That this process holds it.
        runner: Where work runs; closed by the caller.
        context: What decisions need to know.
        listeners: Views, mirrors, trackers.
        thoughts: Where decisions are thought out.
    """

    def __init__(
        self,
        repository: Repository,
        search: Search,
        claim: Claim,
        runner: Runner,
        context: Context,
        listeners: Sequence[Listener] = (),
        thoughts: Executor | None = None,
    ):
        self.repository, self.search, self.runner, self.context = repository, search, runner, context
        self.listeners, self.thoughts = listeners, thoughts or ThreadPoolExecutor(1, "decisions")
        self.journal = repository.journal(search, claim)
        self._failures: dict[str, list[Failure]] = defaultdict(list)
        self._reports: list[Report] = []
        self._thought: tuple[State, Future[list[Action]]] | None = None
        self._happened: tuple[Event, ...] = ()
        self._ticked_s, self._changed, self._problem = 0.0, True, ""

    @property
    def state(self) -> State:
        """As of the last event."""
        return self.journal.state

    @property
    def now_s(self) -> float:
        """Time of the search: seconds in which processes worked on it."""
        return self._began_s + self.runner.now - self._runner_began

    def run(self) -> None:
        """Work until nothing is left to do within the budget.

        Raises:
            SearchError: If the images or a target cannot be used, or a target is not what it was.
            StorageError: If the database cannot be used, or another process took the search.
            KeyboardInterrupt: If the user stops it. As after a crash, nothing is lost, `run` on a new driver continues.
        """
        try:
            self._open()
            while not self._turn():
                pass
        except StorageError:
            self._cancel_all()  # nothing can be written
            raise
        except BaseException as error:
            self._close("stopped" if isinstance(error, KeyboardInterrupt) else "running")
            raise
        finally:
            self.thoughts.shutdown(wait=False, cancel_futures=True)
        self._close("stopped" if self._problem else "done")
        if self._problem:
            raise SearchError(self._problem)
        shutil.rmtree(self.repository.run_folder(self.search) / "scratch" / "images", ignore_errors=True)  # large

    def _open(self) -> None:
        """Settle what an earlier process left, in the database too, and begin to count."""
        lost, left = self.journal.charged, self.state.jobs
        events: list[Event] = [JobEnded(key, lost.get(key, 0.0), lost=True) for key in left]
        self._runner_began = self._ticked_s = self.runner.now
        self._began_s = sum(lost[key] for key in left if left[key].kind == "session") + self.state.spent.wall_seconds
        events += self._settled()
        # What was away is not forgotten: its reference is measured before anything else is.
        suspect = Device(failures=SUSPECT_AFTER)
        events += [
            DeviceMoved(name, suspect) for name, one in self.state.devices.items() if one.away_since_s is not None
        ]
        session = Job(SESSION, "session", "session", self._began_s)
        self._record([*events, JobStarted(session)])

    def _turn(self) -> bool:
        """Do what was decided, take in what happens; whether the search has ended."""
        if self._act():
            return True
        state = self.state
        for report in self._polled():
            self._take_in(report)
        if not self._thought:  # else the runner was only looked at, and what hangs may have something to say
            while hung := what_hangs(Situation(self.context, self.state, self.now_s)):
                self._take(hung)
        if self.runner.now - self._ticked_s >= TICK_S:
            self._tick()
        elif self.state is not state:
            self._tell()
        return bool(self._problem) or spending(self.context, self.state, self.now_s).exhausted

    def _polled(self) -> list[Report]:
        reports, self._reports = self._reports, []
        if self._thought and not self._thought[1].done():
            wait([self._thought[1]], THINKING_S)
            return reports + list(self.runner.poll(0.0))
        left_s = spending(self.context, self.state, self.now_s).seconds_left
        return reports + list(self.runner.poll(0.0 if self._thought or self._changed else min(TICK_S, left_s)))

    def _take_in(self, report: Report) -> None:
        """Record a result, and what follows from the end of work; a problem waits until all were recorded."""
        job = self.state.jobs.get(report.key)
        if job is None:
            return
        if report.item is not None:
            if isinstance(report.item, Failure):
                self._failures[job.key].append(report.item)
            self._record(of_result(self.state, job, report.item))
            return
        outcome = of_end(self.context, self.state, job, self._failures.pop(job.key, []), self.now_s)
        self._record(outcome.events)
        self._problem = self._problem or outcome.problem

    def _act(self) -> bool:
        """Do what was decided, as far as it still holds; decide anew if something changed. Whether that was the end."""
        while self._thought or self._changed:
            if not self._thought:
                self._changed = False
                self._thought = self.state, self.thoughts.submit(decide, self.context, self.state, self.now_s)
            decided, thought = self._thought
            if not thought.done():
                return False
            self._thought = None
            for action in thought.result():
                if not is_current(action, decided, self.state):
                    self._changed = True
                    break
                if isinstance(action, Stop):
                    self._problem = action.problem
                    return True
                self._take(action)
        return False

    def _take(self, action: Action) -> None:
        if isinstance(action, Begin):  # it may have been thought out for long
            action = replace(action, job=replace(action.job, started_s=self.now_s))
        if isinstance(action, Cancel):
            self.runner.cancel(action.key)
            self._failures.pop(action.key, None)
        self._record(events_of(action, self.state, self.now_s))
        if isinstance(action, Begin):
            kind: Kind = "train" if action.job.kind == "train" else "measure"
            work = work_of(action.job, self.state, self.context, self.repository, self.search)
            self.runner.submit(action.job.key, kind, work)

    def _record(self, events: Iterable[Event]) -> None:
        facts, now_s = list(events), self.now_s
        if facts:
            self._happened = (*self._happened, *self._stored(lambda: self.journal.record(facts, now_s)))
            self._changed = True

    def _stored(self, write: Callable[[], T]) -> T:
        """Write to the database; where that is away, again and again, while work goes on."""
        for pause_s in PATIENCE_S:
            try:
                return write()
            except StorageAwayError as error:
                self._tell(f"{error}; trying again")
                self._reports += self.runner.poll(pause_s)
        return write()

    def _tick(self) -> None:
        """Keep the ledger, the lease and the views current, and what only depends on time."""
        self._ticked_s, self._changed = self.runner.now, True
        self._stored(lambda: self.journal.charge(self.now_s))
        self._tell()

    def _cancel_all(self) -> None:
        for job in self.state.work:  # all of them before the first is written down, which takes time
            self.runner.cancel(job.key)

    def _close(self, search_state: SearchState) -> None:
        """Stop whatever still runs; its checkpoints stay."""
        self._cancel_all()
        now_s = self.now_s
        ended = [JobEnded(job.key, now_s - job.started_s, lost=True) for job in self.state.jobs.values()]
        done = [PhaseEntered("done")] if search_state == "done" else []
        self._record([*ended, *self._settled(), *done, SearchMoved(search_state)])
        self._tell()

    def _settled(self) -> list[Event]:
        """All trials as they stand once nothing works on them."""
        moves = ((trial, standing(trial)) for trial in self.state.trials)
        return [TrialMoved(trial.number, stands) for trial, stands in moves if stands != trial.state]

    def _tell(self, notice: str = "") -> None:
        now_s = self.now_s
        spent = spending(self.context, self.state, now_s)
        snapshot = Snapshot(self.search, self.context.config, self.state, spent, now_s, self._happened, notice)
        self._happened = ()
        for listener in self.listeners:
            try:
                listener(snapshot)
            except Exception:
                log.exception("a view of search %s failed", self.search.name)

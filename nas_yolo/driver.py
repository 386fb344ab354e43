"""The loop of a search, and all its effects: poll, record, tell, act. What to do is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

from nas_yolo.planning.actions import Action, Begin, Cancel, Stop, take
from nas_yolo.planning.outcomes import Failures, take_in
from nas_yolo.planning.session import left, taken_up
from nas_yolo.planning.situation import Context, Situation, spending
from nas_yolo.planning.stop import what_hangs
from nas_yolo.record import Record
from nas_yolo.runners import Report, Runner
from nas_yolo.snapshot import Listener
from nas_yolo.thoughts import Thoughts
from nas_yolo.work import work_of
from search_spaces.errors import UserError
from storage import Claim, Repository, Search, State, StorageError
from storage.trial import SearchState

TICK_S, THINKING_S = 1.0, 0.02  # between two looks: at the clock, at a decision that is being thought out


class SearchError(UserError, RuntimeError):
    """The search cannot go on; one line that says why."""


class Driver:
    """Runs one search until its budget is spent or nothing is left to do; goes on wherever it stands.

    Args:
        repository: Where the search is stored.
        search: The search.
        claim: That this process holds it.
        runner: Where work runs; closed by the caller.
        context: What decisions need to know.
        listeners: Views, mirrors, trackers.
        executor: Where decisions are thought out; by default in a thread.
        tick_s: Seconds after which the ledger and the views are brought up to date.
    """

    def __init__(
        self,
        repository: Repository,
        search: Search,
        claim: Claim,
        runner: Runner,
        context: Context,
        listeners: Sequence[Listener] = (),
        executor: Executor | None = None,
        tick_s: float = TICK_S,
    ):
        self.repository, self.search, self.runner, self.context = repository, search, runner, context
        self._waiting: list[Report] = []  # was polled while the database was away
        self.record = Record(repository, search, claim, context, listeners, lambda: self.now_s, self._wait)
        self.thoughts = Thoughts(context, executor)
        self._failures: Failures = {}
        self._began_s, self._ticked_s, self._tick_s, self._problem = 0.0, 0.0, tick_s, ""

    @property
    def now_s(self) -> float:
        """Time of the search: seconds in which processes worked on it."""
        return self._began_s + self.runner.now

    def run(self) -> None:
        """Work until nothing is left to do within the budget.

        Raises:
            SearchError: If the images or a target cannot be used, or a target is not what it was.
            StorageError: If the database cannot be used, or is away at the end, or another process took the search.
            KeyboardInterrupt: If the user stops it. As after a crash, nothing is lost, `run` on a new driver continues.
        """
        try:
            began_s, events = taken_up(self.record.state, self.record.charged_s)
            self._began_s, self._ticked_s = began_s - self.runner.now, self.runner.now
            self.record.write(lambda page: page.record(events))
            while not self._turn():
                pass
        except StorageError:
            self._cancel_all()  # nothing can be written
            raise
        except BaseException as error:
            self._close("stopped" if isinstance(error, KeyboardInterrupt) else "running", in_a_hurry=True)
            raise
        finally:
            self.thoughts.close()
        self._close("stopped" if self._problem else "done")
        if self._problem:
            raise SearchError(self._problem)

    def _turn(self) -> bool:
        """Do what was decided, take in what happens; whether the search has ended."""
        while answer := self.thoughts.ask(self.record.state, self.now_s):
            if self._take(*answer):
                return True
        if reports := self._polled():
            known = self.context, self._failures, self.now_s
            self._failures, self._problem = self.record.write(lambda page: take_in(page, reports, *known))
        if not self.thoughts.wait(0.0):  # else the runner was only looked at, and what hangs may have something to say
            while hung := what_hangs(Situation(self.context, self.record.state, self.now_s)):
                self._take(self.record.state, [hung])
        if ticked := self.runner.now - self._ticked_s >= self._tick_s:
            self._tick()
        self.record.tell(always=ticked)
        return bool(self._problem) or spending(self.context, self.record.state, self.now_s).exhausted

    def _take(self, decided: State, actions: Sequence[Action]) -> bool:
        """Do what was decided on a state, as far as it still holds; whether that is to end the search."""
        taken = self.record.write(lambda page: take(page, decided, actions, self.now_s)) if actions else []
        for action in taken:
            match action:
                case Begin(job):
                    work = work_of(job, self.record.state, self.context, self.repository, self.search)
                    self.runner.submit(job.key, "train" if job.kind == "train" else "measure", work)
                case Cancel(key):
                    self.runner.cancel(key)
                    self._failures = {other: found for other, found in self._failures.items() if other != key}
                case Stop(problem):
                    self._problem = problem
                    return True
        return False

    def _polled(self) -> list[Report]:
        """What has happened; waits for it, unless something is being decided."""
        reports, self._waiting = self._waiting, []
        if self.thoughts.wait(THINKING_S):
            return [*reports, *self.runner.poll(0.0)]
        left_s = spending(self.context, self.record.state, self.now_s).seconds_left
        return [*reports, *self.runner.poll(min(self._tick_s, left_s))]

    def _wait(self, seconds: float) -> None:
        self._waiting += self.runner.poll(seconds)

    def _tick(self) -> None:
        """Keep the ledger and the lease current, and decide what only depends on time."""
        self._ticked_s = self.runner.now
        self.thoughts.forget()
        self.record.charge()

    def _cancel_all(self) -> None:
        for job in self.record.state.work:  # all of them before the first is written down, which takes time
            self.runner.cancel(job.key)

    def _close(self, search_state: SearchState, in_a_hurry: bool = False) -> None:
        """Stop whatever still runs; its checkpoints stay."""
        self._cancel_all()
        self.record.write(lambda page: page.record(left(page.state, search_state, self.now_s)), in_a_hurry)
        self.record.tell()

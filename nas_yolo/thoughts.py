"""Decisions take their time: they are thought out beside the clock, one at a time, on the state as it was then."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait

from nas_yolo.planning import decide
from nas_yolo.planning.actions import Action
from nas_yolo.planning.situation import Context
from storage import State


class Thoughts:
    """What to do in each state, thought out once.

    Args:
        context: Of the search.
        executor: Where decisions are thought out; by default in a thread.
    """

    def __init__(self, context: Context, executor: Executor | None = None):
        self._context, self._executor = context, executor or ThreadPoolExecutor(1, "decisions")
        self._decided: State | None = None  # the last that was decided on
        self._thought: Future[list[Action]] | None = None

    def ask(self, state: State, now_s: float) -> tuple[State, list[Action]] | None:
        """What to do, and the state that it was decided on; None: nothing, or it is still being thought out."""
        if self._thought is None and self._decided is not state:
            self._decided = state
            self._thought = self._executor.submit(decide, self._context, state, now_s)
        if self._decided is None or self._thought is None or not self._thought.done():
            return None
        thought, self._thought = self._thought, None
        return self._decided, thought.result()

    def forget(self) -> None:
        """Think about the same state again: time has passed."""
        if self._thought is None:
            self._decided = None

    def wait(self, seconds: float) -> bool:
        """Let a decision that is being thought out take so long at most; whether there is one."""
        if self._thought is None:
            return False
        wait([self._thought], seconds)
        return True

    def close(self) -> None:
        """Think no more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

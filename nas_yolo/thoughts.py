"""Decisions take their time: they are thought out beside the clock, one at a time, on the state as it was then."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait

from nas_yolo.planning import decide
from nas_yolo.planning.actions import Action
from nas_yolo.planning.situation import Context
from storage import State


class Thoughts:
    """One decision at a time.

    Args:
        context: Of the search.
        executor: Where they are thought out; by default in a thread.
    """

    def __init__(self, context: Context, executor: Executor | None = None):
        self._context, self._executor = context, executor or ThreadPoolExecutor(1, "decisions")
        self._thought: tuple[State, Future[list[Action]]] | None = None

    @property
    def busy(self) -> bool:
        """Whether there is a decision that was not fetched."""
        return self._thought is not None

    def begin(self, state: State, now_s: float) -> None:
        """Think out what to do."""
        self._thought = state, self._executor.submit(decide, self._context, state, now_s)

    def wait(self, seconds: float) -> bool:
        """Whether there is nothing to wait for any more, after so long at most."""
        return self._thought is None or bool(wait([self._thought[1]], seconds).done)

    def fetch(self) -> tuple[State, list[Action]]:
        """What to do, and the state that it was decided on."""
        assert self._thought is not None
        (decided, thought), self._thought = self._thought, None
        return decided, thought.result()

    def close(self) -> None:
        """Think no more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

"""Work in this process, one piece at a time: so that a debugger or a profiler reaches the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nas_yolo.runners import Kind, Report, Work
from nas_yolo.runners.clock import AwakeClock


class LocalRunner:
    """Advances the oldest work by one result per poll."""

    slots = 1

    def __init__(self) -> None:
        self._work: dict[str, Iterator[Any]] = {}
        self._clock = AwakeClock()

    @property
    def now(self) -> float:
        """Seconds."""
        return self._clock.now

    def submit(self, key: str, kind: Kind, work: Work) -> None:
        """Queue it."""
        self._work[key] = work()

    def poll(self, timeout_s: float) -> Sequence[Report]:
        """Compute the next result of the oldest work, however long that takes; with no time at all, nothing."""
        if not self._work or timeout_s <= 0:
            self._clock.wait(timeout_s)
            return []
        key, results = next(iter(self._work.items()))
        try:
            return [Report(key, next(results))]
        except StopIteration:
            del self._work[key]
            return [Report(key, None)]

    def cancel(self, key: str) -> None:
        """Close the iterator."""
        self._close(self._work.pop(key, iter(())))

    def close(self) -> None:
        """Close all iterators."""
        while self._work:
            self._close(self._work.popitem()[1])
        self._clock.close()

    @staticmethod
    def _close(results: Iterator[Any]) -> None:
        getattr(results, "close", lambda: None)()

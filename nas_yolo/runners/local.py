"""Work in this process, one piece at a time: so that a debugger or a profiler reaches the training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from nas_yolo.runners import Event, Kind, Work


class LocalRunner:
    """Advances the oldest work by one result per poll."""

    slots = 1

    def __init__(self) -> None:
        self._work: dict[str, Iterator[Any]] = {}

    def submit(self, key: str, kind: Kind, work: Work) -> None:
        """Queue it."""
        self._work[key] = work()

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Compute the next result of the oldest work, however long that takes."""
        if not self._work:
            time.sleep(timeout_s)
            return []
        key, results = next(iter(self._work.items()))
        try:
            return [Event(key, next(results))]
        except StopIteration:
            del self._work[key]
            return [Event(key, None)]

    def cancel(self, key: str) -> None:
        """Close the iterator."""
        self._close(self._work.pop(key))

    def close(self) -> None:
        """Close all iterators."""
        while self._work:
            self._close(self._work.popitem()[1])

    @staticmethod
    def _close(results: Iterator[Any]) -> None:
        getattr(results, "close", lambda: None)()

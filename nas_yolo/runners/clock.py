"""The clock of real work: seconds in which this process was awake."""

from __future__ import annotations

import threading
import time

BEAT_S, LONGEST_BEAT_S = 1.0, 10.0


class AwakeClock:
    """Counts seconds, but none in which the process was stopped: a search is not charged for those.

    A thread of its own notices: what is busy in other threads, or waits, is awake.
    """

    def __init__(self) -> None:
        self._counted_s, self._last = 0.0, time.monotonic()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="clock", daemon=True)
        self._thread.start()

    @property
    def now(self) -> float:
        """Seconds since it was made."""
        with self._lock:
            return self._counted_s + self._since()

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or once it is closed."""
        self._ended.wait(seconds)

    def close(self) -> None:
        """Stop counting."""
        self._ended.set()
        self._thread.join()

    def _since(self) -> float:
        return min(time.monotonic() - self._last, LONGEST_BEAT_S)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with self._lock:
                self._counted_s, self._last = self._counted_s + self._since(), time.monotonic()

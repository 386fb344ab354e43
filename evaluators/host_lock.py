"""Training and latency measurements share a machine: a measurement stops the training while it lasts.

Two lock files per machine, both released by the kernel however a process ends. Trainings hold `main` together; a
measurement holds it alone (`probe.measuring`). Whoever measures first closes `gate`; trainings look at the gate between
two batches, let go of `main` while it is closed, and wait. So a measurement waits for one batch at most, and a stream
of trainings cannot keep it out. It works between processes, whichever search started them.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluators.probe import open_lock


class TrainingSlot:
    """The right to compute while nobody measures.

    Attributes:
        waited_s: Seconds spent waiting for measurements so far.
    """

    def __init__(self, main: int, gate: int):
        self._main, self._gate = main, gate
        self.waited_s = 0.0
        self._enter()

    def give_way(self) -> None:
        """Wait while somebody measures. Costs microseconds when nobody does; call it between two batches."""
        try:
            fcntl.flock(self._gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._main, fcntl.LOCK_UN)
            self._enter()
        else:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _enter(self) -> None:
        started = time.monotonic()
        fcntl.flock(self._gate, fcntl.LOCK_SH)
        fcntl.flock(self._main, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        self.waited_s += time.monotonic() - started


@contextmanager
def training(folder: Path | None = None) -> Iterator[TrainingSlot]:
    """Hold the machine together with others that train or compute."""
    with open_lock("main", folder) as main, open_lock("gate", folder) as gate:
        yield TrainingSlot(main, gate)

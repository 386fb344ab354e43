"""Training and latency measurements share a machine: a measurement stops the training while it lasts.

Two lock files per machine, both released by the kernel however a process ends. Trainings hold `main` together; a
measurement holds it alone. Whoever measures first closes `gate`; trainings look at the gate between two batches, let
go of `main` while it is closed, and wait. So a measurement waits for one batch at most, and a stream of trainings
cannot keep it out. It works between processes, whichever search started them.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def lock_folder() -> Path:
    """The folder of the lock files, one for all searches of this user on this machine."""
    return Path(platformdirs.user_cache_dir("nas-yolo")) / "locks"


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
    """Hold the machine together with other trainings."""
    with _open("main", folder) as main, _open("gate", folder) as gate:
        yield TrainingSlot(main, gate)


@contextmanager
def measuring(folder: Path | None = None) -> Iterator[None]:
    """Hold the machine alone: no training and no other measurement of nas-yolo computes meanwhile."""
    with _open("main", folder) as main, _open("gate", folder) as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(main, fcntl.LOCK_EX)
        yield


@contextmanager
def _open(name: str, folder: Path | None) -> Iterator[int]:
    folder = folder or lock_folder()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

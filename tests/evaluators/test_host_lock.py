from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from evaluators import host_lock, probe
from evaluators.host_lock import training
from evaluators.probe import measuring

LONG_S = 30.0  # what must happen, happens long before
SHORT_S = 0.1  # what must not happen, is given so long to happen

HOLDER = """
import sys
from pathlib import Path
from evaluators.{module} import {kind}
with {kind}(Path(sys.argv[1])):
    print("inside", flush=True)
    sys.stdin.read()
"""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


def gate_is_closed(folder: Path) -> bool:
    """Whether somebody measures or waits to measure."""
    with open(folder / "gate", "a") as gate:
        try:
            fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Worker:
    """A thread that takes the lock, works until told to stop, and counts its batches."""

    def __init__(self, work: Callable[[Worker], None]):
        self.inside, self.stop, self.finished = threading.Event(), threading.Event(), threading.Event()
        self.batches, self.waited_s = 0, 0.0
        self.may_continue = threading.Event()

        def run() -> None:
            work(self)
            self.finished.set()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()


def measurement(folder: Path) -> Callable[[Worker], None]:
    def work(worker: Worker) -> None:
        with measuring(folder):
            worker.inside.set()
            worker.stop.wait(LONG_S)

    return work


def trainer(folder: Path, *, batch_by_batch: bool = False) -> Callable[[Worker], None]:
    """A training that gives way between batches; `batch_by_batch` waits for `may_continue` before each."""

    def work(worker: Worker) -> None:
        with training(folder) as slot:
            worker.inside.set()
            while not worker.stop.is_set():
                if batch_by_batch:
                    worker.may_continue.wait(LONG_S)
                    worker.may_continue.clear()
                worker.batches += 1
                time.sleep(0.001)
                slot.give_way()
                worker.waited_s = slot.waited_s

    return work


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[Worker], None]], Worker]]:
    workers: list[Worker] = []

    def start_worker(work: Callable[[Worker], None]) -> Worker:
        workers.append(Worker(work))
        return workers[-1]

    yield start_worker
    for worker in workers:
        worker.stop.set()
        worker.may_continue.set()
    for worker in workers:
        worker.thread.join(LONG_S)
        assert not worker.thread.is_alive()


@contextmanager
def holder_process(kind: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, inside `training` or `measuring`."""
    command = [
        sys.executable,
        "-c",
        HOLDER.format(kind=kind, module="probe" if kind == "measuring" else "host_lock"),
        str(folder),
    ]
    root = Path(host_lock.__file__).parents[1]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "inside\n"
            yield process
        finally:
            process.kill()


Start = Callable[[Callable[[Worker], None]], Worker]


def test_trainings_share_the_machine(start: Start, tmp_path: Path) -> None:
    first, second = start(trainer(tmp_path)), start(trainer(tmp_path))
    wait_until(lambda: first.batches > 3 and second.batches > 3)


def test_a_measurement_waits_for_the_training_s_next_batch(start: Start, tmp_path: Path) -> None:
    busy = start(trainer(tmp_path, batch_by_batch=True))
    assert busy.inside.wait(LONG_S)
    measured = start(measurement(tmp_path))
    wait_until(lambda: gate_is_closed(tmp_path))
    assert not measured.inside.wait(SHORT_S)
    busy.may_continue.set()
    assert measured.inside.wait(LONG_S)


def test_a_training_waits_until_the_measurement_ends(start: Start, tmp_path: Path) -> None:
    busy = start(trainer(tmp_path))
    wait_until(lambda: busy.batches > 0)
    measured = start(measurement(tmp_path))
    assert measured.inside.wait(LONG_S)
    batches = busy.batches
    time.sleep(SHORT_S)
    assert busy.batches == batches
    measured.stop.set()
    wait_until(lambda: busy.batches > batches + 3)


def test_a_new_training_waits_behind_a_waiting_measurement(start: Start, tmp_path: Path) -> None:
    busy = start(trainer(tmp_path, batch_by_batch=True))
    assert busy.inside.wait(LONG_S)
    measured = start(measurement(tmp_path))
    wait_until(lambda: gate_is_closed(tmp_path))
    newcomer = start(trainer(tmp_path))
    assert not newcomer.inside.wait(SHORT_S)
    busy.may_continue.set()
    assert measured.inside.wait(LONG_S)
    assert not newcomer.inside.is_set()
    measured.stop.set()
    assert newcomer.inside.wait(LONG_S)


def test_a_stream_of_trainings_cannot_starve_measurements(start: Start, tmp_path: Path) -> None:
    workers = [start(trainer(tmp_path)) for _ in range(2)]
    wait_until(lambda: all(worker.batches > 3 for worker in workers))
    for _ in range(10):
        measured = start(measurement(tmp_path))
        assert measured.inside.wait(LONG_S)
        batches = [worker.batches for worker in workers]
        time.sleep(0.01)
        assert [worker.batches for worker in workers] == batches
        measured.stop.set()
        assert measured.finished.wait(LONG_S)
    wait_until(lambda: all(now.batches > then for now, then in zip(workers, batches, strict=True)))


def test_measurements_exclude_one_another(start: Start, tmp_path: Path) -> None:
    first = start(measurement(tmp_path))
    assert first.inside.wait(LONG_S)
    second = start(measurement(tmp_path))
    assert not second.inside.wait(SHORT_S)
    first.stop.set()
    assert second.inside.wait(LONG_S)


def test_waiting_is_counted_and_working_is_not(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [100.0], threading.Event()

    def clock() -> float:
        value = now[0]
        asked.set()
        return value

    monkeypatch.setattr(host_lock, "time", SimpleNamespace(monotonic=clock))
    busy = start(trainer(tmp_path))
    wait_until(lambda: busy.batches > 3)
    now[0] = 150.0
    wait_until(lambda: busy.batches > 10)
    assert busy.waited_s == 0.0

    for seconds, total in ((7.0, 7.0), (2.5, 9.5)):
        asked.clear()
        measured = start(measurement(tmp_path))
        assert measured.inside.wait(LONG_S)
        assert asked.wait(LONG_S)  # the training has begun to wait
        now[0] += seconds
        measured.stop.set()
        batches = busy.batches
        wait_until(lambda expected=batches + 3: busy.batches > expected)
        assert busy.waited_s == total


def test_waiting_to_begin_is_counted(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], threading.Event()

    def clock() -> float:
        value = now[0]
        asked.set()
        return value

    measured = start(measurement(tmp_path))
    assert measured.inside.wait(LONG_S)
    monkeypatch.setattr(host_lock, "time", SimpleNamespace(monotonic=clock))
    newcomer = start(trainer(tmp_path))
    assert asked.wait(LONG_S)
    now[0] = 4.0
    measured.stop.set()
    wait_until(lambda: newcomer.batches > 1)
    assert newcomer.waited_s == 4.0


@pytest.mark.parametrize("kind", ["training", "measuring"])
def test_it_works_between_processes(kind: str, start: Start, tmp_path: Path) -> None:
    with holder_process(kind, tmp_path) as process:
        measured = start(measurement(tmp_path))
        assert not measured.inside.wait(SHORT_S)
        process.communicate()  # ends its input, and so its work
        assert process.returncode == 0
        assert measured.inside.wait(LONG_S)


@pytest.mark.parametrize("kind", ["training", "measuring"])
def test_a_killed_holder_holds_nothing(kind: str, start: Start, tmp_path: Path) -> None:
    with holder_process(kind, tmp_path) as process:
        measured = start(measurement(tmp_path))
        assert not measured.inside.wait(SHORT_S)
        process.kill()
        assert measured.inside.wait(LONG_S)
        measured.stop.set()
        assert start(trainer(tmp_path)).inside.wait(LONG_S)


@pytest.mark.parametrize("hold", [training, measuring])
def test_an_error_inside_releases(hold: Callable[[Path], object], start: Start, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        raise ZeroDivisionError
    assert start(measurement(tmp_path)).inside.wait(LONG_S)


def test_folders_are_other_machines(start: Start, tmp_path: Path) -> None:
    assert start(measurement(tmp_path / "one")).inside.wait(LONG_S)
    assert start(measurement(tmp_path / "two")).inside.wait(LONG_S)


def test_the_locks_are_the_same_for_all_who_name_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LOCKS", tmp_path / "locks")
    with measuring():
        assert gate_is_closed(tmp_path / "locks")
    assert not gate_is_closed(tmp_path / "locks")


def test_they_are_for_every_user_of_the_machine(tmp_path: Path) -> None:
    with training(tmp_path / "locks"):
        pass
    for name in ("gate", "main"):
        assert (tmp_path / "locks" / name).stat().st_mode & 0o444 == 0o444
        (tmp_path / "locks" / name).chmod(0o444)  # to lock takes no right to write
    with measuring(tmp_path / "locks"):
        pass


def test_waiting_for_others_has_an_end(start: Start, tmp_path: Path) -> None:
    assert start(measurement(tmp_path)).inside.wait(LONG_S)
    with pytest.raises(probe.ProbeError, match=r"for 0\.1 s$") as caught, measuring(tmp_path, limit_s=0.1):
        raise AssertionError
    assert caught.value.cause == "device_busy"


def test_waiting_ends_when_the_result_is_not_wanted_any_more(start: Start, tmp_path: Path) -> None:
    assert start(measurement(tmp_path)).inside.wait(LONG_S)
    with pytest.raises(probe.ProbeError), measuring(tmp_path, wanted=lambda: False):
        raise AssertionError


def test_a_measurement_that_gave_up_lets_trainings_go_on(tmp_path: Path) -> None:
    with training(tmp_path) as slot:
        with pytest.raises(probe.ProbeError), measuring(tmp_path, limit_s=0.05):
            raise AssertionError
        slot.give_way()
    assert slot.waited_s < 1.0


def test_no_file_stays_open(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    with measuring(tmp_path):
        assert descriptors() == before + 2
        with pytest.raises(probe.ProbeError), measuring(tmp_path, limit_s=0.0):
            raise AssertionError
        assert descriptors() == before + 2
    assert descriptors() == before


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_whoever_makes_the_locks_all_users_may_take_them(umask: int, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    usual = os.umask(umask)
    try:
        with measuring(folder):
            pass
    finally:
        os.umask(usual)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {"locks": 0o1777, "main": 0o644, "gate": 0o644}

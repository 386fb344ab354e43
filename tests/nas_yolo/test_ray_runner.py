"""The Ray runner on a real cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evaluators.evaluation import Failure
from nas_yolo.runners import Report

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from nas_yolo.runners.ray import RayRunner

    foreign = tmp_path_factory.mktemp("foreign")
    (foreign / "onnxslim").mkdir()
    (foreign / "onnxslim" / "__init__.py").write_text("raise ImportError('a stranger in the working directory')")
    before = os.getcwd()
    os.chdir(foreign)  # whatever lies in the user's working directory must not reach the workers
    runner = RayRunner(2, 0.0, tmp_path_factory.mktemp("search"))
    yield runner
    runner.close()
    os.chdir(before)


def collect(runner: Any, *keys: str, until: Callable[[list[Report]], bool] | None = None) -> list[Report]:
    """Events until all the keys have ended."""
    events: list[Report] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        events += runner.poll(0.2)
        ended = {event.key for event in events if event.item is None}
        if (until and until(events)) or ended >= set(keys):
            return events
    raise AssertionError(f"no end after 60 s: {events}")


def items(events: list[Report], key: str) -> list[Any]:
    return [event.item for event in events if event.key == key]


def count_to(number: int) -> Iterator[int]:
    yield from range(number)


def my_pid() -> Iterator[int]:
    yield os.getpid()


def my_pid_then_sleep() -> Iterator[int]:
    yield os.getpid()
    time.sleep(60)


def environment() -> Iterator[Any]:
    import sys

    import onnxslim

    yield {name: value for name, value in os.environ.items() if name.startswith("YOLO_")}
    yield sys.path
    yield onnxslim.__file__


def hold(seconds: float) -> Iterator[float]:
    yield time.time()
    time.sleep(seconds)
    yield time.time()


def fail() -> Iterator[int]:
    yield 1
    raise ValueError("a programming error")


def test_results_arrive_in_order_and_then_the_end(runner: Any) -> None:
    runner.submit("a", "train", partial(count_to, 5))
    runner.submit("b", "train", partial(count_to, 0))
    events = collect(runner, "a", "b")
    assert items(events, "a") == [0, 1, 2, 3, 4, None]
    assert items(events, "b") == [None]


def test_workers_have_the_environment_of_a_search_and_nothing_of_the_working_directory(runner: Any) -> None:
    runner.submit("e", "train", environment)
    variables, path, onnxslim, end = items(collect(runner, "e"), "e")
    assert variables["YOLO_OFFLINE"] == "true"
    assert variables["YOLO_AUTOINSTALL"] == "false"
    assert os.getcwd() not in path
    assert "foreign" not in onnxslim
    assert end is None


def test_a_killed_worker_is_a_crash_and_the_others_go_on(runner: Any) -> None:
    runner.submit("victim", "train", my_pid_then_sleep)
    (pid,) = items(collect(runner, "victim", until=bool), "victim")
    os.kill(pid, signal.SIGKILL)
    runner.submit("other", "train", partial(count_to, 2))
    events = collect(runner, "victim", "other")
    failure, end = items(events, "victim")
    assert isinstance(failure, Failure)
    assert failure.cause == "crash"
    assert "\n" not in failure.message
    assert end is None
    assert items(events, "other") == [0, 1, None]


def test_an_exception_in_the_work_is_a_failure_too(runner: Any) -> None:
    runner.submit("f", "train", fail)
    first, failure, end = items(collect(runner, "f"), "f")
    assert first == 1
    assert "a programming error" in failure.message
    assert end is None


def test_cancelled_work_is_gone_at_once(runner: Any) -> None:
    runner.submit("c", "train", my_pid_then_sleep)
    (pid,) = items(collect(runner, "c", until=bool), "c")
    runner.cancel("c")
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        assert runner.poll(0.1) == []
    assert not Path(f"/proc/{pid}").exists()


def test_measurements_take_no_place_of_a_training(runner: Any) -> None:
    for key in ("m1", "m2"):
        runner.submit(key, "measure", partial(hold, 0.5))
    for key in ("t1", "t2"):
        runner.submit(key, "train", partial(hold, 0.5))
    events = collect(runner, "m1", "m2", "t1", "t2")
    assert all(len(items(events, key)) >= 2 for key in ("m1", "m2"))
    trainings = [items(events, key)[:2] for key in ("t1", "t2")]
    assert max(start for start, _ in trainings) < min(end for _, end in trainings)


def test_a_measurement_finds_the_process_of_the_one_before(runner: Any) -> None:
    for key in ("t1", "t2"):
        runner.submit(key, "train", my_pid_then_sleep)
    collect(runner, "t1", "t2", until=lambda events: len(events) == 2)
    pids = []
    for key in ("first", "second"):
        runner.submit(key, "measure", my_pid)
        pids += items(collect(runner, key), key)[:1]
        assert runner.poll(4.0) == []  # a search has none to give for longer than Ray keeps what is too many
    for key in ("t1", "t2"):
        runner.cancel(key)
    assert pids[0] == pids[1]

"""The probe, for real, on a CPU. Its GPU part (memory, shares, precision) was not run: no GPU was at hand."""

from __future__ import annotations

import functools
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators.accuracy.gpu_sharing import MadeUpTraining, Sample, measure_packing, together, train_steps
from evaluators.evaluation import Failure
from evaluators.packing import Packing
from search_spaces.image_size import ImageSize


def small() -> MadeUpTraining:
    from search_spaces.presets import load_preset

    return MadeUpTraining(
        load_preset("yolov8n"), classes=3, imgsz=ImageSize(32, 32), batch=2, device="cpu", window_s=0.3
    )


def run_out_of_memory(ready: Callable[[], None]) -> None:
    """The kernel gives it no more than it has when all are ready."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * os.sysconf("SC_PAGE_SIZE") + 2**20
    ready()
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    bytearray(2**26)


def die(ready: Callable[[], None]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_all_are_ready(ready: Callable[[], None]) -> None:
    ready()
    os.kill(os.getpid(), signal.SIGKILL)


def never_ready(ready: Callable[[], None]) -> None:
    time.sleep(600)


def meet(delay_s: float, ready: Callable[[], None]) -> tuple[float, float]:
    time.sleep(delay_s)
    arrived = time.time()
    ready()
    return arrived, time.time()


@pytest.fixture(scope="module")
def measured() -> Packing:
    return measure_packing(small(), small(), cores=4, gpus=1)


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """Of six at once, of which three come to grief."""
    works = {
        "trains": functools.partial(train_steps, small()),
        "runs out of memory": run_out_of_memory,
        "dies": die,
        "dies when all are ready": die_when_all_are_ready,
        "meets": functools.partial(meet, 0.0),
        "is late": functools.partial(meet, 0.5),
    }
    return dict(zip(works, together(list(works.values())), strict=True))


def test_one_and_two_trainings_at_once_are_measured(measured: Packing) -> None:
    assert [run.trainings for run in measured.runs] == [1, 2]
    assert all(run.images_per_s > 0 and not run.failures for run in measured.runs)
    assert (measured.limit, measured.limited_by) == (2, "cores")
    assert measured.trainings in (1, 2)


def test_a_cpu_has_no_memory_to_divide(measured: Packing) -> None:
    assert measured.memory_bytes is None
    assert measured.largest is None
    assert {run.peak_bytes for run in measured.runs} == {()}


def test_one_that_runs_out_of_memory_or_dies_does_not_hurt_the_others(answers: dict[str, Any]) -> None:
    assert answers["runs out of memory"].cause == "oom"
    assert answers["dies when all are ready"] == Failure("crash", "the process died with exit code -9")
    assert isinstance(answers["trains"], Sample)
    assert answers["trains"].images_per_s > 0


def test_nobody_waits_for_one_that_died_before_it_was_ready(answers: dict[str, Any]) -> None:
    assert answers["dies"] == Failure("crash", "the process died with exit code -9")


def test_all_begin_at_the_same_time_and_not_before_the_slowest_is_ready(answers: dict[str, Any]) -> None:
    pairs = [answers["meets"], answers["is late"]]
    assert min(begun for _, begun in pairs) >= max(arrived for arrived, _ in pairs)


def test_one_that_hangs_is_killed() -> None:
    (hung,) = together([never_ready], limit_s=1.0)
    assert hung.cause == "timeout"

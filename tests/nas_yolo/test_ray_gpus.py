"""Shares of GPUs on a real Ray cluster that is told of two GPUs: none was at hand, and nothing computes on them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import ray

    from nas_yolo.runners.ray import RayRunner

    init = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: init(**options | {"num_gpus": 2}))
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/tmp/pipes-of-the-user")
    runner = RayRunner(6, 1 / 3, tmp_path)
    yield runner
    runner.close()


def hold(until: Path) -> Iterator[tuple[int, str | None, str | None]]:
    yield os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
    while not until.exists():
        time.sleep(0.05)


def collect(runner: Any, number: int, ends: bool) -> list[Any]:
    """So many results, or ends."""
    found: list[Any] = []
    deadline = time.monotonic() + 120
    while len(found) < number and time.monotonic() < deadline:
        found += [event.item for event in runner.poll(0.2) if (event.item is None) == ends]
    return found


def test_thirds_fill_each_gpu_and_a_process_never_sees_a_second_one(runner: Any, tmp_path: Path) -> None:
    for number in range(6):
        runner.submit(f"t{number}", "train", partial(hold, tmp_path / "go"))
    first = collect(runner, 6, ends=False)  # all at once: none ends before it is told to
    assert Counter(gpu for _, gpu, _ in first) == {"0": 3, "1": 3}
    assert {pipes for _, _, pipes in first} == {"/tmp/pipes-of-the-user"}
    (tmp_path / "go").touch()
    assert len(collect(runner, 6, ends=True)) == 6
    runner.submit("next", "train", partial(hold, tmp_path / "go"))
    ((pid, gpu, _),) = collect(runner, 1, ends=False)
    assert gpu in ("0", "1")
    assert pid not in {before for before, _, _ in first}

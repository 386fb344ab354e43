"""Ends of all kinds, with the real command line, Ray and trainings: kill -9, Ctrl-C, the budget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import psutil
import pytest

from evaluators import latency
from evaluators.evaluation import Latency
from evaluators.latency import Calibration, fingerprint
from evaluators.target import get_target
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space
from storage import Repository, Search, Trial

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SPACE = Path(__file__).parent / "space.yaml"
DEADLINE_S = 400  # ten times what it takes: a busy machine is no failure
LEAN = """
from nas_yolo import planning
planning.confirm.FRONT_SESSIONS = planning.confirm.FINAL_SESSIONS = 1
planning.POLICIES = tuple(policy for policy in planning.POLICIES if policy is not planning.validate.finalists)
from nas_yolo.cli import main
main()
"""
NAS_YOLO = [sys.executable, "-c", LEAN]  # without what comes after the trainings


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "CALIBRATION_SESSIONS", 2)
        return latency.calibrate(get_target("cpu"), ImageSize(64, 64))


@pytest.fixture
def calibrated(database: str, calibration: Calibration) -> Repository:
    """The reference's time was measured before."""
    repository = Repository(database)
    repository.add_calibration(calibration)
    return repository


@pytest.fixture
def all_measured(calibrated: Repository) -> None:
    """And so was the latency of whatever may be proposed: where a test is about trainings only."""
    space = load_space(str(SPACE))
    points = [dict(zip(space.choices, values, strict=True)) for values in product(*space.choices.values())]
    mark = fingerprint(get_target("cpu"))
    for index, design in enumerate([load_preset("yolov8n"), *map(space.architecture, points)]):
        ms = 1 + index / len(points)
        measured = Latency("cpu", mark, ImageSize(64, 64), ms, ms, ms, ms / 1.6, 1.6, ms, ms, 100, 0.0, 0.0, "good")
        calibrated.add_latency(design, 10, measured)


@pytest.fixture
def start(few_digits: Path, database: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    # A shell that runs the tests in the background has Ctrl-C ignored, and what is started inherits that.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(budget: str = "4trials") -> subprocess.Popen[str]:
        command = [*NAS_YOLO, "search", "--name", "one", "--data", str(few_digits), "--target", "cpu"]
        command += [
            "--budget",
            budget,
            "--space",
            str(SPACE),
            "--imgsz",
            "64",
            "--epochs",
            "6",
            "--json",
            "--from-scratch",
        ]
        command += ["--train", "batch=8", "--train", "nbs=8"]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    signal.signal(signal.SIGINT, previous)
    for process in started:
        if process.poll() is None:  # the test failed: its search must not disturb the next ones
            process.kill()
            process.communicate()


def wait_for(process: subprocess.Popen[str], database: str, condition: Callable[[list[Trial]], bool]) -> list[Trial]:
    """The trials as soon as the condition holds."""
    repository = Repository(database)
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"ended early: {process.communicate()}")
        time.sleep(0.05)
        searches = repository.searches()
        trials = repository.trials(searches[0]) if searches else []
        if condition(trials):
            repository.close()
            return trials
    raise AssertionError(f"did not happen in {DEADLINE_S} s")


def in_the_middle(trials: list[Trial]) -> bool:
    """Two trainings run, one of them between two rungs."""
    running = [trial for trial in trials if trial.state == "training"]
    return len(running) == 2 and any(len(trial.epochs) in (1, 3, 4, 5) for trial in running)


def the_search(database: str) -> tuple[Repository, Search]:
    repository = Repository(database)
    return repository, repository.search("one")


def check_nothing_lost(before: list[Trial], after: list[Trial]) -> None:
    for trial in before:
        same = after[trial.number]
        assert same.architecture == trial.architecture
        assert same.epochs[: len(trial.epochs)] == trial.epochs  # also the seconds: not trained again
        assert same.latencies.keys() >= trial.latencies.keys()


def checkpoint_epochs(folder: Path, trial: Trial) -> list[int]:
    import torch

    (file,) = folder.glob(f"runs/one-*/trials/{trial.number:05d}/checkpoint.pt")
    saved = torch.load(file, weights_only=True)
    return [epoch["epoch"] for epoch in saved["history"]]


@pytest.mark.usefixtures("all_measured")
def test_kill_the_driver_and_resume(start: Callable[..., subprocess.Popen[str]], database: str, tmp_path: Path) -> None:
    process = start()
    before = wait_for(process, database, in_the_middle)
    process.kill()
    process.communicate()
    repository, search = the_search(database)
    assert not repository.is_claimed(search)

    # At once, while the dead driver's workers still live: Ray ends them within some seconds.
    refused = subprocess.run([*NAS_YOLO, "front", "one", "--json"], capture_output=True, text=True, check=False)
    assert refused.returncode == 0  # reading works at any time
    done = subprocess.run([*NAS_YOLO, "resume", "one", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)

    after = repository.trials(search)
    check_nothing_lost(before, after)
    assert len(after) == 4
    assert all(trial.state in ("complete", "paused") for trial in after)
    for trial in after:
        recorded = [epoch.epoch for epoch in trial.epochs]
        assert recorded == list(range(1, len(recorded) + 1))
        assert checkpoint_epochs(tmp_path, trial) == recorded
    numbers = {trial["trial"] for trial in document["front"]}
    assert numbers <= {trial.number for trial in after if trial.state == "complete"}
    assert numbers


@pytest.mark.usefixtures("calibrated")
def test_kill_a_worker_and_the_search_goes_on(
    start: Callable[..., subprocess.Popen[str]], database: str, tmp_path: Path
) -> None:
    process = start()
    before = wait_for(process, database, in_the_middle)
    busy = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.is_running() and child.name().startswith("ray::_results")
    ]
    assert busy
    victim = max(busy, key=lambda child: sum(child.cpu_times()[:2]))
    os.kill(victim.pid, signal.SIGKILL)
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors

    repository, search = the_search(database)
    after = repository.trials(search)
    check_nothing_lost(before, after)
    crashed = [trial for trial in after if any(failure.cause == "crash" for failure in trial.failures)]
    assert len(crashed) == 1
    assert crashed[0].state in ("complete", "paused")
    assert checkpoint_epochs(tmp_path, crashed[0]) == [epoch.epoch for epoch in crashed[0].epochs]
    assert len(after) == 4
    assert json.loads(output)["name"] == "one"


@pytest.mark.usefixtures("all_measured")
def test_a_second_process_on_the_same_search_is_refused_and_ctrl_c_says_how_to_go_on(
    start: Callable[..., subprocess.Popen[str]], database: str
) -> None:
    process = start()
    wait_for(process, database, in_the_middle)
    second = subprocess.run([*NAS_YOLO, "resume", "one"], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("Error: search 'one' is being worked on by process")

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert output == ""
    assert "nas-yolo resume one" in errors
    assert "Traceback" not in errors
    repository, search = the_search(database)
    assert search.state == "stopped"
    assert not repository.is_claimed(search)
    assert all(trial.state not in ("training", "measuring") for trial in repository.trials(search))


@pytest.mark.parametrize("budget", ["20s", "20cpu-s"])
def test_a_budget_in_time_is_not_overrun(
    start: Callable[..., subprocess.Popen[str]], database: str, budget: str
) -> None:
    process = start(budget)
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert json.loads(output)["budget"]["limit"] == 20
    repository, search = the_search(database)
    spent = repository.spent(search)
    used = spent.cpu_seconds if "cpu" in budget else spent.wall_seconds
    assert used < 20.5
    assert search.state == "done"
    assert all(trial.state not in ("training", "measuring") for trial in repository.trials(search))

"""Ends of all kinds, with the real command line, Ray and trainings: kill -9, Ctrl-C, the budget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from storage import Repository, Search, Trial

pytestmark = pytest.mark.ray

SPACE = Path(__file__).parent / "space.yaml"
NAS_YOLO = [sys.executable, "-m", "nas_yolo"]


@pytest.fixture
def start(few_digits: Path, database: str) -> Callable[..., subprocess.Popen[str]]:
    def start(budget: str = "4trials") -> subprocess.Popen[str]:
        command = [*NAS_YOLO, "search", "--name", "one", "--data", str(few_digits), "--target", "cpu"]
        command += ["--budget", budget, "--space", str(SPACE), "--imgsz", "64", "--epochs", "12", "--json"]
        command += ["--train", "batch=8", "--train", "nbs=8"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def wait_for(process: subprocess.Popen[str], database: str, condition: Callable[[list[Trial]], bool]) -> list[Trial]:
    """The trials as soon as the condition holds."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"ended early: {process.communicate()}")
        time.sleep(0.05)
        repository = Repository(database)
        searches = repository.searches()
        trials = repository.trials(searches[0]) if searches else []
        repository.close()
        if condition(trials):
            return trials
    raise AssertionError("did not happen in two minutes")


def in_the_middle(trials: list[Trial]) -> bool:
    """Two trainings run, one of them between two rungs."""
    running = [trial for trial in trials if trial.state == "training"]
    return len(running) == 2 and any(len(trial.epochs) in (1, 2, 3, 5, 6) for trial in running)


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


def test_kill_a_worker_and_the_search_goes_on(
    start: Callable[..., subprocess.Popen[str]], database: str, tmp_path: Path
) -> None:
    process = start()
    before = wait_for(process, database, in_the_middle)
    busy = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.is_running() and child.name().startswith("ray::_run")
    ]
    assert busy
    victim = max(busy, key=lambda child: sum(child.cpu_times()[:2]))
    os.kill(victim.pid, signal.SIGKILL)
    output, errors = process.communicate(timeout=240)
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


def test_a_second_process_on_the_same_search_is_refused_and_ctrl_c_says_how_to_go_on(
    start: Callable[..., subprocess.Popen[str]], database: str
) -> None:
    process = start()
    wait_for(process, database, in_the_middle)
    second = subprocess.run([*NAS_YOLO, "resume", "one"], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("Error: search 'one' is being worked on by process")

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
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
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output)["budget"]["limit"] == 20
    repository, search = the_search(database)
    spent = repository.spent(search)
    used = spent.cpu_seconds if "cpu" in budget else spent.wall_seconds
    assert used < 20.5
    assert search.state == "done"
    assert all(trial.state not in ("training", "measuring") for trial in repository.trials(search))

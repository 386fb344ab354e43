"""Memory of the driver and of a worker over many trials: it must not grow with their number.

The worker is this process, doing what a Ray worker does: it trains random architectures one after another. The driver
is that of a real search on Ray.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from benchmarks.report import report

SETTLED = 5  # trials after which libraries are imported and pools are filled


def resident_mb() -> float:
    """Resident memory of this process, MB."""
    return float(psutil.Process().memory_info().rss / 1e6)


def driver_memory(trials: int, data: Path, folder: Path) -> dict[int, float]:
    """MB of the driver by number of trials that have ended."""
    from nas_yolo.application import make_config
    from nas_yolo.driver import Driver
    from nas_yolo.environment import count_cores
    from nas_yolo.runners.ray import RayRunner
    from nas_yolo.snapshot import Snapshot
    from nas_yolo.strategy import context_of
    from storage import Repository

    figures: dict[int, float] = {}

    def view(snapshot: Snapshot) -> None:
        ended = sum(trial.state == "complete" for trial in snapshot.trials)
        figures.setdefault(ended, resident_mb())

    budgets, training = (f"{trials}trials",), ("batch=32", "mosaic=0")
    config = make_config(str(data), ("cpu",), budgets, imgsz=64, epochs=1, training=training)
    repository = Repository(f"sqlite:///{folder / 'search.db'}")
    search = repository.create_search("memory", config.document())
    runner = RayRunner(count_cores(), 0.0, folder)
    try:
        with repository.claimed(search) as claim:
            context = context_of(repository, search, runner.slots, threads=1, on_gpu=False)
            Driver(repository, search, claim, runner, context, [view]).run()
    finally:
        runner.close()
    return figures


def worker_memory(trials: int, data: Path, folder: Path) -> dict[str, dict[int, float]]:
    """MB of a worker by number of trainings done: resident, and reserved on the GPU where there is one."""
    import torch

    from evaluators.accuracy.request import TrainingRequest
    from evaluators.accuracy.training import train
    from evaluators.dataset import load_dataset
    from evaluators.evaluation import Epoch
    from search_spaces.image_size import ImageSize
    from search_spaces.space_file import load_space

    dataset, space, rng = load_dataset(data), load_space("yolov8n"), np.random.default_rng(0)
    gpu = torch.cuda.is_available()
    figures: dict[str, dict[int, float]] = {"worker": {}, **({"worker_gpu": {}} if gpu else {})}
    for number in range(1, trials + 1):
        home = folder / str(number)
        home.mkdir()
        request = TrainingRequest(
            architecture=space.architecture(space.sample(rng)),
            dataset=dataset,
            imgsz=ImageSize(64, 64),
            epochs=1,
            until=1,
            seed=0,
            checkpoint=home / "checkpoint.pt",
            scratch=home,
            images=folder / "images",
            gpu=gpu,
            arguments={"batch": 32, "mosaic": 0.0},
        )
        *_, epoch = train(request)
        assert isinstance(epoch, Epoch), epoch
        figures["worker"][number] = resident_mb()
        print(f"{number}: {figures['worker'][number]:.0f} MB", file=sys.stderr, flush=True)
        if gpu:
            figures["worker_gpu"][number] = torch.cuda.memory_reserved() / 1e6
    return figures


@click.command()
@click.option("--trials", default=100, show_default=True, help="That the worker trains.")
@click.option("--search-trials", default=20, show_default=True, help="Of the driver's search; 0: none.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(trials: int, search_trials: int, file: Path | None) -> None:
    """Print the memory after each trial, and its growth from the fifth to the last."""
    from nas_yolo.environment import ultralytics_environment

    os.environ.update(ultralytics_environment())
    from nas_yolo.digits import write_digits

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_digits(folder)
        # The driver first: it must not find what the trainings leave in this process.
        memory = {"driver": driver_memory(search_trials, data, folder)} if search_trials else {}
        memory |= worker_memory(trials, data, folder)
    rows: list[tuple[str, str]] = []
    document: dict[str, Any] = {}
    for name, figures in memory.items():
        last = max(figures)
        growth = figures[last] / figures[SETTLED] - 1
        rows.append((f"{name}, MB", " ".join(f"{figures[number]:.0f}" for number in sorted(figures))))
        rows.append((f"{name}: growth from trial {SETTLED} to {last}", f"{growth:+.1%}"))
        document |= {f"{name}_growth": growth, f"{name}_mb": [figures[number] for number in sorted(figures)]}
    report("Memory by number of trials", rows, document, file)


if __name__ == "__main__":
    main()

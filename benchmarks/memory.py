"""Resident memory of the driver and of its workers over 20 trials: it must not grow with their number."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click
import psutil

from benchmarks.report import report

SETTLED = 5  # trials after which libraries are imported and pools are filled


def resident_mb(processes: list[psutil.Process]) -> float:
    """Resident memory of the processes together, MB."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def busy_workers() -> list[psutil.Process]:
    """The Ray workers that have run trainings or measurements."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("ray::")]


@click.command()
@click.option("--trials", default=20, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(trials: int, file: Path | None) -> None:
    """Print the memory after each trial, and its growth from the fifth to the last."""
    from nas_yolo.environment import count_cores, ultralytics_environment

    os.environ.update(ultralytics_environment())
    from nas_yolo.cli.search import make_config
    from nas_yolo.digits import write_digits
    from nas_yolo.runners.ray import RayRunner
    from nas_yolo.search import SearchLoop, Snapshot
    from storage import Repository

    driver: dict[int, float] = {}
    workers: dict[int, float] = {}

    def view(snapshot: Snapshot) -> None:
        ended = sum(bool(trial.epochs) and trial.state != "training" for trial in snapshot.trials)
        if ended not in driver:
            driver[ended] = resident_mb([psutil.Process()])
            workers[ended] = resident_mb(busy_workers())

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = make_config(
            data=str(write_digits(folder)),
            targets=("cpu",),
            budgets=(f"{trials}trials",),
            imgsz=96,
            epochs=1,
            training=("batch=32", "mosaic=0"),
        )
        repository = Repository(f"sqlite:///{folder / 'search.db'}")
        search = repository.create_search("memory", config.document())
        runner = RayRunner(count_cores(), 0.0, folder)
        try:
            SearchLoop(repository, search, runner, folder, 1, False, view).run()
        finally:
            runner.close()
    last = max(driver)
    growth = {
        name: figures[last] / figures[SETTLED] - 1 for name, figures in (("driver", driver), ("workers", workers))
    }
    rows = [("trial: driver MB, workers MB", "")]
    rows += [(f"after {number}", f"{driver[number]:.0f}, {workers[number]:.0f}") for number in sorted(driver) if number]
    rows += [(f"{name}: growth from trial {SETTLED} to {last}", f"{value:+.1%}") for name, value in growth.items()]
    document = {
        **{f"{name}_growth": value for name, value in growth.items()},
        "driver_mb": driver,
        "workers_mb": workers,
    }
    report(f"Resident memory over {last} trials", rows, document, file)


if __name__ == "__main__":
    main()

"""Trials a second that one driver gets through when trainings take no time: proposals, decisions, records."""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from evaluators.dataset import Dataset
from evaluators.target import Target
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.driver import Driver
from nas_yolo.environment import count_cores
from nas_yolo.runners import Kind, Runner, Work
from nas_yolo.runners.ray import RayRunner
from nas_yolo.runners.simulated import Inline, SimulatedRunner, World
from nas_yolo.strategy import context_of
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.space_file import load_space
from storage import Repository


def share(what: str, architecture: Architecture) -> float:
    """A number from 0 to 1 that an architecture always has."""
    return zlib.crc32(f"{what} {architecture.key}".encode()) / 2**32


def world() -> World:
    """Trainings and measurements of no duration."""
    return World(
        map50_95=lambda architecture, epochs, seed: share("accuracy", architecture),
        latency_ms=lambda architecture, target: 0.5 + share("latency", architecture),
        epoch_s=lambda architecture, epoch: 0.0,
        measure_s=0.0,
    )


def config(trials: int, sampler: str) -> SearchConfig:
    """A search of so many trials, one epoch each, on images that do not exist."""
    return SearchConfig(
        dataset=Dataset("made up", (), (), ("a",), 100, 10, "0" * 16),
        space=load_space("yolov8n"),
        targets=((Target("cpu"), "made up"),),
        imgsz=ImageSize(64, 64),
        epochs=1,
        budgets=(parse_budget(f"{trials}trials"),),
        sampler=sampler,
        repeats=0,
    )


class NullRay(RayRunner):
    """Ray workers that hand back what a world says, at once."""

    def submit(self, key: str, kind: Kind, work: Work) -> None:
        """Hand over a stand-in."""
        super().submit(key, kind, partial(imagined, key, work))


def imagined(key: str, work: Any) -> Iterator[Any]:
    """The results of work that is not done."""
    return (item for _, item in world().results(key, work) if item is not None)


def trials_per_second(trials: int, sampler: str, runner: Runner, url: str) -> float:
    """Trials a second, from the first event to the last."""
    repository = Repository(url)
    name = f"driver-{time.time_ns()}"
    search = repository.create_search(name, config(trials, sampler).document())
    executor = Inline() if isinstance(runner, SimulatedRunner) else None
    with repository.claimed(search) as claim:
        context = context_of(repository, search, runner.slots, threads=1, on_gpu=False)
        driver = Driver(repository, search, claim, runner, context, executor=executor)
        before = time.perf_counter()
        driver.run()
        seconds = time.perf_counter() - before
    done = sum(trial.state == "complete" for trial in repository.trials(search))
    repository.close()
    return done / seconds


@click.command()
@click.option("--trials", default=200, show_default=True)
@click.option("--sampler", default="random", show_default=True, help="Whose decisions are in the time.")
@click.option("--postgres", metavar="URL", help="Also on this database.")
@click.option("--no-ray", is_flag=True, help="The simulation only.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(trials: int, sampler: str, postgres: str | None, no_ray: bool, file: Path | None) -> None:
    """Count null trials a second: in simulation, and through Ray."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        sqlite = f"sqlite:///{folder / 'search.db'}"
        urls = {"sqlite": sqlite} | ({"postgresql": postgres} if postgres else {})
        for base, url in urls.items():
            slots = count_cores()
            simulated = SimulatedRunner(world(), slots)
            found[f"simulated, {base}"] = trials_per_second(trials, sampler, simulated, url)
            if not no_ray:
                runner = NullRay(slots, 0.0, folder)
                try:
                    found[f"ray, {base}"] = trials_per_second(trials, sampler, runner, url)
                finally:
                    runner.close()
    for what, rate in found.items():
        print(f"{what}: {rate:.1f} trials a second")
    if file:
        file.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

"""What a driver takes: trials a second where these take no time, of a core where they do, of 1,000 workers' time."""

from __future__ import annotations

import heapq
import json
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from evaluators.dataset import Dataset
from evaluators.target import Target
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.driver import TICK_S, Driver
from nas_yolo.environment import count_cores
from nas_yolo.runners import Kind, Report, Runner, Work
from nas_yolo.runners.ray import RayRunner
from nas_yolo.runners.simulated import Inline, SimulatedRunner, World
from nas_yolo.strategy import context_of
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.space_file import load_space
from storage import Repository, Search

WARM = 100  # trials before any are counted


def share(what: str, architecture: Architecture) -> float:
    """A number from 0 to 1 that an architecture always has."""
    return zlib.crc32(f"{what} {architecture.key}".encode()) / 2**32


def world(epoch_s: float = 0.0, measure_s: float = 0.0) -> World:
    """Epochs that take so long, up to twice that, and measurements."""
    return World(
        map50_95=lambda architecture, epochs, seed: share("accuracy", architecture),
        latency_ms=lambda architecture, target: 0.5 + share("latency", architecture),
        epoch_s=lambda architecture, epoch: epoch_s * (1 + share("time", architecture)),
        measure_s=measure_s,
    )


def config(trials: int, sampler: str, epochs: int = 1) -> SearchConfig:
    """A search of so many trials on images that do not exist."""
    return SearchConfig(
        dataset=Dataset("made up", (), (), ("a",), 100, 10, "0" * 16),
        space=load_space("yolov8n"),
        targets=((Target("cpu"), "made up"),),
        imgsz=ImageSize(64, 64),
        epochs=epochs,
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


class RealTime(SimulatedRunner):
    """Work that takes its time: whoever drives it waits, and is seen waiting.

    Args:
        ends_s: When the user has seen enough.
    """

    def __init__(self, world: World, slots: int, ends_s: float):
        super().__init__(world, slots)
        self._ends_s = ends_s

    def poll(self, timeout_s: float) -> Sequence[Report]:
        """What happens next, once it does."""
        if self.now > self._ends_s:
            raise KeyboardInterrupt
        until = self.now + timeout_s
        while self._due and not self._goes_on(self._due[0][2]):
            heapq.heappop(self._due)
        comes = min(until, self._due[0][0]) if self._due else until
        time.sleep(max(comes - self.now, 0.0))
        return super().poll(max(comes - self.now, 0.0))


class Charged(SimulatedRunner):
    """A clock that also counts what its driver takes, during which nobody is served.

    Attributes:
        offered_s: Worker seconds, from when all workers had something to do until the last training was begun.
        used_s: Those in which they trained.
    """

    offered_s = used_s = 0.0
    _returned: float | None = None
    _full = False
    _last = 0.0, 0.0

    def submit(self, key: str, kind: Kind, work: Work) -> None:
        """Begin it, and note how far everything has come."""
        super().submit(key, kind, work)
        self._full = self._full or self._busy() == self.slots
        if kind == "train":
            self._last = self.offered_s, self.used_s

    def poll(self, timeout_s: float) -> Sequence[Report]:
        """What happens next, later by what was computed since the last call."""
        if self._returned is not None:
            took_s = time.perf_counter() - self._returned
            self._offer(took_s, self._busy())
            self.now += took_s
        before, busy = self.now, self._busy()
        reports = super().poll(timeout_s)
        self._offer(self.now - before, busy)
        self._returned = time.perf_counter()
        return reports

    @property
    def busy(self) -> float:
        """Share of the workers' time in which they trained."""
        offered_s, used_s = self._last
        return used_s / offered_s

    def _offer(self, seconds: float, busy: int) -> None:
        if self._full:
            self.offered_s += self.slots * seconds
            self.used_s += busy * seconds

    def _busy(self) -> int:
        return sum(work.kind == "train" for work in self._running.values())


def drive(repository: Repository, found: SearchConfig, runner: Runner, tick_s: float = TICK_S) -> Search:
    """A search, to its end; decisions are thought out within the loop where time is simulated."""
    search = repository.create_search(f"driver-{time.time_ns()}", found.document())
    executor = Inline() if isinstance(runner, SimulatedRunner) else None
    with repository.claimed(search) as claim:
        context = context_of(repository, search, runner.slots, threads=1, on_gpu=False)
        Driver(repository, search, claim, runner, context, executor=executor, tick_s=tick_s).run()
    return search


def share_of_core(seconds: float, slots: int, sampler: str, url: str) -> float:
    """What a driver takes of a core while so many slots are busy with epochs of 20 to 40 s, nine a training."""
    repository, found = Repository(url), config(1000, sampler, epochs=9)
    before = time.process_time()
    with suppress(KeyboardInterrupt):
        drive(repository, found, RealTime(world(20.0, 10.0), slots, seconds))
    repository.close()
    return (time.process_time() - before) / seconds


def share_busy(trials: int, workers: int, sampler: str, url: str) -> float:
    """Share of their time in which workers train, eight to sixteen hours each, while one driver serves them all."""
    repository = Repository(url)
    runner = Charged(world(8 * 3600.0), workers)
    drive(repository, config(trials, sampler), runner, tick_s=60.0)
    repository.close()
    return runner.busy


def trials_per_second(trials: int, sampler: str, runner: Runner, url: str) -> float:
    """Trials a second, from the first event to the last."""
    repository, found = Repository(url), config(trials, sampler)
    drive(repository, config(WARM, sampler), runner)  # workers start, and import what they need
    before = time.perf_counter()
    search = drive(repository, found, runner)
    seconds = time.perf_counter() - before
    done = sum(trial.state == "complete" for trial in repository.trials(search))
    repository.close()
    return done / seconds


@click.command()
@click.option("--trials", default=200, show_default=True)
@click.option("--sampler", default="random", show_default=True, help="Whose decisions are in the time.")
@click.option("--postgres", metavar="URL", help="Also on this database.")
@click.option("--no-ray", is_flag=True, help="The simulation only.")
@click.option("--seconds", default=300.0, show_default=True, help="Of work that takes its time, on eight slots.")
@click.option("--workers", default=0, help="Also serve so many, for one and a half trainings each.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(
    trials: int, sampler: str, postgres: str | None, no_ray: bool, seconds: float, workers: int, file: Path | None
) -> None:
    """Count null trials a second, in simulation and through Ray, and what a driver takes while workers are busy."""
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
        print(*(f"{what}: {rate:.1f} trials a second" for what, rate in found.items()), sep="\n")
        if seconds:
            found["of a core"] = share_of_core(seconds, 8, sampler, sqlite)
            print(f"8 busy slots: {found['of a core']:.1%} of a core")
        if workers:
            found["busy"] = share_busy(workers * 3 // 2, workers, sampler, sqlite)
            print(f"{workers} workers: busy for {found['busy']:.2%} of the time")
    if file:
        file.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

"""The product's own search on a table: its driver, its decisions and its database; only work is looked up, not done."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from benchmarks.replay.simulation import Replay
from benchmarks.replay.space import TableGrid, TableSpace, space_of
from benchmarks.replay.table import Table
from evaluators.dataset import Dataset
from evaluators.target import Target
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.driver import Driver
from nas_yolo.planning.situation import Context
from nas_yolo.runners.simulated import Inline, SimulatedRunner, World
from nas_yolo.samplers.frontier import Frontier
from nas_yolo.warm_start import earlier_designs
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from storage import Repository, Search
from storage.events import EpochEnded, Event, JobStarted, TrialAdded, TrialMoved

TRAINING_S = 8 * 3600.0  # of a full training: so long that measuring takes nothing of it, as in a table
IMAGES = "the table's"  # fingerprint of the images that all searches on a table train on

T = TypeVar("T")


def replay(table: Table, seed: int, budget: int, workers: int = 1, training_s: float = math.inf) -> Replay:
    """A search in a database of its own; arguments as for the peers' `simulation.replay`."""
    with closing(Repository("sqlite://")) as repository:
        return search(repository, table, seed, budget, workers, training_s)


def search(
    repository: Repository,
    table: Table,
    seed: int,
    budget: int,
    workers: int = 1,
    training_s: float = math.inf,
    images: str = IMAGES,
) -> Replay:
    """A search that learns from those before it in the same database.

    Args:
        repository: Where it is stored.
        table: To search in.
        seed: Of everything random in it.
        budget: Full trainings.
        workers: That train at once.
        training_s: Seconds of a full training: the clock then moves on while decisions are made. By default it does
            not.
        images: Fingerprint of those that it trains on.
    """
    full_s = TRAINING_S if math.isinf(training_s) else training_s
    space = space_of(table, seed)
    config = SearchConfig(
        dataset=Dataset("made up", (), (), ("a",), 100, 10, images),
        space=space,
        targets=((Target(table.device), f"{table.name} {table.device}"),),
        imgsz=ImageSize(64, 64),
        budgets=(parse_budget(f"{budget * full_s:f}cpu-s"),),
        seed=seed,
        repeats=0,
        epochs=ladder(table)[-1],
        rungs=ladder(table),
    )
    stored = repository.create_search(f"search {len(repository.searches())}", config.document())
    runner = SimulatedRunner(world(table, space, full_s), workers, leaps=True)
    thoughts = Thoughts(runner, charged=not math.isinf(training_s))
    with repository.claimed(stored) as claim:
        context = context_of(repository, stored, config, table, space, workers)
        Driver(repository, stored, claim, runner, context, executor=thoughts).run()
    events = [recorded.event for recorded in repository.events(stored)]
    return told(events, table, space, budget, workers, full_s, thoughts.seconds)


def ladder(table: Table) -> tuple[int, ...]:
    """Epochs at which a search pauses such that, with epochs of about one length, it costs what the table's did.

    There are as few as can be: each is a transaction.
    """
    return tuple(max(round(cost / table.costs[0]), 1) for cost in table.costs.tolist())


def context_of(
    repository: Repository, stored: Search, config: SearchConfig, table: Table, space: TableSpace, slots: int
) -> Context:
    """As `nas_yolo.strategy` makes it, but that only rows are drawn."""
    grid = TableGrid(space)

    def codes(architecture: Architecture) -> tuple[int, ...] | None:
        choices = space.choices_of(architecture)
        return None if choices is None else grid.codes(choices)

    earlier = earlier_designs(repository, stored, codes)
    # A table's latencies are exact: none are as good as equal, as measured ones are.
    strategy = Frontier(grid, tuple((table.costs * config.epochs).tolist()), config.seed, earlier=earlier)
    return Context(stored.name, config, strategy, slots)


def world(table: Table, space: TableSpace, full_s: float) -> World:
    """What the table says. Measuring costs nothing."""
    ends = ladder(table)
    column = {rung: fidelity for fidelity, rung in enumerate(ends)}
    steps = np.diff(table.costs, prepend=0.0) * full_s / np.diff(ends, prepend=0)
    epoch_s = np.repeat(steps, np.diff(ends, prepend=0)).tolist()
    return World(
        map50_95=lambda architecture, epoch, seed: table.accuracy[space.row_of(architecture), column[epoch]] / 100,
        latency_ms=lambda architecture, target: float(table.latency_ms[space.row_of(architecture)]),
        epoch_s=lambda architecture, epoch: epoch_s[epoch - 1],
        measure_s=0.0,
    )


class Thoughts(Inline):
    """Decides at once, and counts how long that takes.

    Args:
        runner: Whose clock moves on meanwhile, if that is charged: nobody is served while a decision is made.
        charged: Whether it does.

    Attributes:
        seconds: That all decisions took.
    """

    def __init__(self, runner: SimulatedRunner, charged: bool):
        self.seconds = 0.0
        self._runner, self._charged = runner, charged

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """The result, done."""
        before = time.perf_counter()
        future = super().submit(function, *args, **kwargs)
        took_s = time.perf_counter() - before
        self.seconds += took_s
        if self._charged:
            self._runner.now += took_s
        return future


def told(
    events: Iterable[Event],
    table: Table,
    space: TableSpace,
    budget: int,
    workers: int,
    full_s: float,
    decided_s: float,
) -> Replay:
    """How a search went, from what it recorded; costs are counted as those of the peers are, once a training ended."""
    column = {rung: fidelity for fidelity, rung in enumerate(ladder(table))}
    rows: dict[int, int] = {}
    started_s: dict[int, float] = {}
    trained: Counter[int] = Counter()  # epochs, by trial
    taken_s: defaultdict[int, float] = defaultdict(float)  # by trainings that run
    spans: list[tuple[float, float]] = []
    done: list[tuple[float, int]] = []  # cost of all that had ended, row
    counts = [0] * len(table.costs)
    ended = 0.0
    for event in events:
        match event:
            case TrialAdded(number, architecture):
                rows[number] = space.row_of(architecture)
            case JobStarted(job) if job.purpose == "train" and job.trial is not None:
                started_s[job.trial] = job.started_s
            case EpochEnded(number, epoch):
                trained[number] += 1
                taken_s[number] += epoch.seconds
            case TrialMoved(number, "paused" | "complete" as state) if number in taken_s:
                seconds = taken_s.pop(number)
                ended += seconds / full_s
                spans.append((started_s[number], started_s[number] + seconds))
                counts[column[trained[number]]] += 1
                if state == "complete":
                    done.append((ended, rows[number]))
    curve = [table.hypervolume([row for cost, row in done if cost <= b + 1e-6]) for b in range(1, budget + 1)]
    last = max((start for start, _ in spans), default=0.0)
    busy = sum(min(end, last) - start for start, end in spans) / (last * workers) if last else 1.0
    return Replay(np.array(curve), decided_s / max(len(spans), 1), tuple(counts), busy)

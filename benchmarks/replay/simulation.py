"""A method, a table and a simulated clock."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.table import Table


@dataclass(frozen=True)
class Job:
    """Train one architecture on to a fidelity; what it was trained before is not paid again.

    Attributes:
        row: Of the table.
        fidelity: Column of its accuracies to be reached.
    """

    row: int
    fidelity: int


class Method(Protocol):
    """Decides what to train. It sees latencies and sizes of what it proposes, and accuracies once they are paid."""

    def ask(self, left: float) -> Job | None:
        """What a free worker should train; None: nothing until something else ends.

        Never twice the same architecture at the same fidelity, nor one that is being trained.

        Args:
            left: Budget that neither was spent nor is promised to running jobs, in full trainings.
        """

    def tell(self, job: Job, accuracy: float) -> None:
        """The accuracy (percent) that a job came to."""


NewMethod = Callable[[Table, int, float, int], Method]
"""Makes a method from a table, a seed, a budget (full trainings) and the number of workers."""


@dataclass(frozen=True)
class Replay:
    """How one run went.

    Attributes:
        curve: Normalised hypervolume of what was trained in full once jobs that cost 1, 2, .. budget had ended.
        seconds_per_ask: Mean wall-clock time of a decision.
        jobs: By fidelity, how many were trained to it.
        busy: Share of the workers' simulated time that they trained, until the last piece of work was given.
    """

    curve: NDArray[np.float64]
    seconds_per_ask: float
    jobs: tuple[int, ...]
    busy: float


def replay(
    table: Table, new_method: NewMethod, seed: int, budget: int, workers: int = 1, training_s: float = math.inf
) -> Replay:
    """Let a method spend a budget on a table.

    Args:
        table: To search in.
        new_method: Makes the method.
        seed: Of everything random in it.
        budget: Full trainings.
        workers: That train at once.
        training_s: Seconds of a full training: workers wait for decisions, made one at a time, as long as those really
            take. By default decisions take no time.
    """
    method = new_method(table, seed, float(budget), workers)
    clock, promised, ended, asked, decided = 0.0, 0.0, 0.0, 0.0, 0.0
    asks = 0
    spans: list[tuple[float, float]] = []
    reached: dict[int, int] = {}  # the fidelity to which each row was trained, or is being trained
    running: list[tuple[float, int, Job, float]] = []
    done: list[tuple[float, int]] = []  # cost of all that had ended, row
    counts = [0] * len(table.costs)
    while True:
        while len(running) < workers:
            before = time.perf_counter()
            job = method.ask(budget - promised)
            took = time.perf_counter() - before
            asked += took
            asks += 1
            decided = max(decided, clock) + took / training_s
            if job is None:
                break
            start = reached.get(job.row, -1)
            if start >= job.fidelity or any(job.row == other.row for *_, other, _ in running):
                raise RuntimeError(f"{job} was asked for twice")
            cost = float(table.costs[job.fidelity] - (table.costs[start] if start >= 0 else 0.0))
            if cost > budget - promised + 1e-9:
                break  # a method that spends beyond its budget is done
            reached[job.row] = job.fidelity
            promised += cost
            spans.append((decided, decided + cost))
            heapq.heappush(running, (decided + cost, asks, job, cost))
        if not running:
            break
        clock, _, job, cost = heapq.heappop(running)
        ended += cost
        counts[job.fidelity] += 1
        if job.fidelity == len(table.costs) - 1:
            done.append((ended, job.row))
        method.tell(job, float(table.accuracy[job.row, job.fidelity]))
    curve = [table.hypervolume([row for cost, row in done if cost <= b + 1e-6]) for b in range(1, budget + 1)]
    last = max((start for start, _ in spans), default=0.0)
    busy = sum(min(end, last) - start for start, end in spans) / (last * workers) if last else 1.0
    return Replay(np.array(curve), asked / max(asks, 1), tuple(counts), busy)

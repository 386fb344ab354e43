"""Asynchronous successive halving of two objectives, with correct ranking.

Paper: Multi-objective Asynchronous Successive Halving, https://arxiv.org/abs/2106.12639. As in it, trials are ranked by
non-dominated layer, within a layer by an epsilon net, and new ones are random. As in ASHA
(https://arxiv.org/abs/1810.05934), one that is not promoted is paused, and may be promoted later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.peers._rows import ROUNDING, Rows
from benchmarks.replay.simulation import Job, Method
from benchmarks.replay.table import Table
from nas_yolo.pareto import front

ETA = 3


def ranking(latency_ms: NDArray[np.float64], accuracy: NDArray[np.float64], count: int) -> list[int]:
    """Indices of the `count` best, best first: those that no other beats, then those that only they beat, and so on.

    A layer begins with its most accurate; each next one is as far as possible from all before it, on the axes of
    log-latency and accuracy, each scaled to the range of all.
    """
    points = np.stack([np.log(latency_ms), accuracy], axis=1)
    points /= np.maximum(np.ptp(points, axis=0), 1e-12)
    best: list[int] = []
    left = np.arange(len(points))
    while len(best) < count:
        layer = front(latency_ms[left].tolist(), accuracy[left].tolist())
        best += spread(points, left[layer].tolist()[::-1])
        left = np.delete(left, layer)
    return best[:count]


def spread(points: NDArray[np.float64], members: list[int]) -> list[int]:
    """The members of a layer, the first of them first, then always the one farthest from those before it."""
    order = [0]
    distance = np.full(len(members), np.inf)
    while len(order) < len(members):
        step = np.linalg.norm(points[members] - points[members[order[-1]]], axis=1)
        distance = np.minimum(distance, step)
        distance[order] = -1.0
        order.append(int(np.argmax(distance)))
    return [members[i] for i in order]


def rungs(costs: NDArray[np.float64]) -> list[int]:
    """Fidelities to pause at, lowest first: the last, and below each the next of at most a third of its cost."""
    chosen = [len(costs) - 1]
    for fidelity in reversed(range(len(costs) - 1)):
        if costs[fidelity] * ETA <= costs[chosen[-1]] + ROUNDING:
            chosen.append(fidelity)
    return chosen[::-1]


class MultiObjectiveAsha:
    """Promotes the best of each rung, and starts a random row when nobody is to be promoted."""

    def __init__(self, table: Table, seed: int, eta: float | None = ETA) -> None:
        """Promote one of `eta`; if None, as many as give each step between two rungs the same budget."""
        self._table = table
        self._rows = Rows(table, seed)
        self._rungs = rungs(table.costs)
        costs = table.costs[self._rungs]
        self._steps = np.diff(costs, prepend=0.0).tolist()
        self._etas = (costs[1:] / costs[:-1] if eta is None else np.full(len(costs) - 1, eta)).tolist()
        self._ended: list[dict[int, float]] = [{} for _ in self._rungs]  # accuracy of each row that came to the rung
        self._promoted: list[set[int]] = [set() for _ in self._rungs]
        self._best: list[list[int]] = [[] for _ in self._rungs]

    def ask(self, left: float) -> Job | None:
        """The promotion to the highest rung that can be paid, or something new."""
        for rung in reversed(range(1, len(self._rungs))):
            row = next((row for row in self._best[rung - 1] if row not in self._promoted[rung - 1]), None)
            if row is not None and self._steps[rung] <= left + ROUNDING:
                self._promoted[rung - 1].add(row)
                return Job(row, self._rungs[rung])
        row = self._rows.draw() if self._steps[0] <= left + ROUNDING else None
        return None if row is None else Job(row, self._rungs[0])

    def tell(self, job: Job, accuracy: float) -> None:
        """Rank the rung that a row came to."""
        rung = self._rungs.index(job.fidelity)
        if rung == len(self._rungs) - 1:
            return
        ended = self._ended[rung]
        ended[job.row] = accuracy
        rows = list(ended)
        count = int(len(rows) / self._etas[rung] + ROUNDING)
        latency, accuracies = self._table.latency_ms[rows], np.array(list(ended.values()))
        self._best[rung] = [rows[i] for i in ranking(latency, accuracies, count)]


def new(table: Table, seed: int, budget: float, workers: int) -> Method:
    """MO-ASHA."""
    return MultiObjectiveAsha(table, seed)

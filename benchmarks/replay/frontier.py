"""The product's own engine on a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.simulation import Job
from benchmarks.replay.table import Table
from nas_yolo.samplers import Codes, Earlier, Grid, Seen
from nas_yolo.samplers.frontier import Frontier

DENSE = 0.25  # share of a space's points from which children of rows are mostly rows themselves
NEAREST = 1000  # rows kept for each parent


class TableGrid(Grid):
    """The space that a table's rows make up: nothing else is drawn."""

    def __init__(self, table: Table):
        # Choices of as many values are taken to have the same alternatives: all that a table tells of them.
        super().__init__(
            {f"choice {i}": tuple(f"value {v}" for v in range(count)) for i, count in enumerate(table.cardinality)}
        )
        self._table = table
        self._neighbours: dict[tuple[int, ...], NDArray[np.int64]] = {}

    def draw(self, count: int, rng: np.random.Generator) -> Codes:
        """Rows drawn uniformly."""
        return self._table.configs[rng.integers(len(self._table.configs), size=count)]

    def vary(self, parents: Codes, count: int, rng: np.random.Generator) -> Codes:
        """Children as in any space; in a table of a few points of a large space, the rows nearest to the parents."""
        if len(self._table.configs) > DENSE * self.size:
            children = super().vary(parents, count, rng)
            known = self._table.row_of
            return children[[tuple(child) in known for child in children.tolist()]]
        share = max(count // len(parents), 1)
        return np.concatenate([self._table.configs[self._nearest(tuple(p))[:share]] for p in parents.tolist()])

    def _nearest(self, codes: tuple[int, ...]) -> NDArray[np.int64]:
        if codes not in self._neighbours:
            distance = (self._table.configs != np.array(codes)).sum(axis=1)
            self._neighbours[codes] = np.argsort(distance, kind="stable")[:NEAREST]
        return self._neighbours[codes]


class Engine:
    """The engine as a method of the replay.

    Args:
        table: Of architectures.
        seed: Of everything random.
        earlier: What earlier searches tell.
    """

    def __init__(self, table: Table, seed: int, earlier: Sequence[Earlier] = ()):
        self._table = table
        self._engine = Frontier(TableGrid(table), table.costs, seed, earlier=earlier)
        self._seen: list[Seen] = []
        self._rows: list[int] = []
        self._number: dict[int, int] = {}

    @property
    def trained(self) -> list[Seen]:
        """What was trained at all."""
        return [one for one in self._seen if one.accuracies]

    def ask(self, left: float) -> Job | None:
        """What a free worker should train."""
        if left < self._rest(-1) - 1e-9:
            return self._train(left)
        # Measuring takes seconds and training minutes: what is measured costs nothing here.
        while self._engine.wants(self._seen, 1) and self._propose():
            pass
        return self._train(left)

    def tell(self, job: Job, accuracy: float) -> None:
        """The accuracy that a job came to."""
        number = self._number[job.row]
        one = self._seen[number]
        accuracies = (*one.accuracies, accuracy)
        over = len(accuracies) == len(self._table.costs)
        self._seen[number] = replace(one, accuracies=accuracies, coming_fidelity=None, over=over)

    def _propose(self) -> bool:
        for codes in self._engine.candidates(self._seen):
            row = self._table.row_of[codes]
            if row not in self._number:
                self._number[row] = len(self._seen)
                self._rows.append(row)
                self._seen.append(Seen(codes, (float(self._table.latency_ms[row]),)))
                return True
        return False

    def _rest(self, reached: int) -> float:
        """What it costs to train on to the end."""
        return 1.0 - (float(self._table.costs[reached]) if reached >= 0 else 0.0)

    def _train(self, left: float) -> Job | None:
        """The trial worth most among those that the budget can still see to their end."""
        for number in self._engine.order(self._seen):
            reached = len(self._seen[number].accuracies) - 1
            if self._rest(reached) <= left + 1e-9:
                self._seen[number] = replace(self._seen[number], coming_fidelity=reached + 1)
                return Job(self._rows[number], reached + 1)
        return None


def new(table: Table, seed: int, budget: float, workers: int) -> Engine:
    """The engine, knowing nothing."""
    return Engine(table, seed)

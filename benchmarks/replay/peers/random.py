"""Random search without repetition, every architecture trained in full.

Paper: Random Search for Hyper-Parameter Optimization, Journal of Machine Learning Research 13 (2012).
"""

from __future__ import annotations

from benchmarks.replay.peers._rows import ROUNDING, Rows
from benchmarks.replay.simulation import Job, Method
from benchmarks.replay.table import Table


class RandomSearch:
    """Trains rows in random order."""

    def __init__(self, table: Table, seed: int) -> None:
        self._rows = Rows(table, seed)
        self._full = len(table.costs) - 1

    def ask(self, left: float) -> Job | None:
        """A row that was not trained yet."""
        row = self._rows.draw() if left >= 1.0 - ROUNDING else None
        return None if row is None else Job(row, self._full)

    def tell(self, job: Job, accuracy: float) -> None:
        """Learns nothing."""


def new(table: Table, seed: int, budget: float, workers: int) -> Method:
    """Random search."""
    return RandomSearch(table, seed)

"""The rows of a table that a peer has not tried yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.replay.table import Table

ROUNDING = 1e-9  # of sums of costs


class Rows:
    """Each row once: found by its configuration, or drawn uniformly.

    Attributes:
        taken: The rows found or drawn so far.
    """

    def __init__(self, table: Table, seed: int) -> None:
        self.taken: set[int] = set()
        self._row_of = table.row_of
        self._order = iter(np.random.default_rng(seed).permutation(len(table.configs)).tolist())

    def row(self, config: Sequence[int]) -> int | None:
        """Of a configuration; None if it is not part of the space."""
        return self._row_of.get(tuple(config))

    def take(self, row: int) -> bool:
        """Whether the row is new; from now on it is not."""
        new = row not in self.taken
        self.taken.add(row)
        return new

    def draw(self) -> int | None:
        """A new row; None when all were taken."""
        return next((row for row in self._order if self.take(row)), None)

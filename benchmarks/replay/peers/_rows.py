"""The rows of a table that a peer has not tried yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.replay.table import Table

ROUNDING = 1e-9  # of sums of costs


class Rows:
    """Each row once: found by its configuration, the nearest to one, or any.

    Attributes:
        left: How many are new.
    """

    def __init__(self, table: Table, seed: int) -> None:
        self._configs = table.configs
        self._row_of = table.row_of
        self._new = np.ones(len(table.configs), dtype=bool)
        self._order = np.random.default_rng(seed).permutation(len(table.configs))
        self._drawn = 0
        self.left = len(table.configs)

    def find(self, config: Sequence[int]) -> int | None:
        """The row of a configuration; None if it is no part of the space or was taken."""
        row = self._row_of.get(tuple(config))
        return row if row is not None and self._take(row) else None

    def nearest(self, config: Sequence[int]) -> int:
        """A new row that differs in the fewest choices, among several any. There must be one left."""
        new = self._order[self._new[self._order]]
        row = int(new[np.argmin(np.sum(self._configs[new] != np.asarray(config), axis=1))])
        self._take(row)
        return row

    def draw(self) -> int | None:
        """Any new row; None when all were taken."""
        while self._drawn < len(self._order):
            row = int(self._order[self._drawn])
            self._drawn += 1
            if self._take(row):
                return row
        return None

    def _take(self, row: int) -> bool:
        new = bool(self._new[row])
        self._new[row] = False
        self.left -= new
        return new

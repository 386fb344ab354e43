"""A space as arrays: points are rows of codes, the position of each chosen value among its alternatives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import Choices, Value

Codes = NDArray[np.int64]
Features = tuple[NDArray[np.float64], ...]
MUTATE_ALSO = 0.3  # chance of a second mutation


class Grid:
    """Points of a space, and what a model should see of them.

    Args:
        choices: Allowed values by name; names that share what comes before the last dot are inherited together.
    """

    def __init__(self, choices: Mapping[str, Sequence[Value]]):
        self.choices = {name: tuple(values) for name, values in choices.items()}
        self.cardinality = np.array([len(values) for values in self.choices.values()])
        parts = [name.rpartition(".")[0] or name for name in self.choices]
        self._part = np.array([list(dict.fromkeys(parts)).index(part) for part in parts])
        self._free = np.flatnonzero(self.cardinality > 1)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.cardinality.tolist())

    def codes(self, choices: Mapping[str, Value]) -> tuple[int, ...]:
        """The codes of a point."""
        return tuple(values.index(choices[name]) for name, values in self.choices.items())

    def values(self, codes: Sequence[int]) -> Choices:
        """The choices with these codes."""
        return {name: values[code] for (name, values), code in zip(self.choices.items(), codes, strict=True)}

    def draw(self, count: int, rng: np.random.Generator) -> Codes:
        """Points drawn uniformly, (count, D)."""
        return rng.integers(self.cardinality, size=(count, len(self.cardinality)))

    def vary(self, parents: Codes, count: int, rng: np.random.Generator) -> Codes:
        """Children of parents, (count, D): half of them crossed, part by part, and all with a mutation or two."""
        children = parents[rng.integers(len(parents), size=count)].copy()
        others = parents[rng.integers(len(parents), size=count)]
        from_other = rng.random((count, self._part.max() + 1)) < 0.5
        from_other[rng.random(count) < 0.5] = False
        children = np.where(from_other[:, self._part], others, children)
        for chance in (1.0, MUTATE_ALSO):
            rows = np.flatnonzero(rng.random(count) < chance)
            if len(self._free) and len(rows):
                columns = self._free[rng.integers(len(self._free), size=len(rows))]
                children[rows, columns] = rng.integers(self.cardinality[columns])
        return children

    def features(self, codes: Codes) -> Features:
        """Groups of features, each (N, d), in which random points have a mean squared distance of 1.

        The first is the choices themselves: numbers by their logarithm, words one-hot. The second, where several
        choices have the same alternatives, is how often each alternative is chosen: a model learns from it first what
        a block is worth, and then where.
        """
        choices = np.concatenate([table[codes[:, column]] for column, table in self._tables], axis=1)
        groups = [choices]
        if self._vocabularies:
            counts = np.stack([(codes[:, columns] == code).sum(axis=1) for columns, code in self._vocabularies], axis=1)
            mean, deviation = self._count_moments
            groups.append((counts - mean) / deviation)
        return tuple(group * scale for group, scale in zip(groups, self._scales, strict=True))

    @cached_property
    def _tables(self) -> list[tuple[int, NDArray[np.float64]]]:
        """For each choice that is one: its column and the features of its values."""
        tables = []
        for column, values in enumerate(self.choices.values()):
            numbers = [math.log2(value) for value in values if isinstance(value, int) and value > 0]
            if len(values) > 1 and len(numbers) == len(values):
                low, span = min(numbers), max(numbers) - min(numbers)
                tables.append((column, np.array([[(number - low) / span] for number in numbers])))
            elif len(values) > 1:
                tables.append((column, np.eye(len(values)) / math.sqrt(2)))
        return tables or [(0, np.zeros((1, 1)))]

    @cached_property
    def _vocabularies(self) -> list[tuple[Codes, int]]:
        """Columns of choices that share their alternatives, and each alternative's code."""
        shared: dict[tuple[Value, ...], list[int]] = {}
        for column, values in enumerate(self.choices.values()):
            if len(values) > 1 and any(isinstance(value, str) for value in values):
                shared.setdefault(values, []).append(column)
        return [
            (np.array(columns), code)
            for values, columns in shared.items()
            if len(columns) > 1
            for code in range(len(values))
        ]

    @cached_property
    def _count_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each count in random points."""
        places = np.array([len(columns) for columns, _ in self._vocabularies])
        share = np.array([1 / self.cardinality[columns[0]] for columns, _ in self._vocabularies])
        return places * share, np.sqrt(places * share * (1 - share))

    @cached_property
    def _scales(self) -> tuple[float, ...]:
        """Make the mean squared distance of random points 1 in each group."""
        variance = sum(float(table.var(axis=0).sum()) for _, table in self._tables)
        scales = [1 / math.sqrt(2 * variance) if variance else 1.0]
        if self._vocabularies:
            scales.append(1 / math.sqrt(2 * len(self._vocabularies)))
        return tuple(scales)

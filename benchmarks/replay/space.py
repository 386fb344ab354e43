"""The rows of a table as a search space of the product: real architectures, which can be stored, and no others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.table import Table, TableError
from nas_yolo.samplers import Codes, Grid
from search_spaces.architecture import Architecture
from search_spaces.space import LEVELS, STAGES, Choices, SearchSpace, Value

DENSE = 0.25  # share of a space's points from which children of rows are mostly rows themselves
NEAREST = 1000  # rows kept for each parent

# Where a block may be chosen: first those that are a part of their own, so that each choice is inherited by itself.
PLACES = (
    *(f"{stage}.block" for stage in STAGES),
    *(f"neck.{level}.block" for level in LEVELS),
    *("attention", "P1.downsample", "neck.downsample"),
    *(f"{stage}.downsample" for stage in STAGES),
)
SIZES: dict[str, Value] = {
    "P1.width": 8,
    **{f"{stage}.width": 8 for stage in STAGES},
    **{f"{stage}.{name}": 1 for stage in STAGES for name in ("depth", "widen")},
    **{f"neck.{level}.depth": 1 for level in LEVELS},
}


@dataclass(frozen=True)
class TableSpace(SearchSpace):
    """Architectures whose blocks stand for what a row of a table chooses; none of them is ever built.

    Attributes:
        table: Its rows are all that is drawn.
    """

    table: Table = field(kw_only=True, compare=False, repr=False)

    def sample(self, rng: np.random.Generator) -> Choices:
        """A row drawn uniformly."""
        return self._choices_of_row(int(rng.integers(len(self.table.configs))))

    def mutate(self, choices: Choices, rng: np.random.Generator) -> Choices:
        """Any row: what differs from one in a single part need not be there."""
        return self.sample(rng)

    def row_of(self, architecture: Architecture) -> int:
        """The row that an architecture stands for."""
        places = architecture.places
        codes = (self.choices[place].index(places[place]) for place in _places(self.table))
        return self.table.row_of[tuple(codes)]

    def architecture_of(self, row: int) -> Architecture:
        """The architecture that stands for a row."""
        return self.architecture(self._choices_of_row(row))

    def _choices_of_row(self, row: int) -> Choices:
        chosen = zip(_places(self.table), self.table.configs[row].tolist(), strict=True)
        first = {name: values[0] for name, values in self.choices.items()}
        return first | {place: self.choices[place][code] for place, code in chosen}


def space_of(table: Table, seed: int) -> TableSpace:
    """The space of a table. A search begins with a model to beat, which it trains to the end: here any row.

    Args:
        table: Of architectures.
        seed: Draws that row.

    Raises:
        TableError: If it has more choices than there are places for blocks.
    """
    blocks: dict[str, tuple[Value, ...]] = dict.fromkeys(PLACES, ("none",))
    # Choices of as many values are taken to have the same alternatives: all that a table tells of them.
    for place, count in zip(_places(table), table.cardinality.tolist(), strict=True):
        blocks[place] = tuple(f"value {value}" for value in range(count))
    choices = blocks | {name: (value,) for name, value in SIZES.items()}
    space = TableSpace(table.name, "yolov8", choices, table=table)
    row = int(np.random.default_rng(seed).integers(len(table.configs)))
    return TableSpace(table.name, "yolov8", choices, space.architecture_of(row), table=table)


def _places(table: Table) -> tuple[str, ...]:
    if len(table.cardinality) > len(PLACES):
        raise TableError(f"{table.name}: {len(table.cardinality)} choices; up to {len(PLACES)} can be searched")
    return PLACES[: len(table.cardinality)]


class TableGrid(Grid):
    """The points of a space that are rows of its table: nothing else is drawn."""

    def __init__(self, space: TableSpace):
        super().__init__(space.choices)
        columns = [list(self.choices).index(place) for place in _places(space.table)]
        self._rows: Codes = np.zeros((len(space.table.configs), len(self.choices)), dtype=np.int64)
        self._rows[:, columns] = space.table.configs
        self._known = set(map(tuple, self._rows.tolist()))
        self._nearest: dict[tuple[int, ...], NDArray[np.int64]] = {}

    def draw(self, count: int, rng: np.random.Generator) -> Codes:
        """Rows drawn uniformly."""
        return self._rows[rng.integers(len(self._rows), size=count)]

    def vary(self, parents: Codes, count: int, rng: np.random.Generator) -> Codes:
        """Children as in any space; in a table of a few points of a large space, the rows nearest to the parents."""
        if len(self._rows) > DENSE * self.size:
            children = super().vary(parents, count, rng)
            return children[[tuple(child) in self._known for child in children.tolist()]]
        share = max(count // len(parents), 1)
        return np.concatenate([self._rows[self._nearest_to(tuple(p))[:share]] for p in parents.tolist()])

    def _nearest_to(self, codes: tuple[int, ...]) -> NDArray[np.int64]:
        if codes not in self._nearest:
            distance = (self._rows != np.array(codes)).sum(axis=1)
            self._nearest[codes] = np.argsort(distance, kind="stable")[:NEAREST]
        return self._nearest[codes]

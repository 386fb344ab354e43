"""Where the weights of a narrower or shallower part lie in those of the largest one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from evaluators.accuracy.channels import Channels, Dimension, Numbers
from evaluators.accuracy.imitation.body import Body


@dataclass(frozen=True)
class Slice:
    """A part's weights among those of a larger one.

    Attributes:
        indices: For each weight and dimension that is smaller or in another order, which values are taken.
        missing: Names that the larger one lacks.
    """

    indices: Mapping[str, tuple[tuple[int, Tensor], ...]]
    missing: frozenset[str]

    @classmethod
    def whole(cls, body: Body) -> Slice:
        """All of a part."""
        return cls(dict.fromkeys(body.shapes, ()), frozenset())

    def take(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The part's weights; gradients reach the larger one's."""
        found = {}
        for name, indices in self.indices.items():
            value = weights[name]
            for dim, index in indices:
                value = value.index_select(dim, index)
            found[name] = value
        return found


def find_slice(
    small: Body, large: Body, inputs: Sequence[Numbers], output: Numbers | None, importance: Mapping[int, float]
) -> Slice:
    """Where a part's weights lie in a larger one's.

    Args:
        small: The part.
        large: Of the same block at the same place, at least as wide and deep.
        inputs: For each source, which of the larger one's channels the part reads.
        output: Which of its channels the part gives; None for a head.
        importance: Of the larger one's channels: of those inside, the part has the most important ones.
    """
    same = _correspondence(small.channels, large.channels, inputs, output, importance)
    found = {}
    for name, shape in small.shapes.items():
        if name in large.shapes and len(shape) == len(large.shapes[name]):
            dims = range(len(shape))
            sizes = large.shapes[name]
            chosen = [_chosen((name, dim), shape, sizes, small.channels, large.channels, same, output) for dim in dims]
            found[name] = tuple(
                (dim, torch.from_numpy(index))
                for dim, index in enumerate(chosen)
                if not np.array_equal(index, np.arange(sizes[dim]))
            )
    return Slice(found, frozenset(small.shapes.keys() - found.keys()))


def _correspondence(
    small: Channels,
    large: Channels,
    inputs: Sequence[Numbers],
    output: Numbers | None,
    importance: Mapping[int, float],
) -> dict[int, int]:
    """Which channel of the larger part each of the smaller one's is.

    Those inside in classes that the same weights write and read. Whatever is in one width is in the next, too.
    """
    same: dict[int, int] = {}
    ends = list(zip(small.inputs, large.inputs, inputs, strict=True))
    if output is not None and small.outputs is not None and large.outputs is not None:
        ends.append((small.outputs, large.outputs, output))
    for mine, others, positions in ends:
        for number, other in zip(mine.tolist(), others[positions].tolist(), strict=True):
            same.setdefault(number, other)
    outside = {number for theirs in (*large.inputs, large.outputs) if theirs is not None for number in theirs.tolist()}
    common = small.of.keys() & large.of.keys()
    left = _classes(small, common, set(same))
    right = _classes(large, common, outside)
    for kind, numbers in left.items():
        theirs = right.get(kind, [])
        best = sorted(sorted(theirs, key=lambda number: -importance.get(number, 0.0))[: len(numbers)])
        same.update(zip(numbers, best, strict=False))
    return same


def _classes(
    channels: Channels, common: frozenset[Dimension] | set[Dimension], but: set[int]
) -> dict[frozenset[Dimension], list[int]]:
    places: dict[int, set[Dimension]] = defaultdict(set)
    for place in common:
        for number in channels.of[place].tolist():
            places[number].add(place)
    found: dict[frozenset[Dimension], list[int]] = defaultdict(list)
    for number in sorted(places.keys() - but):
        found[frozenset(places[number])].append(number)
    return found


def _chosen(
    place: Dimension,
    shape: Sequence[int],
    larger: Sequence[int],
    small: Channels,
    large: Channels,
    same: Mapping[int, int],
    output: Numbers | None,
) -> Numbers:
    """Which values along one dimension of a weight: by channel where these are known, else the first that are left."""
    count, size = shape[place[1]], larger[place[1]]
    if place not in small.of or place not in large.of:
        return np.resize(np.arange(size), count)
    theirs = _occurrences(large.of[place])
    found = [theirs.get((same.get(number, -1), which), -1) for number, which in _occurrences(small.of[place])]
    gives = small.outputs is not None and np.array_equal(small.of[place], small.outputs)
    if -1 in found and gives and output is not None and large.outputs is not None and size == len(large.outputs):
        return output  # a shallower form's last unit
    left = cycle([position for position in range(size) if position not in set(found)] or range(size))
    return np.array([position if position >= 0 else next(left) for position in found])


def _occurrences(numbers: Numbers) -> dict[tuple[int, int], int]:
    """The position of each channel's first, second ... appearance."""
    seen: dict[int, int] = defaultdict(int)
    found = {}
    for position, number in enumerate(numbers.tolist()):
        found[number, seen[number]] = position
        seen[number] += 1
    return found

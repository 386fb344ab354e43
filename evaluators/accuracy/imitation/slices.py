"""Where the weights of a narrower or shallower part lie in those of the largest one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
) -> Numbers:
    """By the numbers of the smaller part's channels: which of the larger one's each is; -1 where it is none.

    Those inside in classes that the same weights write and read. Whatever is in one width is in the next, too.
    """
    ends = list(zip(small.inputs, large.inputs, inputs, strict=True))
    if output is not None and small.outputs is not None and large.outputs is not None:
        ends.append((small.outputs, large.outputs, output))
    same = np.full(_count(small), -1)
    for mine, others, positions in reversed(ends):  # what is in several is what it is in the first
        same[mine[::-1]] = others[positions][::-1]
    outside = np.concatenate([theirs for theirs in (*large.inputs, large.outputs) if theirs is not None])
    common = sorted(small.of.keys() & large.of.keys())
    left = _classes(small, common, np.flatnonzero(same >= 0))
    right = _classes(large, common, outside)
    for kind, numbers in left.items():
        theirs = right.get(kind, [])
        best = sorted(sorted(theirs, key=lambda number: -importance.get(number, 0.0))[: len(numbers)])
        same[numbers[: len(best)]] = best
    return same


def _classes(channels: Channels, common: Sequence[Dimension], but: Numbers) -> dict[bytes, list[int]]:
    """Channels, in order, by the weights that write and read them."""
    places = np.zeros((_count(channels), len(common)), dtype=bool)
    for column, place in enumerate(common):
        places[channels.of[place], column] = True
    places[but] = False
    inside = np.flatnonzero(places.any(1))
    found: dict[bytes, list[int]] = defaultdict(list)
    for number, row in zip(inside.tolist(), np.packbits(places[inside], 1), strict=True):
        found[row.tobytes()].append(number)
    return found


def _count(channels: Channels) -> int:
    ends = [*channels.inputs, *(() if channels.outputs is None else (channels.outputs,))]
    return 1 + max(int(numbers.max()) for numbers in (*channels.of.values(), *ends) if len(numbers))


def _chosen(
    place: Dimension,
    shape: Sequence[int],
    larger: Sequence[int],
    small: Channels,
    large: Channels,
    same: Numbers,
    output: Numbers | None,
) -> Numbers:
    """Which values along one dimension of a weight: by channel where these are known, else the first that are left."""
    count, size = shape[place[1]], larger[place[1]]
    if place not in small.of or place not in large.of:
        return np.resize(np.arange(size), count)
    mine, theirs = small.of[place], large.of[place]
    found = _positions(same[mine], _appearance(mine), theirs)
    unknown = found < 0
    if not unknown.any():
        return found
    gives = small.outputs is not None and np.array_equal(mine, small.outputs)
    if gives and output is not None and large.outputs is not None and size == len(large.outputs):
        return output  # a shallower form's last unit
    left = np.setdiff1d(np.arange(size), found)
    found[unknown] = np.resize(left if len(left) else np.arange(size), int(unknown.sum()))
    return found


def _positions(numbers: Numbers, which: Numbers, among: Numbers) -> Numbers:
    """Where each channel appears for the so manieth time among others; -1 where it does not."""
    several = len(among) + int(which.max()) + 1
    there, sought = among * several + _appearance(among), numbers * several + which
    order = np.argsort(there)
    at = order[np.searchsorted(there, sought, sorter=order).clip(max=len(among) - 1)]
    return np.where((there[at] == sought) & (numbers >= 0), at, -1)


def _appearance(numbers: Numbers) -> Numbers:
    """How many times each was there before."""
    order = np.argsort(numbers, kind="stable")
    found = np.empty_like(numbers)
    found[order] = np.arange(len(numbers)) - np.searchsorted(numbers[order], numbers[order])
    return found

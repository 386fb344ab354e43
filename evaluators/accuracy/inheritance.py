"""First weights from a trained network of another architecture, place by place.

What stands at the same place under the same name is taken: as it is where it is as wide; the most important channels of
a wider one, the same everywhere in the network; of a narrower one all, some of them twice, with what reads them shared
out so that the sum is the same (Net2Net, arXiv:1511.05641). Units that the parent lacks hand on what they are given at
first, where they are residual. Everything else keeps its random weights.

`tests` compare what the first step of the optimizer sees with what is given here: Ultralytics builds a network anew
when a training starts, and silently drops weights that were loaded before (ultralytics#19709).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from evaluators.accuracy.channels import Channels, Dimension, Numbers, find_channels
from evaluators.accuracy.checkpoints import load_checkpoint, version
from evaluators.accuracy.request import Parent
from evaluators.evaluation import FirstWeights
from search_spaces import hook
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.families import get_family
from search_spaces.model_architecture import architecture_of
from search_spaces.model_file import read_model
from search_spaces.model_rows import ModelError

if TYPE_CHECKING:
    from evaluators.location import Location

REMEMBERED = 4  # parents: every trial of a search has the same one, and few have another besides


class WeightsError(UserError, ValueError):
    """A file of weights that cannot be used; one line that says why."""


def inherit(network: DetectionModel, architecture: Architecture, parents: Sequence[Parent], seed: int) -> FirstWeights:
    """Give a network what it can take from its parents: from the first all it has, from others whole places it lacks.

    Args:
        network: Of the architecture, with random weights; changed.
        architecture: From which the roles of its layers follow.
        parents: At least one.
        seed: Of how what reads a channel is shared out where that is there twice.

    Raises:
        WeightsError: If a parent's file holds no weights of a detector.
    """
    roles = get_family(architecture.family).roles(architecture)
    child = _by_role(network, roles)
    donors = [read_parent(parent.file, version(parent.file)) for parent in parents]
    taken = _Match(child, donors[0], seed).copy()  # which values of each weight, by name
    used = [parents[0].name] if taken else []
    for parent, donor in zip(parents[1:], donors[1:], strict=True):
        if added := _copy_whole_places(child, donor, taken):
            taken |= added
            used.append(parent.name)
    taken |= _copy_one_to_one(child, taken)
    for name in child.channels.residual - taken.keys():
        child.weights[name].zero_()  # a residual unit hands on what it is given
    learned = {name: child.weights[name] for name in child.learned}
    share = sum(int(taken[name].sum()) for name in learned if name in taken)
    return FirstWeights(tuple(used), share / sum(value.numel() for value in learned.values()))


@dataclass(frozen=True)
class Donor:
    """A trained network, its weights by role, such as `P2.block/cv1.conv.weight`.

    Attributes:
        weights: Buffers included.
        learned: Names of those that are trained.
        channels: With the same names.
    """

    weights: dict[str, Tensor]
    learned: frozenset[str]
    channels: Channels


@lru_cache(maxsize=REMEMBERED)
def read_parent(file: Location, version: str) -> Donor:
    """The network of a checkpoint, a search's or Ultralytics'.

    Args:
        file: Where it is.
        version: Of the file: one that was replaced is read again.

    Raises:
        WeightsError: If it is neither.
        OSError: If it cannot be read.
    """
    try:
        saved = load_checkpoint(file)
    except OSError:
        raise
    except Exception:  # a network's classes, which are not allowed here; or no checkpoint at all
        return _read_ultralytics(file)
    if not isinstance(saved, dict) or "architecture" not in saved:
        return _read_ultralytics(file)
    architecture, weights = Architecture.from_document(saved["architecture"]), saved["ema"]
    heads = [value for name, value in weights.items() if re.fullmatch(r"model\.\d+\.cv3\.0\.2\.bias", name)]
    network = hook.build(hook.model_file(architecture, len(heads[0])))
    network.load_state_dict(weights)
    return _by_role(network, get_family(architecture.family).roles(architecture))


def _read_ultralytics(file: Location) -> Donor:
    try:
        model = read_model(str(file))
        architecture = architecture_of(model)
        network = model.build()
    except ModelError as error:
        raise WeightsError(str(error)) from error
    return _by_role(network, get_family(architecture.family).roles(architecture))


def _by_role(network: DetectionModel, roles: Sequence[str]) -> Donor:
    def name(path: str) -> str:
        _, index, rest = path.split(".", 2)
        return f"{roles[int(index)]}/{rest}"

    found = find_channels(network)
    channels = Channels(
        {(name(path), dim): numbers for (path, dim), numbers in found.of.items()},
        found.fixed,
        frozenset(map(name, found.residual)),
    )
    learned = frozenset(name(path) for path, _ in network.named_parameters())
    return Donor({name(path): value for path, value in network.state_dict().items()}, learned, channels)


class _Match:
    """Which channel of a network corresponds to which of its parent's.

    Channels correspond that are written and read by the same weights; in both networks, such channels form classes.
    """

    def __init__(self, child: Donor, parent: Donor, seed: int | None, importance: Mapping[int, float] | None = None):
        self._rng = None if seed is None else np.random.default_rng(seed)
        self._child, self._parent = child, parent
        common = child.channels.of.keys() & parent.channels.of.keys()
        common = {place for place in common if self._fits(place[0])}
        self._common = common
        self._mine, self._theirs = _signatures(child.channels, common), _signatures(parent.channels, common)
        self._importance = defaultdict(float, {**_importance(parent), **(importance or {})})

    def copy(self) -> dict[str, Tensor]:
        """Copy all weights that have a source; which of their values were copied, by name."""
        taken = {}
        for name in self._child.weights:
            if self._fits(name) and (known := self._copy(name)) is not None:
                taken[name] = known
        return taken

    def _fits(self, name: str) -> bool:
        """Whether both have a weight of this name, alike but for the number of channels."""
        mine, theirs = self._child.weights[name], self._parent.weights.get(name)
        if theirs is None or mine.dim() != theirs.dim():
            return False
        traced = [(name, dim) in self._child.channels.of for dim in range(mine.dim())]
        same = traced == [(name, dim) in self._parent.channels.of for dim in range(mine.dim())]
        sizes = zip(mine.shape, theirs.shape, traced, strict=True)
        return same and all(a == b or channels for a, b, channels in sizes)

    def _copy(self, name: str) -> Tensor | None:
        target, value = self._child.weights[name], self._parent.weights[name].to(self._child.weights[name].dtype)
        known, rows = torch.ones_like(target, dtype=torch.bool), None
        contracted = (name, 0) in self._common and (name, 1) in self._common
        for dim in range(target.dim()):
            if (name, dim) not in self._common:
                continue
            chosen = self._chosen((name, dim))
            index, shape = torch.from_numpy(chosen), [-1 if i == dim else 1 for i in range(target.dim())]
            value = value.index_select(dim, index.clamp(min=0))
            known &= (index >= 0).view(shape)
            if dim == 0:
                rows = index >= 0
            elif contracted:
                value = value * torch.from_numpy(self._shares(chosen)).to(value.dtype).view(shape)
        if not bool(known.any()):
            return None
        value = torch.where(known, value, torch.zeros_like(value))  # what is new is not read yet
        target.copy_(value if rows is None else torch.where(rows.view([-1] + [1] * (target.dim() - 1)), value, target))
        return known

    def _chosen(self, place: Dimension) -> Numbers:
        """For each channel along a dimension, which of the parent's it is; -1: none."""
        numbers, others = self._child.channels.of[place], self._parent.channels.of[place]
        mine, theirs = _classes(numbers, self._mine), _classes(others, self._theirs)
        pairs = [(positions, theirs[kind]) for kind, positions in mine.items() if kind in theirs]
        # What is tied in one network need not be in the other: the rest is paired in order of appearance.
        left = [positions for kind, positions in mine.items() if kind not in theirs]
        right = [positions for kind, positions in theirs.items() if kind not in mine]
        if len(left) == len(right):
            pairs += zip(left, right, strict=True)
        elif left and right:
            pairs.append((np.concatenate(left), np.concatenate(right)))
        chosen = np.full(len(numbers), -1)
        for here, there in pairs:
            fixed = set(numbers[here].tolist()) & self._child.channels.fixed
            fixed |= set(others[there].tolist()) & self._parent.channels.fixed
            if not fixed or len(here) == len(there):
                weights = np.array([self._importance[number] for number in others[there].tolist()])
                chosen[here] = there[most_important(len(here), weights)]
        return chosen

    def _shares(self, chosen: Numbers) -> NDArray[np.float64]:
        """What each copy of a channel counts for: unequal, or they would learn the same for ever; the sum is 1.

        All of it for the first copy where there is no seed.
        """
        index = chosen.clip(0)
        if self._rng is None:
            first = np.zeros(len(chosen))
            first[np.unique(chosen, return_index=True)[1]] = 1.0
            return np.where(chosen >= 0, first, 0.0)
        weights = np.where(chosen >= 0, self._rng.uniform(0.5, 1.5, len(chosen)), 0.0)
        shares: NDArray[np.float64] = weights / np.maximum(np.bincount(index, weights)[index], 1e-9)
        return shares


Kind = tuple[frozenset[Dimension], int]
"""Which weights write and read a channel; and whether it appears for the first time, the second ..."""


def _signatures(channels: Channels, common: Iterable[Dimension]) -> dict[int, frozenset[Dimension]]:
    found: dict[int, set[Dimension]] = defaultdict(set)
    for place in common:
        for number in set(channels.of[place].tolist()):
            found[number].add(place)
    return {number: frozenset(places) for number, places in found.items()}


def _classes(numbers: Numbers, signatures: Mapping[int, frozenset[Dimension]]) -> dict[Kind, Numbers]:
    """Positions of each kind of channel, in order of appearance."""
    seen: Counter[int] = Counter()
    found: dict[Kind, list[int]] = defaultdict(list)
    for position, number in enumerate(numbers.tolist()):
        found[signatures[number], seen[number]].append(position)
        seen[number] += 1
    return {kind: np.array(positions) for kind, positions in found.items()}


def _importance(donor: Donor) -> dict[int, float]:
    """How large the weights are that write and read each channel, relative to its neighbours'."""
    total: dict[int, float] = defaultdict(float)
    for (name, dim), numbers in donor.channels.of.items():
        value = donor.weights[name].float()
        if name not in donor.learned:
            continue
        size = value.transpose(0, dim).flatten(1).norm(dim=1) if value.dim() > 1 else value.abs()
        for number, part in zip(numbers.tolist(), (size / size.mean().clamp(min=1e-9)).tolist(), strict=True):
            total[number] += part
    return total


def most_important(count: int, importance: NDArray[np.float64]) -> Numbers:
    """Positions of the `count` most important, in order; where there are fewer, all, then the most important again."""
    best = np.argsort(-importance, kind="stable")
    if count <= len(best):
        return np.sort(best[:count])
    return np.concatenate((np.arange(len(best)), np.resize(best, count - len(best))))


def inherit_part(child: Donor, parent: Donor, importance: Mapping[int, float]) -> None:
    """Give a part of a network what a trained one of the same block has, as `inherit` does for whole networks.

    Second copies of a channel are not read at first, so that the part computes the same without them.

    Args:
        child: With random weights; changed.
        parent: Of any widths and depth.
        importance: Of those of the parent's channels of which more is known than the sizes of weights.
    """
    taken = _Match(child, parent, None, importance).copy()
    for name in child.channels.residual - taken.keys():
        child.weights[name].zero_()


def _copy_one_to_one(child: Donor, taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In a head without NMS, let the half that is deployed begin as the other, where its parents had no such half."""
    added = {}
    for name in child.weights:
        other = name.replace("/one2one_", "/")
        if other != name and name not in taken and other in taken:
            child.weights[name].copy_(child.weights[other])
            added[name] = taken[other]
    return added


def _copy_whole_places(child: Donor, other: Donor, taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy each place of which nothing was taken yet, where the other network has just the same there."""
    mine, theirs = _places(child), _places(other)
    added = {}
    for place, names in mine.items():
        same = theirs.get(place) == names and not any(name in taken for name in names)
        if same and all(child.weights[name].shape == other.weights[name].shape for name in names):
            for name in names:
                child.weights[name].copy_(other.weights[name])
                added[name] = torch.ones_like(child.weights[name], dtype=torch.bool)
    return added


def _places(donor: Donor) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in donor.weights:
        found[name.partition("/")[0].rstrip("0123456789").rstrip(".")].append(name)
    return found

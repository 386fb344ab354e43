"""The trained network that is imitated: what it computes at each place, and which of its channels matter most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from ultralytics.nn.tasks import DetectionModel

from evaluators.accuracy.batch_statistics import measure_statistics
from evaluators.accuracy.channels import Numbers
from evaluators.accuracy.cpu_convolutions import prepare_for_cpu
from evaluators.accuracy.imitation.body import Body, Features, importance, joined, outputs_of
from evaluators.accuracy.inheritance import most_important
from search_spaces.activation import DEFAULT
from search_spaces.architecture import Architecture
from search_spaces.parts import IMAGE, IMAGE_CHANNELS, Part, parts_of

Importance = Mapping[str, NDArray[np.float64]]
"""Of each interface: how much each of its channels matters."""


@dataclass(frozen=True)
class Seen:
    """What the parent computes at one place for a batch of images."""

    inputs: Features
    outputs: list[Tensor]


class ParentNetwork:
    """A trained detector.

    Args:
        network: With the weights that it is validated with; changed.
        architecture: Of the network.
        statistics: Batches of images, in [0, 1], for the statistics of batch normalisation.
    """

    def __init__(self, network: DetectionModel, architecture: Architecture, statistics: Iterable[Tensor]):
        network = network.float()
        measure_statistics(network, statistics)
        self.network, self.architecture = network.eval(), architecture
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                # What imitates it has a batch's statistics, too: else small maps would differ by these alone.
                module.train()
                module.momentum = 0.0
        prepare_for_cpu(self.network)
        self.network.model[-1].training = True  # outputs as the loss gets them
        self.parts = parts_of(architecture)
        self.classes = int(network.model[-1].nc)
        self._bodies: dict[str, Body] = {}

    def has(self, architecture: Architecture, part: Part) -> bool:
        """Whether a part of an architecture is just what it has at that place."""
        theirs = self.parts.get(part.place)
        return theirs is not None and theirs.shape == part.shape and self.is_like(architecture)

    def is_like(self, architecture: Architecture) -> bool:
        """Whether an architecture's parts can imitate its own: of one family, with one activation."""
        own = self.architecture
        return (own.family, own.activation or DEFAULT) == (architecture.family, architecture.activation or DEFAULT)

    def body(self, place: str) -> Body:
        """Of one of its own parts."""
        if place not in self._bodies:
            self._bodies[place] = Body(self.architecture, self.parts[place], self.classes)
        return self._bodies[place]

    def weights(self, place: str) -> dict[str, Tensor]:
        """Its trained weights there, statistics included."""
        layers = [self.network.model[layer] for layer in self.parts[place].layers]
        return {name: value.detach() for name, value in joined(layers).state_dict().items()}

    @torch.no_grad()
    def look(self, images: Tensor) -> dict[str, Seen]:
        """What it computes for a batch of images, at each of its places."""
        first = {part.layers[0]: place for place, part in self.parts.items()}
        last = {part.layers[-1]: place for place, part in self.parts.items()}
        given: dict[str, Features] = {}
        seen: dict[str, Seen] = {}
        read: Features = images.contiguous(memory_format=torch.channels_last)
        kept: list[Any] = []
        for number, layer in enumerate(self.network.model):
            if layer.f != -1:
                read = kept[layer.f] if isinstance(layer.f, int) else [kept[f] for f in layer.f]
            if number in first:
                given[first[number]] = read
            output = layer(read)
            kept.append(output)
            read = output
            if number in last:
                seen[last[number]] = Seen(given[last[number]], outputs_of(output))
        return seen

    def interface(self, place: str) -> str:
        """Which places' outputs have the same order of channels: what residual units add must be of one order."""
        level = place.partition(".")[0]
        if place in ("pooling", "attention"):
            return self.interface("P5.block")
        if place == f"{level}.downsample" and level != "P1" and self._width(place) == self._width(f"{level}.block"):
            return f"{level}.block"
        return place

    def _width(self, place: str) -> int:
        return IMAGE_CHANNELS if place == IMAGE else self.parts[place].width

    def measure_importance(self, batches: Iterable[Tensor]) -> Importance:
        """How much each channel of each interface matters: how much it varies, times the weights that read it."""
        spread: dict[str, list[Tensor]] = {}
        for images in batches:
            for place, seen in self.look(images).items():
                if not self.parts[place].is_head:
                    spread.setdefault(place, []).append(seen.outputs[0].std((0, 2, 3)))
        found: dict[str, NDArray[np.float64]] = {}
        for place, deviations in spread.items():
            varies = torch.stack(deviations).mean(0).double().numpy()
            value = varies * self._read.get(place, 1.0)
            name = self.interface(place)
            found[name] = found.get(name, 0.0) + value / max(value.mean(), 1e-12)
        return {**found, IMAGE: np.ones(IMAGE_CHANNELS)}

    @cached_property
    def _read(self) -> dict[str, NDArray[np.float64]]:
        """Of each place's channels: the sum of the weights that read them."""
        found: dict[str, NDArray[np.float64]] = {}
        for place, part in self.parts.items():
            body, weights = self.body(place), self.weights(place)
            size = importance(body.channels, {name: weights[name] for name in body.shapes})
            for source, numbers in zip(part.sources, body.channels.inputs, strict=True):
                value = np.array([size.get(number, 0.0) for number in numbers.tolist()])
                found[source] = found[source] + value if source in found else value
        return found


@dataclass(frozen=True)
class Interfaces:
    """Which of the parent's channels a design of other widths has, at each place.

    Attributes:
        parent: The parent.
        importance: Of its channels.
    """

    parent: ParentNetwork
    importance: Importance

    def channels(self, place: str, width: int) -> Numbers:
        """Of a place so wide: the most important ones, in the parent's order; of a wider one all, then these again."""
        return most_important(width, self._importance(place))

    def within(self, place: str, width: int, largest: int) -> Numbers:
        """Where the channels of a width are among those of a larger one."""
        own = len(self._importance(place))
        if width >= own:
            return np.arange(width)
        there = self.channels(place, min(largest, own))
        return np.searchsorted(there, self.channels(place, width))

    def reads(self, part: Part, seen: Features) -> Features:
        """Of what the parent reads, what a part reads."""
        theirs = self.parent.parts.get(part.place)
        if isinstance(seen, list):
            return [
                _picked(one, self.channels(source, width))
                for one, source, width in zip(seen, part.sources, part.in_widths, strict=True)
            ]
        widths = theirs.in_widths if theirs else (seen.shape[1],)
        offsets = np.cumsum([0, *widths[:-1]])
        chosen = [
            offset + self.channels(source, width)
            for offset, source, width in zip(offsets, part.sources, part.in_widths, strict=True)
        ]
        return _picked(seen, np.concatenate(chosen))

    def gives(self, part: Part, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Of what the parent gives, what a part gives."""
        if part.is_head:
            return list(outputs)
        return [_picked(outputs[0], self.channels(part.place, part.width))]

    def _importance(self, place: str) -> NDArray[np.float64]:
        return self.importance[self.parent.interface(place)]


def _picked(maps: Tensor, channels: Numbers) -> Tensor:
    """Some channels, in the layout that is fastest on a CPU."""
    if np.array_equal(channels, np.arange(maps.shape[1])):
        return maps
    return maps[:, torch.from_numpy(channels)].contiguous(memory_format=torch.channels_last)

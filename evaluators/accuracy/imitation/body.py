"""The network of one part of a detector, by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.accuracy.channels import Channels, find_part_channels
from evaluators.accuracy.cpu_convolutions import prepare_for_cpu
from search_spaces import hook
from search_spaces.activation import replace_activations
from search_spaces.architecture import Architecture
from search_spaces.parts import Part

Features = Tensor | list[Tensor]
"""What a part reads: its sources' maps joined, or the head's one by one."""


def build_layers(architecture: Architecture, part: Part, classes: int) -> list[nn.Module]:
    """The layers of a part, one for each of its rows, with random weights."""
    if part.is_head:  # Ultralytics decides by the whole network which head it builds
        return [hook.build(hook.model_file(architecture, classes)).model[-1]]
    layers = hook.build_rows([list(row) for row in part.rows], sum(part.in_widths))
    if architecture.activation is not None:
        replace_activations(nn.ModuleList(layers), architecture.activation)
    return layers


def joined(layers: Sequence[nn.Module]) -> nn.Sequential:
    """The units of a part, one after the other: weights have the same names however many rows there are."""
    units: list[nn.Module] = []
    for layer in layers:
        units += layer.children() if type(layer) is nn.Sequential else [layer]
    return nn.Sequential(*units)


class Body:
    """A part's network without weights, and which channel of which weight is which.

    Args:
        architecture: Has the part.
        part: The part.
        classes: Of objects.
        layers: Of a network that has the part, where it is there already; used up.

    Attributes:
        channels: By names of weights.
        shapes: Of what is trained, by name.
    """

    def __init__(self, architecture: Architecture, part: Part, classes: int, layers: Sequence[nn.Module] | None = None):
        network = joined(layers or build_layers(architecture, part, classes)).train()
        self._initial = {name: value.detach() for name, value in network.named_parameters() if value.requires_grad}
        self.shapes = {name: tuple(value.shape) for name, value in self._initial.items()}
        prepare_for_cpu(network)
        # Statistics of batches, written by each pass and never read.
        self._others = {name: value for name, value in network.state_dict().items() if name not in self.shapes}
        self._network = network.to("meta")
        self.channels: Channels = find_part_channels(self._network, part.in_widths, part.is_head)

    def take_initial(self) -> dict[str, Tensor]:
        """Random weights; they are not kept."""
        initial, self._initial = self._initial, {}
        return initial

    def run(self, weights: dict[str, Tensor], inputs: Features) -> list[Tensor]:
        """Its outputs, normalised by the statistics of this batch."""
        values = {**self._others, **weights}
        return outputs_of(torch.func.functional_call(self._network, values, (inputs,), tie_weights=False))


def outputs_of(output: Any) -> list[Tensor]:
    """A map; or of a head boxes and scores, once more where there is a half without NMS."""
    if isinstance(output, Tensor):
        return [output]
    if "boxes" in output:
        return [output["boxes"], output["scores"]]
    return [leaf for half in ("one2many", "one2one") for leaf in outputs_of(output[half])]


def importance(channels: Channels, weights: Mapping[str, Tensor]) -> dict[int, float]:
    """Of each channel that a part reads or has inside: the sum of the weights that read it."""
    found: dict[int, float] = defaultdict(float)
    for (name, dim), numbers in channels.of.items():
        if name in weights and dim == 1:
            values = weights[name].abs().transpose(0, 1).flatten(1).sum(1).tolist()
            for number, value in zip(numbers.tolist(), values, strict=True):
                found[number] += value
    return dict(found)

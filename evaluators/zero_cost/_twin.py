"""A copy of a network to try things on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.activation import activation_classes
from search_spaces.blocks.convnext import ChannelLayerNorm

ACTIVATIONS = activation_classes()
NORMALISATIONS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, ChannelLayerNorm)


@contextmanager
def twin(network: nn.Module) -> Iterator[nn.Module]:
    """A copy in training mode: it normalises by the batch, and a detection head gives its raw maps.

    What is drawn at random meanwhile is always the same, and the caller's random numbers stay as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield deepcopy(network).train()


def tensors(output: Any) -> Iterator[Tensor]:
    """All tensors in whatever a network returns."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for part in output.values():
            yield from tensors(part)
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from tensors(part)

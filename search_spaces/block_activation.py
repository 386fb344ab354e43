"""Which activations blocks have by themselves, and what follows for a choice of one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from search_spaces.activation import DEFAULT, activations, parsing
from search_spaces.architecture import Architecture
from search_spaces.blocks import get_block


def own_activations(block: str) -> frozenset[str]:
    """Class names of the activations that a block has where none is chosen."""
    return frozenset(name for name, _ in _own(block))


def ultralytics_gives(block: str, activation: str) -> bool:
    """Whether a block has this activation everywhere if a model file has it under Ultralytics' own key."""
    return all(from_conv or own == activation for own, from_conv in _own(block))


def canonical(architecture: Architecture) -> Architecture:
    """The same network with no activation named, if the one that is named is what its blocks have by themselves."""
    own = architecture.activation == DEFAULT and all(
        own_activations(block) <= {DEFAULT} for block in architecture.blocks
    )
    return replace(architecture, activation=None) if own else architecture


@cache
def _own(block: str) -> frozenset[tuple[str, bool]]:
    """Class name of each activation of a block, and whether it is the one that Ultralytics' `Conv` has."""
    import torch
    from ultralytics.nn.modules import Conv

    from search_spaces.contract import cases

    found = get_block(block)
    with parsing, torch.random.fork_rng(devices=()), torch.device("meta"):
        layers = [found.build(*case) for case in cases(found)]
        return frozenset((type(old).__name__, old is Conv.default_act) for _, _, old in activations(layers))

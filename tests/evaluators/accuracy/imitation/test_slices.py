from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluators.accuracy.imitation.body import Body
from evaluators.accuracy.imitation.slices import Slice, find_slice
from search_spaces.parts import parts_of
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space

# Concatenations, splits, shuffles, depthwise and partial convolutions, products of branches. Not those that normalise
# over channels: silent ones count there.
BLOCKS = (
    *("C2f", "Conv", "GhostConv", "RepNCSPELAN4", "ELAN1", "C2fGhost", "ShuffleV2", "GhostV2", "RepVGG", "MBConv3"),
    *("UIB", "StarNet"),
)
# Their outputs are pairs of channels, of which one is made from the other, or two halves shuffled: only such subsets of
# them are what they compute by themselves.
HALVES = ("GhostConv", "GhostV2", "ShuffleV2")


def silenced(where: Slice, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The larger part's weights, where nothing reads what the smaller one does not have."""
    found = {name: value.clone() for name, value in weights.items()}
    for name, indices in where.indices.items():
        for dim, index in indices:
            if dim == 1:
                dropped = np.setdiff1d(np.arange(found[name].shape[1]), index.numpy())
                found[name][:, torch.from_numpy(dropped)] = 0.0
    return found


@pytest.mark.parametrize(
    ("place", "block"),
    [("P4.block", block) for block in BLOCKS]
    + [("neck.P4.block", block) for block in ("C2f", "C2fGhost", "RepNCSPELAN4", "MBConv3", "UIB")],
)
def test_a_slice_computes_what_the_larger_part_does_without_the_rest(block: str, place: str) -> None:
    space = load_space("yolov8n")
    start = space.choices_of(load_preset("yolov8n"))
    assert start is not None
    choice = "neck.P4.block" if place.startswith("neck") else "P4.block"
    torch.manual_seed(0)
    sizes = {"P3.width": 64, "P4.width": 128, "P5.width": 256}
    start = {**start, "P4.depth": 1 if block in HALVES else 2}
    less = {"P3.width": 48, "P4.width": 96, "P5.width": 192}
    one, other = (space.architecture({**start, choice: block, **widths}) for widths in (less, sizes))
    part, larger = parts_of(one)[place], parts_of(other)[place]
    small, large = Body(one, part, 3), Body(other, larger, 3)
    rng = np.random.default_rng(0)
    kept = [
        np.sort(rng.permutation(wide)[:width]) for width, wide in zip(part.in_widths, larger.in_widths, strict=True)
    ]
    given = kept[0] if len(kept) == 1 else np.sort(rng.permutation(larger.width)[: part.width])
    if block in HALVES and len(kept) == 1:
        half = np.sort(rng.permutation(larger.width // 2)[: part.width // 2])
        kept = [np.concatenate([half, half + larger.width // 2])]
        given = np.stack([2 * half, 2 * half + 1], 1).ravel() if block == "ShuffleV2" else kept[0]
    where = find_slice(small, large, kept, given, {})
    assert not where.missing
    weights = large.take_initial()
    inputs = torch.rand(4, sum(larger.in_widths), 8, 8)
    offsets = np.cumsum([0, *larger.in_widths[:-1]])
    read = torch.from_numpy(np.concatenate([o + k for o, k in zip(offsets, kept, strict=True)]))
    silent = torch.zeros_like(inputs)
    silent[:, read] = inputs[:, read]
    with torch.no_grad():
        mine = small.run(where.take(weights), inputs[:, read])[0]
        theirs = large.run(silenced(where, weights), silent)[0][:, torch.from_numpy(given)]
    assert torch.allclose(mine, theirs, atol=1e-4)

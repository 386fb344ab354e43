"""How far outputs are from the parent's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

SIDES = 4
CLASS_WEIGHT, SIDE_WEIGHT = 0.5, 1.5  # what Ultralytics' loss counts for classes and for the distributions of sides


def feature_error(mine: Tensor, theirs: Tensor) -> Tensor:
    """Squared error of a map as a share of its variance: 0 is the same, 1 what a constant would give."""
    return (mine - theirs).square().mean() / theirs.var().clamp(min=1e-12)


def head_error(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Divergence of what a head says from what the parent's says, for each object that the parent is sure of.

    Most of what a head says is that there is nothing, and by how much does not matter.

    Args:
        mine: Logarithms, (N, 4 * bins, anchors), and logits of classes, (N, classes, anchors), for each half of a head.
        theirs: Of the parent.
    """
    parts = []
    for boxes, scores, their_boxes, their_scores in zip(mine[::2], mine[1::2], theirs[::2], theirs[1::2], strict=True):
        sure = their_scores.sigmoid()
        weights = sure.amax(1)
        total = weights.sum().clamp(min=1.0)
        classes = functional.binary_cross_entropy_with_logits(scores, sure, reduction="sum")
        least = functional.binary_cross_entropy_with_logits(their_scores, sure, reduction="sum")
        parts.append(CLASS_WEIGHT * (classes - least) / total)
        parts.append(SIDE_WEIGHT * (weights * _side_error(boxes, their_boxes)).sum() / total)
    return torch.stack(parts).sum()


def _side_error(mine: Tensor, theirs: Tensor) -> Tensor:
    """For each anchor, (N, anchors): of distributions their divergence, of plain distances their squared difference."""
    mine, theirs = mine.unflatten(1, (SIDES, -1)), theirs.unflatten(1, (SIDES, -1))
    if mine.shape[2] == 1:
        return (mine - theirs).square().sum(2).mean(1)
    logs = functional.kl_div(mine.log_softmax(2), theirs.log_softmax(2), reduction="none", log_target=True)
    return logs.sum(2).mean(1)

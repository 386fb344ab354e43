"""How much an untrained backbone already sees of what the trained stock model sees in the user's images.

Linear centred kernel alignment: Kornblith et al., Similarity of Neural Network Representations Revisited,
https://arxiv.org/abs/1905.00414.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from evaluators.zero_cost._twin import twin
from search_spaces.image_size import ImageSize

GRID = 4  # places across an image, each of which is an example: images alone would be too few
FINEST = 4  # stride of the first stage


def score(network: nn.Module, images: Tensor, imgsz: ImageSize, baseline: nn.Module | None) -> float:
    """Mean alignment, 0 to 1, of the stages of equal resolution; higher is better."""
    if baseline is None or len(images) < 2:
        return math.nan
    with twin(network) as copy, torch.no_grad():
        ours, theirs = _stages(copy, images), _stages(baseline, images)
    common = [size for size in ours if size in theirs]
    return sum(linear_cka(ours[size], theirs[size]) for size in common) / len(common)


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features of the same examples, (n, c) and (n, d); from 0 to 1."""
    one, other = one - one.mean(dim=0), other - other.mean(dim=0)
    together = (one.T @ other).square().sum()
    return float(together / ((one.T @ one).norm() * (other.T @ other).norm()))


def _stages(network: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """Features at the end of each stage of the backbone, (examples, channels), by their resolution."""
    found: dict[int, Tensor] = {}
    features = images
    detector: Any = network  # Ultralytics' class has the model file and a list of its layers; a backbone is a chain
    for layer in detector.model[: len(detector.yaml["backbone"])]:
        features = layer(features)
        if features.shape[-1] * FINEST <= images.shape[-1]:
            places = adaptive_avg_pool2d(features, GRID)
            found[features.shape[-1]] = places.permute(0, 2, 3, 1).flatten(0, 2).double()
    return found

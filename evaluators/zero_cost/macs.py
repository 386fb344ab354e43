"""Multiply-accumulates: larger networks are more accurate, as a rule, and hard to beat by cleverer scores.

Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, https://arxiv.org/abs/2101.08134, compare scores to it.
"""

from __future__ import annotations

import math

import thop
import torch
from torch import Tensor, nn

from evaluators.zero_cost._twin import twin
from search_spaces.image_size import ImageSize

SIZE = 64  # pixels of the image that is run; operations grow with the area, but for attention


def score(network: nn.Module, images: Tensor, imgsz: ImageSize, baseline: nn.Module | None) -> float:
    """Logarithm of the multiply-accumulates for one image of that size; higher is better."""
    with twin(network) as copy, torch.no_grad():
        macs, _ = thop.profile(copy.eval(), inputs=[torch.zeros(1, 3, SIZE, SIZE)], verbose=False)
    return math.log(macs) + (math.log(imgsz.width / SIZE) + math.log(imgsz.height / SIZE))

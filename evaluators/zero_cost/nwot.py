"""NASWOT: how differently an untrained network codes different images.

Mellor et al., Neural Architecture Search without Training, https://arxiv.org/abs/2006.04647. There a code is which
ReLUs are open. Ours are mostly SiLUs, which never shut: a code is the sign of what goes into each activation, which is
the same for a ReLU. Activations that are no modules are not seen. Unlike in the paper, 1 is added to the kernel's
diagonal: two images of equal codes cost much, but not everything.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evaluators.zero_cost._twin import ACTIVATIONS, twin
from search_spaces.image_size import ImageSize


def score(network: nn.Module, images: Tensor, imgsz: ImageSize, baseline: nn.Module | None) -> float:
    """Logarithm of the determinant of how many units each two images have in common; higher is better."""
    if len(images) < 2:
        return math.nan
    kernel = torch.eye(len(images), dtype=torch.float64)

    def add(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if len(given[0]) == len(images):
            signs = torch.where(given[0].flatten(1) > 0, 1.0, -1.0)
            kernel.add_((signs.shape[1] + (signs @ signs.T).double()) / 2)

    with twin(network) as copy, torch.no_grad():
        for module in copy.modules():
            if isinstance(module, ACTIVATIONS):
                module.register_forward_pre_hook(add)
        copy(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)

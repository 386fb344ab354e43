"""Synaptic flow: how much passes through a network whose weights are all positive.

Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow,
https://arxiv.org/abs/2006.05467. Activations and normalisations are left out, as for the paper's nets: a ReLU passes
positive values as they are, and a new normalisation does nothing. Computed in double precision and given as a
logarithm, since flow multiplies from layer to layer; where even that overflows (blocks that multiply features) there is
no score.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evaluators.zero_cost._twin import ACTIVATIONS, NORMALISATIONS, tensors, twin
from search_spaces.image_size import ImageSize

SIZE = 64  # pixels of the image of ones: more would only repeat the same


def score(network: nn.Module, images: Tensor, imgsz: ImageSize, baseline: nn.Module | None) -> float:
    """Logarithm of the sum over weights of weight times derivative of all outputs' sum; higher is better."""
    with twin(network) as copy:
        copy.double()
        for module in list(copy.modules()):
            for name, child in module.named_children():
                if isinstance(child, ACTIVATIONS + NORMALISATIONS):
                    setattr(module, name, nn.Identity())
        weights = [weight for weight in copy.parameters() if weight.requires_grad]
        with torch.no_grad():
            for weight in copy.parameters():
                weight.abs_()
        outputs = copy(torch.ones(1, 3, SIZE, SIZE, dtype=torch.float64))
        total = torch.stack([output.sum() for output in tensors(outputs)]).sum()
        slopes = torch.autograd.grad(total, weights, allow_unused=True)
        pairs = zip(weights, slopes, strict=True)
        flow = sum(float((weight.detach() * slope).sum()) for weight, slope in pairs if slope is not None)
    return math.log(flow) if flow > 0 else math.nan

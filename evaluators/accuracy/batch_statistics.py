"""Statistics that batch normalisation uses outside of training.

In training they are means over the last few dozen steps. Early on, weights move faster than that: mAP then says how far
statistics lag behind rather than what was learned, and orders networks by it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def measure_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch normalisation the statistics of these batches of images; weights stay."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta, training = [norm.momentum for norm in norms], network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(training)

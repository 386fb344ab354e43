"""ShuffleV2: half of the channels pass untouched, half through a depthwise unit; then the halves are shuffled.

Paper: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, arXiv:1807.11164.
Reference: torchvision's InvertedResidual (BSD-3-Clause). The paper activates with ReLU; a search uses SiLU, as the
rest of the detector does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` equal parts: (N, C, H, W) to the same shape."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    """The paper's unit with stride 1: (N, C, H, W) to the same shape; C even."""

    def __init__(self, chs: int, act: nn.Module | bool = True):
        super().__init__()
        half = chs // 2
        self.branch = nn.Sequential(
            Conv(half, half, 1, act=act),
            Conv(half, half, 3, g=half, act=False),
            Conv(half, half, 1, act=act),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform the second half of the channels and shuffle."""
        kept, changed = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((kept, self.branch(changed)), dim=1), 2)


@register_block("ShuffleV2", paper="ShuffleNet V2, arXiv:1807.11164", licence="BSD-3-Clause (torchvision)")
class ShuffleV2(nn.Sequential):
    """`depth` shuffle units, after a 1×1 projection where the width changes."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1):
        projection = [] if in_chs == out_chs else [Conv(in_chs, out_chs, 1)]
        super().__init__(*projection, *(ShuffleUnit(out_chs) for _ in range(depth)))

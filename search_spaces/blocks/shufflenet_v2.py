"""ShuffleV2: half of the channels pass untouched, half through a depthwise unit; then the halves are shuffled.

Where it halves the resolution no channel passes untouched: both branches see the whole input and give half of the
output each.
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


class ShuffleDown(nn.Module):
    """The paper's unit with stride 2: (N, in_chs, H, W) to (N, out_chs, H / 2, W / 2), rounded up; out_chs even."""

    def __init__(self, in_chs: int, out_chs: int, act: nn.Module | bool = True):
        super().__init__()
        half = out_chs // 2
        self.shallow = nn.Sequential(
            Conv(in_chs, in_chs, 3, 2, g=in_chs, act=False),
            Conv(in_chs, half, 1, act=act),
        )
        self.deep = nn.Sequential(
            Conv(in_chs, half, 1, act=act),
            Conv(half, half, 3, 2, g=half, act=False),
            Conv(half, half, 1, act=act),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform all channels in both branches and shuffle."""
        return channel_shuffle(torch.cat((self.shallow(x), self.deep(x)), dim=1), 2)


@register_block(
    "ShuffleV2",
    paper="ShuffleNet V2, arXiv:1807.11164",
    licence="BSD-3-Clause (torchvision)",
    roles=("stage", "downsample"),
)
class ShuffleV2(nn.Sequential):
    """`depth` shuffle units: the first halves the resolution, or else a 1×1 projection goes before a new width."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        first: list[nn.Module] = []
        if stride == 2:
            first = [ShuffleDown(in_chs, out_chs)]
            depth -= 1
        elif in_chs != out_chs:
            first = [Conv(in_chs, out_chs, 1)]
        super().__init__(*first, *(ShuffleUnit(out_chs) for _ in range(depth)))

"""FasterNet: a 3×3 convolution of a quarter of the channels, then a two-layer perceptron of all of them per pixel.

Paper: Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks, arXiv:2303.03667. Original code: MIT.
Reference: timm's fasternet (Apache-2.0).
The paper's models activate with GELU or ReLU; a search uses SiLU, as the rest of the detector does. It lowers the
resolution between stages with an ordinary strided convolution, which is not a form of this block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block


class PartialConv(nn.Module):
    """3×3 convolution of the first quarter of the channels; the others pass untouched. (N, C, H, W) to the same shape.

    C is at least 4.
    """

    def __init__(self, chs: int):
        super().__init__()
        self.changed = chs // 4
        self.conv = nn.Conv2d(self.changed, self.changed, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the first channels."""
        return torch.cat((self.conv(x[:, : self.changed]), x[:, self.changed :]), dim=1)


class FasterNetUnit(nn.Module):
    """The paper's block: (N, C, H, W) to the same shape."""

    def __init__(self, chs: int, mlp_ratio: int = 2, act: nn.Module | bool = True):
        super().__init__()
        self.spatial_mixing = PartialConv(chs)
        self.fc1 = Conv(chs, mlp_ratio * chs, 1, act=act)
        self.fc2 = nn.Conv2d(mlp_ratio * chs, chs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix pixels, then channels, and add."""
        out: Tensor = x + self.fc2(self.fc1(self.spatial_mixing(x)))
        return out


@register_block("FasterNet", paper="Run, Don't Walk (FasterNet), arXiv:2303.03667", licence="MIT (original)")
class FasterNet(nn.Sequential):
    """`depth` FasterNet units, after a 1×1 projection where the width changes."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1):
        projection = [] if in_chs == out_chs else [Conv(in_chs, out_chs, 1)]
        super().__init__(*projection, *(FasterNetUnit(out_chs) for _ in range(depth)))

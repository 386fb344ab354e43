"""ConvNeXt: 7×7 depthwise convolution, layer normalisation, a wide two-layer perceptron per pixel, a residual.

With the paper's two ways to lower the resolution: `ConvNeXtStem` cuts the image into patches, `ConvNeXtDown` stands
between stages.
Paper: A ConvNet for the 2020s, arXiv:2201.03545. Reference: timm's ConvNeXtBlock, and the stem and downsampling of its
ConvNeXt (Apache-2.0; original code MIT).
Normalisation (LayerNorm) and activation (GELU) are the paper's, also in a search that chooses no activation. The paper
starts the layer scale at 1e-6, for stages of up to 27 units trained for 300 epochs; a search stacks a few and trains
them briefly, where that start leaves a stage at the identity, so it starts at 1. The paper's patches are 4×4; a search
takes 2×2, because a detector's second map (P1) is at half the image's resolution.
The perceptron is written as 1×1 convolutions: the same function as the reference's Linear layers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block

PAPER = "A ConvNet for the 2020s, arXiv:2201.03545"
LICENCE = "MIT (original)"


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the channels of (N, C, H, W).

    Not a subclass of `nn.LayerNorm`, whose elementwise work thop would count as multiply-adds.
    """

    def __init__(self, chs: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(chs))
        self.bias = nn.Parameter(torch.zeros(chs))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel's channel vector."""
        normalised = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return normalised.permute(0, 3, 1, 2)


class ConvNeXtUnit(nn.Module):
    """The paper's block: (N, C, H, W) to the same shape."""

    def __init__(self, chs: int, mlp_ratio: int = 4, layer_scale: float = 1.0):
        super().__init__()
        self.conv_dw = nn.Conv2d(chs, chs, 7, padding=3, groups=chs)
        self.norm = ChannelLayerNorm(chs)
        self.fc1 = nn.Conv2d(chs, mlp_ratio * chs, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(mlp_ratio * chs, chs, 1)
        self.gamma = nn.Parameter(torch.full((1, chs, 1, 1), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Add the transformed features to the input."""
        out: Tensor = x + self.gamma * self.fc2(self.act(self.fc1(self.norm(self.conv_dw(x)))))
        return out


@register_block("ConvNeXt", paper=PAPER, licence=LICENCE)
class ConvNeXt(nn.Sequential):
    """`depth` ConvNeXt units, after a 1×1 projection where the width changes."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1):
        projection = [] if in_chs == out_chs else [Conv(in_chs, out_chs, 1)]
        super().__init__(*projection, *(ConvNeXtUnit(out_chs) for _ in range(depth)))


@register_block("ConvNeXtStem", paper=PAPER, licence=LICENCE, roles=("downsample",))
class ConvNeXtStem(nn.Sequential):
    """Patches that do not overlap, normalised: (N, in_chs, H, W) to (N, out_chs, H / stride, W / stride), rounded down.

    `stride` is the side of a patch. There is one layer: a row's repeats are taken for Ultralytics' sake and must be 1.

    Raises:
        ValueError: If `depth` is not 1.
    """

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 2):
        _expect_one(depth)
        super().__init__(nn.Conv2d(in_chs, out_chs, stride, stride), ChannelLayerNorm(out_chs))


@register_block("ConvNeXtDown", paper=PAPER, licence=LICENCE, roles=("downsample",))
class ConvNeXtDown(nn.Sequential):
    """Normalised, then patches: (N, in_chs, H, W) to (N, out_chs, H / stride, W / stride), rounded down.

    There is one layer: a row's repeats are taken for Ultralytics' sake and must be 1.

    Raises:
        ValueError: If `depth` is not 1.
    """

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 2):
        _expect_one(depth)
        super().__init__(ChannelLayerNorm(in_chs), nn.Conv2d(in_chs, out_chs, stride, stride))


def _expect_one(depth: int) -> None:
    if depth != 1:
        raise ValueError(f"a downsampling of ConvNeXt is one layer, not {depth}: put ConvNeXt units after it")

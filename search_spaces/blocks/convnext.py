"""ConvNeXt: 7×7 depthwise convolution, layer normalisation, a wide two-layer perceptron per pixel, a residual.

Paper: A ConvNet for the 2020s, arXiv:2201.03545. Reference: timm's ConvNeXtBlock (Apache-2.0; original code MIT).
Normalisation (LayerNorm) and activation (GELU) are the paper's, also in a search. The paper starts the layer scale
at 1e-6, for stages of up to 27 units trained for 300 epochs; a search stacks a few and trains them briefly, where that
start leaves a stage at the identity, so it starts at 1.
The perceptron is written as 1×1 convolutions: the same function as the reference's Linear layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel's channel vector."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtUnit(nn.Module):
    """The paper's block: (N, C, H, W) to the same shape."""

    def __init__(self, chs: int, mlp_ratio: int = 4, layer_scale: float = 1.0):
        super().__init__()
        self.conv_dw = nn.Conv2d(chs, chs, 7, padding=3, groups=chs)
        self.norm = ChannelLayerNorm(chs, eps=1e-6)
        self.fc1 = nn.Conv2d(chs, mlp_ratio * chs, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(mlp_ratio * chs, chs, 1)
        self.gamma = nn.Parameter(torch.full((1, chs, 1, 1), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Add the transformed features to the input."""
        out: Tensor = x + self.gamma * self.fc2(self.act(self.fc1(self.norm(self.conv_dw(x)))))
        return out


@register_block("ConvNeXt", paper="A ConvNet for the 2020s, arXiv:2201.03545", licence="MIT (original)")
class ConvNeXt(nn.Sequential):
    """`depth` ConvNeXt units, after a 1×1 projection where the width changes."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1):
        projection = [] if in_chs == out_chs else [Conv(in_chs, out_chs, 1)]
        super().__init__(*projection, *(ConvNeXtUnit(out_chs) for _ in range(depth)))

"""FocalModulation: each pixel is multiplied by a modulator gathered from ever larger surroundings.

Paper: Focal Modulation Networks, arXiv:2203.11926. Reference: timm's FocalModulation (Apache-2.0; original MIT).
The activation is the paper's GELU, also in a search that chooses none.
The paper's block puts LayerNorm before the module, a residual around both, and a perceptron after them. A search
leaves the perceptron out. It keeps LayerNorm, without which a chain of units diverges, because the module multiplies
features by features. The module's last projection is also followed by batch normalisation, which is folded into it
for export and measurement; with the plain projection a unit starts near the identity and stays there in a brief
training.
"""

from __future__ import annotations

from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.blocks.convnext import ChannelLayerNorm
from search_spaces.registry import register_block


class Modulation(nn.Module):
    """Focal modulation: (N, C, H, W) to the same shape.

    Level l gathers context with a depthwise convolution of `focal_window + 2 l` pixels; one more level is the mean of
    the whole map. Gates, one per pixel and level, weigh them. The last projection is the paper's, a 1×1 convolution
    with bias, or `normalised` by batch statistics.
    """

    def __init__(self, chs: int, focal_window: int = 3, focal_level: int = 2, normalised: bool = False):
        super().__init__()
        self.splits = (chs, chs, focal_level + 1)
        self.f = nn.Conv2d(chs, sum(self.splits), 1)
        self.act = nn.GELU()
        sizes = [focal_window + 2 * level for level in range(focal_level)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(chs, chs, k, padding=k // 2, groups=chs, bias=False), nn.GELU()) for k in sizes
        )
        self.h = nn.Conv2d(chs, chs, 1)
        self.proj = Conv(chs, chs, 1, act=False) if normalised else nn.Conv2d(chs, chs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gather, gate and multiply."""
        query, context, gates = self.f(x).split(self.splits, dim=1)
        modulator = 0
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            modulator = modulator + context * gates[:, level : level + 1]
        everywhere = self.act(context.mean((2, 3), keepdim=True))
        modulator = modulator + everywhere * gates[:, -1:]
        out: Tensor = self.proj(query * self.h(modulator))
        return out


class FocalUnit(nn.Module):
    """`Modulation` with normalisation before and after it and a residual around: (N, C, H, W) to the same shape."""

    def __init__(self, chs: int):
        super().__init__()
        self.norm = ChannelLayerNorm(chs)
        self.modulation = Modulation(chs, normalised=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add the modulated features to the input."""
        out: Tensor = x + self.modulation(self.norm(x))
        return out


@register_block("FocalModulation", paper="Focal Modulation Networks, arXiv:2203.11926", licence="MIT (original)")
class FocalModulation(nn.Sequential):
    """`depth` focal units, after a 1×1 projection where the width changes."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1):
        projection = [] if in_chs == out_chs else [Conv(in_chs, out_chs, 1)]
        super().__init__(*projection, *(FocalUnit(out_chs) for _ in range(depth)))

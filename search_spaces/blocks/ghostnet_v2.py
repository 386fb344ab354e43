"""GhostV2: a ghost bottleneck whose expanded features are gated by decoupled fully connected (DFC) attention.

Paper: GhostNetV2: Enhance Cheap Operation with Long-Range Attention, arXiv:2211.12905. Reference: timm's
GhostModuleV2 and GhostBottleneck in mode 'attn' (Apache-2.0).
The paper activates with ReLU; a search uses SiLU, as the rest of the detector does. Expansion is 2, of the output's
width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block


class GhostModule(nn.Module):
    """(N, in_chs, H, W) to (N, out_chs, H, W): half by a 1×1 convolution, half by a 3×3 depthwise one on that."""

    def __init__(self, in_chs: int, out_chs: int, act: nn.Module | bool = True):
        super().__init__()
        self.out_chs = out_chs
        half = -(-out_chs // 2)
        self.primary = Conv(in_chs, half, 1, act=act)
        self.cheap = Conv(half, half, 3, g=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate primary and cheap features."""
        y = self.primary(x)
        return torch.cat((y, self.cheap(y)), dim=1)[:, : self.out_chs]


class GhostModuleV2(GhostModule):
    """A ghost module multiplied by DFC attention, computed at half the resolution along rows and columns."""

    def __init__(self, in_chs: int, out_chs: int, act: nn.Module | bool = True):
        super().__init__(in_chs, out_chs, act)
        self.attention = nn.Sequential(
            Conv(in_chs, out_chs, 1, act=False),
            Conv(out_chs, out_chs, (1, 5), p=(0, 2), g=out_chs, act=False),
            Conv(out_chs, out_chs, (5, 1), p=(2, 0), g=out_chs, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Gate the ghost features."""
        # A map of a single row or column cannot be halved; the reference fails on it. Written so that an exporter, to
        # which sizes are tensors, still sees numbers.
        window = [1 if side == 1 else 2 for side in x.shape[2:]]
        gate = torch.sigmoid(self.attention(F.avg_pool2d(x, window, window)))
        return super().forward(x) * F.interpolate(gate, size=x.shape[2:], mode="nearest")


class GhostV2Unit(nn.Module):
    """The paper's bottleneck with stride 1: (N, C, H, W) to the same shape."""

    def __init__(self, chs: int, expand_ratio: int = 2, act: nn.Module | bool = True):
        super().__init__()
        self.ghost1 = GhostModuleV2(chs, expand_ratio * chs, act)
        self.ghost2 = GhostModule(expand_ratio * chs, chs, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Expand with attention, project, add."""
        out: Tensor = x + self.ghost2(self.ghost1(x))
        return out


class GhostV2Down(nn.Module):
    """The paper's bottleneck with stride 2: (N, in_chs, H, W) to (N, out_chs, H / 2, W / 2), rounded up."""

    def __init__(self, in_chs: int, out_chs: int, expand_ratio: int = 2, act: nn.Module | bool = True):
        super().__init__()
        expanded = expand_ratio * out_chs
        self.ghost1 = GhostModuleV2(in_chs, expanded, act)
        self.conv_dw = Conv(expanded, expanded, 3, 2, g=expanded, act=False)
        self.ghost2 = GhostModule(expanded, out_chs, act=False)
        self.shortcut = nn.Sequential(
            Conv(in_chs, in_chs, 3, 2, g=in_chs, act=False),
            Conv(in_chs, out_chs, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Expand with attention, halve, project, add what a depthwise shortcut gives."""
        out: Tensor = self.shortcut(x) + self.ghost2(self.conv_dw(self.ghost1(x)))
        return out


@register_block(
    "GhostV2",
    paper="GhostNetV2, arXiv:2211.12905",
    licence="Apache-2.0 (original)",
    roles=("stage", "downsample"),
)
class GhostV2(nn.Sequential):
    """`depth` GhostNetV2 bottlenecks: the first halves the resolution, or a 1×1 projection goes before a new width."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        first: list[nn.Module] = []
        if stride == 2:
            first = [GhostV2Down(in_chs, out_chs)]
            depth -= 1
        elif in_chs != out_chs:
            first = [Conv(in_chs, out_chs, 1)]
        super().__init__(*first, *(GhostV2Unit(out_chs) for _ in range(depth)))

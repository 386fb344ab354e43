"""StarNet: two 1×1 convolutions of the same features are multiplied, between two 7×7 depthwise convolutions.

Paper: Rewrite the Stars, arXiv:2403.19967. Original code: MIT. Reference: timm's starnet (Apache-2.0).
Expansion is the paper's 4. The paper activates one factor with ReLU6; a search uses SiLU, as the rest of the detector
does. In the reference a convolution before a normalisation also has a bias, which the normalisation's mean takes up;
here it has none. The paper lowers the resolution between stages with an ordinary strided convolution, which is not a
form of this block.
"""

from __future__ import annotations

from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block


class StarUnit(nn.Module):
    """The paper's block: (N, C, H, W) to the same shape."""

    def __init__(self, chs: int, mlp_ratio: int = 4, act: nn.Module | bool = True):
        super().__init__()
        self.dwconv = Conv(chs, chs, 7, g=chs, act=False)
        self.f1 = nn.Conv2d(chs, mlp_ratio * chs, 1)
        self.f2 = nn.Conv2d(chs, mlp_ratio * chs, 1)
        self.act = Conv.default_act if act is True else act or nn.Identity()
        self.g = Conv(mlp_ratio * chs, chs, 1, act=False)
        self.dwconv2 = nn.Conv2d(chs, chs, 7, padding=3, groups=chs)

    def forward(self, x: Tensor) -> Tensor:
        """Filter, multiply, project, filter again, and add."""
        features = self.dwconv(x)
        product = self.act(self.f1(features)) * self.f2(features)
        out: Tensor = x + self.dwconv2(self.g(product))
        return out


@register_block("StarNet", paper="Rewrite the Stars, arXiv:2403.19967", licence="MIT (original)")
class StarNet(nn.Sequential):
    """`depth` star units, after a 1×1 projection where the width changes."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1):
        projection = [] if in_chs == out_chs else [Conv(in_chs, out_chs, 1)]
        super().__init__(*projection, *(StarUnit(out_chs) for _ in range(depth)))

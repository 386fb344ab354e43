"""UIB: MobileNetV4's universal inverted bottleneck, with a depthwise convolution before the expansion and one after it.

Paper: MobileNetV4: Universal Models for the Mobile Ecosystem, arXiv:2404.10518. Reference: timm's
UniversalInvertedResidual (Apache-2.0; original code Apache-2.0).
Of the paper's four forms this is "ExtraDW", the one with both depthwise convolutions: 3×3 at the start, 5×5 in the
middle, where the stride is. Expansion is 4. The paper activates with ReLU; a search uses SiLU, as the rest of the
detector does. There is no layer scale: the paper's convolutional models have none.
"""

from __future__ import annotations

from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block


class UniversalInvertedBottleneck(nn.Module):
    """The paper's ExtraDW block: (N, in_chs, H, W) to (N, out_chs, H / stride, W / stride), rounded up.

    The input is added where it has the output's shape.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        stride: int = 1,
        expand_ratio: int = 4,
        act: nn.Module | bool = True,
    ):
        super().__init__()
        expanded = expand_ratio * in_chs
        self.residual = stride == 1 and in_chs == out_chs
        self.dw_start = Conv(in_chs, in_chs, 3, g=in_chs, act=False)
        self.pw_exp = Conv(in_chs, expanded, 1, act=act)
        self.dw_mid = Conv(expanded, expanded, 5, stride, g=expanded, act=act)
        self.pw_proj = Conv(expanded, out_chs, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Filter, expand, filter again, project."""
        out: Tensor = self.pw_proj(self.dw_mid(self.pw_exp(self.dw_start(x))))
        return x + out if self.residual else out


@register_block(
    "UIB",
    paper="MobileNetV4: Universal Models for the Mobile Ecosystem, arXiv:2404.10518",
    licence="Apache-2.0 (original)",
    roles=("stage", "downsample"),
)
class UIB(nn.Sequential):
    """`depth` universal inverted bottlenecks, of which the first sets width and resolution."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(
            UniversalInvertedBottleneck(in_chs, out_chs, stride),
            *(UniversalInvertedBottleneck(out_chs, out_chs) for _ in range(depth - 1)),
        )

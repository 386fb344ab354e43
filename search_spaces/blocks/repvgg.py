"""RepVGG: a 3×3 convolution, a 1×1 convolution and the identity, added in training and one 3×3 convolution afterwards.

Paper: RepVGG: Making VGG-style ConvNets Great Again, arXiv:2101.03697. Original code: MIT.
The unit is Ultralytics' `RepConv` (AGPL-3.0), used, not copied: every branch has batch normalisation, and `fuse()`
turns the three into a single convolution for export and measurement. Reference: timm's RepVggBlock (Apache-2.0).
The paper activates with ReLU; a search uses SiLU, as the rest of the detector does. The first unit sets width and
resolution itself and has no identity where either changes, as in the paper.
"""

from __future__ import annotations

from torch import nn
from ultralytics.nn.modules import RepConv

from search_spaces.registry import register_block


@register_block(
    "RepVGG",
    paper="RepVGG: Making VGG-style ConvNets Great Again, arXiv:2101.03697",
    licence="MIT (original), AGPL-3.0 (Ultralytics)",
    roles=("stage", "downsample"),
)
class RepVGG(nn.Sequential):
    """`depth` re-parameterised convolutions: (N, in_chs, H, W) to (N, out_chs, H / stride, W / stride), rounded up."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1, act: nn.Module | bool = True):
        super().__init__(
            RepConv(in_chs, out_chs, 3, stride, act=act, bn=True),
            *(RepConv(out_chs, out_chs, 3, 1, act=act, bn=True) for _ in range(depth - 1)),
        )

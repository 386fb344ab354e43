"""MBConv3, MBConv5 and MBConv7: channels are expanded, filtered one by one with 3, 5 or 7 pixels, and projected back.

Paper: MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv:1801.04381; it has kernels of 3. Larger ones come
from hardware-aware searches (ProxylessNAS, arXiv:1812.00332). Reference: timm's InvertedResidual (Apache-2.0).
The paper expands six times and activates with ReLU6. A search expands four times, as MobileNetV4 does for most of its
layers, and uses SiLU, as the rest of the detector does. There is no squeeze-and-excitation: it is EfficientNet's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import Place, register_block


class InvertedResidual(nn.Module):
    """The paper's block: (N, in_chs, H, W) to (N, out_chs, H / stride, W / stride), rounded up.

    The input is added where it has the output's shape.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int = 3,
        stride: int = 1,
        expand_ratio: int = 4,
        act: nn.Module | bool = True,
    ):
        super().__init__()
        expanded = expand_ratio * in_chs
        self.residual = stride == 1 and in_chs == out_chs
        self.conv_pw = Conv(in_chs, expanded, 1, act=act)
        self.conv_dw = Conv(expanded, expanded, kernel_size, stride, g=expanded, act=act)
        self.conv_pwl = Conv(expanded, out_chs, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Expand, filter, project."""
        out: Tensor = self.conv_pwl(self.conv_dw(self.conv_pw(x)))
        return x + out if self.residual else out


class MBConv(nn.Sequential):
    """`depth` inverted residuals, of which the first sets width and resolution."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, kernel_size: int = 3, stride: int = 1):
        super().__init__(
            InvertedResidual(in_chs, out_chs, kernel_size, stride),
            *(InvertedResidual(out_chs, out_chs, kernel_size) for _ in range(depth - 1)),
        )


def _arguments(kernel_size: int, place: Place) -> tuple[Any, ...]:
    return (kernel_size, place.stride)


for _kernel_size in (3, 5, 7):
    register_block(
        f"MBConv{_kernel_size}",
        paper="MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv:1801.04381",
        licence="Apache-2.0 (timm)",
        roles=("stage", "downsample"),
        arguments=partial(_arguments, _kernel_size),
    )(MBConv)

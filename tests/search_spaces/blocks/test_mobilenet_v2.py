from __future__ import annotations

import pytest
import torch
from timm.models._efficientnet_blocks import InvertedResidual as Reference
from torch import nn

from search_spaces.blocks import get_block
from search_spaces.blocks.mobilenet_v2 import InvertedResidual, MBConv
from search_spaces.contract import randomise


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize(("in_chs", "out_chs", "stride"), [(16, 16, 1), (16, 24, 1), (16, 24, 2), (16, 16, 2)])
def test_a_unit_is_timm_s(in_chs: int, out_chs: int, stride: int, kernel_size: int, training: bool) -> None:
    torch.manual_seed(0)
    reference = Reference(in_chs, out_chs, kernel_size, stride, exp_ratio=4.0, act_layer=nn.ReLU6)
    unit = InvertedResidual(in_chs, out_chs, kernel_size, stride, act=nn.ReLU6())
    randomise(reference).train(training)
    # Both have three times convolution and normalisation, under other names.
    unit.load_state_dict(dict(zip(unit.state_dict(), reference.state_dict().values(), strict=True)))
    unit.train(training)
    for size in [(13, 9), (12, 8), (7, 7), (1, 5), (1, 1)]:
        image = torch.randn(2, in_chs, *size)
        with torch.no_grad():
            torch.testing.assert_close(unit(image), reference(image), rtol=1e-5, atol=1e-5)


def test_only_the_first_unit_changes_width_and_resolution() -> None:
    first, second, third = MBConv(16, 24, 3, 5, 2)
    assert (first.conv_pw.conv.in_channels, first.conv_dw.conv.stride, first.residual) == (16, (2, 2), False)
    for unit in (second, third):
        assert (unit.conv_pw.conv.in_channels, unit.conv_dw.conv.stride, unit.residual) == (24, (1, 1), True)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_name_is_a_kernel_size(kernel_size: int, stride: int) -> None:
    depth = 1 if stride == 2 else 2  # a downsampling is one unit
    built = get_block(f"MBConv{kernel_size}").build(16, 24, depth, stride)
    assert [unit.conv_dw.conv.kernel_size for unit in built] == [(kernel_size, kernel_size)] * depth
    assert [unit.conv_dw.conv.stride[0] for unit in built] == [stride, 1][:depth]

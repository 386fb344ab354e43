from __future__ import annotations

import pytest
import torch
from timm.models._efficientnet_blocks import UniversalInvertedResidual
from torch import nn

from search_spaces.blocks.mobilenet_v4 import UIB, UniversalInvertedBottleneck
from search_spaces.contract import randomise


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("in_chs", "out_chs", "stride"), [(16, 16, 1), (16, 24, 1), (16, 24, 2), (16, 16, 2)])
def test_a_unit_is_timm_s(in_chs: int, out_chs: int, stride: int, training: bool) -> None:
    torch.manual_seed(0)
    reference = UniversalInvertedResidual(
        in_chs,
        out_chs,
        dw_kernel_size_start=3,
        dw_kernel_size_mid=5,
        stride=stride,
        exp_ratio=4.0,
        layer_scale_init_value=None,
    )
    unit = UniversalInvertedBottleneck(in_chs, out_chs, stride, act=nn.ReLU())
    randomise(reference).train(training)
    # Both have four times convolution and normalisation, under other names.
    unit.load_state_dict(dict(zip(unit.state_dict(), reference.state_dict().values(), strict=True)))
    unit.train(training)
    for size in [(13, 9), (12, 8), (7, 7), (1, 5), (1, 1)]:
        image = torch.randn(2, in_chs, *size)
        with torch.no_grad():
            torch.testing.assert_close(unit(image), reference(image), rtol=1e-5, atol=1e-5)


def test_only_the_first_unit_changes_width_and_resolution() -> None:
    first, second = UIB(16, 24, 2, 2)
    assert (first.pw_exp.conv.in_channels, first.dw_mid.conv.stride, first.residual) == (16, (2, 2), False)
    assert (second.pw_exp.conv.in_channels, second.dw_mid.conv.stride, second.residual) == (24, (1, 1), True)

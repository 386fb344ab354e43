from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.shufflenetv2 import InvertedResidual

from search_spaces.blocks.shufflenet_v2 import ShuffleDown, ShuffleUnit, ShuffleV2, channel_shuffle
from search_spaces.contract import randomise


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("in_chs", "out_chs", "stride"), [(24, 24, 1), (16, 24, 2), (24, 24, 2), (3, 16, 2)])
def test_a_unit_is_torchvision_s(in_chs: int, out_chs: int, stride: int, training: bool) -> None:
    torch.manual_seed(0)
    reference = randomise(InvertedResidual(in_chs, out_chs, stride)).train(training)
    unit = ShuffleUnit(out_chs, nn.ReLU()) if stride == 1 else ShuffleDown(in_chs, out_chs, nn.ReLU())
    unit.train(training)
    # Both have convolution, normalisation, convolution ... in the same order, under other names.
    unit.load_state_dict(dict(zip(unit.state_dict(), reference.state_dict().values(), strict=True)))
    for size in [(13, 9), (12, 8), (7, 7), (1, 5), (1, 1)]:
        image = torch.randn(2, in_chs, *size)
        with torch.no_grad():
            torch.testing.assert_close(unit(image), reference(image), rtol=1e-5, atol=1e-5)


def test_channels_are_interleaved() -> None:
    channels = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert channel_shuffle(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(channels, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_only_the_first_unit_has_the_stride() -> None:
    assert [type(unit) for unit in ShuffleV2(16, 24, 3, 2)] == [ShuffleDown, ShuffleUnit, ShuffleUnit]

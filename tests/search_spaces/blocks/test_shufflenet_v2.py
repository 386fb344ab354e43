from __future__ import annotations

import torch
from torch import nn
from torchvision.models.shufflenetv2 import InvertedResidual

from search_spaces.blocks.shufflenet_v2 import ShuffleUnit, channel_shuffle


def test_a_unit_is_torchvision_s() -> None:
    torch.manual_seed(0)
    reference = InvertedResidual(24, 24, stride=1).eval()
    for norm in reference.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    unit = ShuffleUnit(24, act=nn.ReLU()).eval()
    # Both have convolution, normalisation, convolution ... in the same order, under other names.
    unit.load_state_dict(dict(zip(unit.state_dict(), reference.state_dict().values(), strict=True)))
    image = torch.randn(2, 24, 13, 9)
    with torch.no_grad():
        torch.testing.assert_close(unit(image), reference(image))


def test_channels_are_interleaved() -> None:
    channels = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert channel_shuffle(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(channels, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]

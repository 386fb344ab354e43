from __future__ import annotations

from functools import partial

import pytest
import torch
from timm.models.fasternet import MLPBlock, Partial_conv3
from torch import nn

from search_spaces.blocks.fasternet import FasterNetUnit, PartialConv
from search_spaces.contract import randomise

SIZES = [(13, 9), (7, 7), (1, 5), (1, 1)]
NAMES = {
    "mlp.0.": "fc1.conv.",
    "mlp.1.": "fc1.bn.",
    "mlp.3.": "fc2.",
    "spatial_mixing.partial_conv3.": "spatial_mixing.conv.",
}


@pytest.mark.parametrize("chs", [8, 16, 40])
def test_partial_convolution_is_timm_s(chs: int) -> None:
    torch.manual_seed(0)
    reference, module = Partial_conv3(chs, 4, "split_cat").eval(), PartialConv(chs).eval()
    module.load_state_dict({"conv.weight": reference.partial_conv3.weight})
    for size in SIZES:
        image = torch.randn(2, chs, *size)
        with torch.no_grad():
            torch.testing.assert_close(module(image), reference(image), rtol=1e-5, atol=1e-5)
            assert torch.equal(module(image)[:, chs // 4 :], image[:, chs // 4 :])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU])
def test_a_unit_is_timm_s(act: type[nn.Module], training: bool) -> None:
    torch.manual_seed(0)
    reference = randomise(MLPBlock(16, 4, 2.0, 0.0, 0.0, act_layer=partial(act))).train(training)
    unit = FasterNetUnit(16, act=act()).train(training)
    weights = {}
    for key, value in reference.state_dict().items():
        layer = next(name for name in NAMES if key.startswith(name))
        weights[NAMES[layer] + key.removeprefix(layer)] = value
    unit.load_state_dict(weights)
    for size in SIZES:
        image = torch.randn(2, 16, *size)
        with torch.no_grad():
            torch.testing.assert_close(unit(image), reference(image), rtol=1e-5, atol=1e-5)

from __future__ import annotations

import pytest
import torch
from timm.models.byobnet import RepVggBlock
from torch import nn

from search_spaces.blocks.repvgg import RepVGG
from search_spaces.contract import fuse, randomise

NAMES = {"identity.": "0.bn.", "conv_kxk.": "0.conv1.", "conv_1x1.": "0.conv2."}
SHAPES = [(16, 16, 1), (16, 24, 1), (16, 24, 2), (16, 16, 2), (3, 16, 2)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("in_chs", "out_chs", "stride"), SHAPES)
def test_a_unit_is_timm_s(in_chs: int, out_chs: int, stride: int, training: bool) -> None:
    torch.manual_seed(0)
    reference = randomise(RepVggBlock(in_chs, out_chs, stride=stride)).train(training)
    block = RepVGG(in_chs, out_chs, 1, stride, act=nn.ReLU()).train(training)
    weights = {}
    for key, value in reference.state_dict().items():
        branch = next(name for name in NAMES if key.startswith(name))
        weights[NAMES[branch] + key.removeprefix(branch)] = value
    block.load_state_dict(weights)
    for size in [(13, 9), (12, 8), (7, 7), (1, 5), (1, 1)]:
        image = torch.randn(2, in_chs, *size)
        with torch.no_grad():
            torch.testing.assert_close(block(image), reference(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("in_chs", "out_chs", "stride"), SHAPES)
def test_fused_a_unit_is_a_single_convolution(in_chs: int, out_chs: int, stride: int) -> None:
    torch.manual_seed(0)
    block, image = randomise(RepVGG(in_chs, out_chs, 2, stride)).eval(), torch.randn(2, in_chs, 13, 9)
    fused = fuse(block)
    leaves = [module for module in fused.modules() if not list(module.children())]
    assert [type(leaf) for leaf in leaves if list(leaf.parameters())] == [nn.Conv2d, nn.Conv2d]
    assert [(unit.conv.kernel_size, unit.conv.stride[0]) for unit in fused] == [((3, 3), stride), ((3, 3), 1)]
    with torch.no_grad():
        torch.testing.assert_close(fused(image), block(image), rtol=1e-5, atol=1e-5)


def test_a_unit_has_an_identity_where_nothing_changes() -> None:
    assert [unit.bn is None for unit in RepVGG(16, 24, 3)] == [True, False, False]
    assert [unit.bn is None for unit in RepVGG(16, 16, 2)] == [False, False]
    assert [unit.bn is None for unit in RepVGG(16, 16, 2, 2)] == [True, False]

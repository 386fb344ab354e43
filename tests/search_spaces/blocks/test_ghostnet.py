from __future__ import annotations

import pytest
import torch
from timm.models.ghostnet import GhostModule
from torch import nn
from ultralytics.nn.modules import C2f, GhostBottleneck, GhostConv

from search_spaces.blocks.ghostnet import C2fGhost
from search_spaces.contract import randomise


def test_it_is_c2f_with_ghost_bottlenecks() -> None:
    torch.manual_seed(0)
    block, stock = C2fGhost(16, 24, 2).eval(), C2f(16, 24, 2).eval()
    assert [type(unit) for unit in block.m] == [GhostBottleneck, GhostBottleneck]
    stock.cv1, stock.cv2, stock.m = block.cv1, block.cv2, block.m
    image = torch.randn(1, 16, 13, 9)
    with torch.no_grad():
        assert torch.equal(block(image), stock(image))
        torch.testing.assert_close(block.forward_split(image), block(image))


def test_shortcut_has_no_effect() -> None:
    blocks = [C2fGhost(16, 16, 1, shortcut) for shortcut in (True, False)]
    blocks[1].load_state_dict(blocks[0].state_dict())
    image = torch.randn(1, 16, 7, 7)
    with torch.no_grad():
        assert torch.equal(blocks[0].eval()(image), blocks[1].eval()(image))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_ultralytics_ghost_conv_is_the_paper_s_module_with_a_larger_cheap_kernel(
    kernel_size: int, stride: int, training: bool
) -> None:
    torch.manual_seed(0)
    reference = randomise(GhostModule(16, 24, kernel_size, dw_size=5, stride=stride, act_layer=nn.SiLU))
    block = GhostConv(16, 24, kernel_size, stride)
    # Both have convolution, normalisation, convolution, normalisation, under other names.
    block.load_state_dict(dict(zip(block.state_dict(), reference.state_dict().values(), strict=True)))
    block.train(training)
    reference.train(training)
    for size in [(13, 9), (7, 7), (1, 5)]:
        image = torch.randn(2, 16, *size)
        with torch.no_grad():
            torch.testing.assert_close(block(image), reference(image), rtol=1e-5, atol=1e-5)


def test_ultralytics_ghost_bottleneck_narrows_to_half_and_adds() -> None:
    torch.manual_seed(0)
    unit, image = randomise(GhostBottleneck(16, 16)).eval(), torch.randn(2, 16, 13, 9)
    narrow, middle, wide = unit.conv
    assert isinstance(middle, nn.Identity)
    assert isinstance(wide.cv1.act, nn.Identity)
    with torch.no_grad():
        assert narrow(image).shape == (2, 8, 13, 9)
        assert torch.equal(unit(image), wide(narrow(image)) + image)
        halved = GhostBottleneck(16, 24, s=2).eval()
        assert halved(image).shape == (2, 24, 7, 5)
        assert torch.equal(halved(image), halved.conv(image) + halved.shortcut(image))

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.models.ghostnet import GhostBottleneck
from timm.models.ghostnet import GhostModule as ReferenceModule
from timm.models.ghostnet import GhostModuleV2 as ReferenceModuleV2
from torch import nn

from search_spaces.blocks.ghostnet_v2 import GhostModule, GhostModuleV2, GhostV2, GhostV2Down, GhostV2Unit
from search_spaces.contract import randomise

SIZES = [(13, 9), (12, 8), (7, 7), (2, 5)]  # the reference cannot halve a map of one row


def expect_equal(ours: nn.Module, reference: nn.Module, in_chs: int, training: bool) -> None:
    """Both have convolution, normalisation, convolution ... in the same order, under other names."""
    randomise(reference)
    ours.load_state_dict(dict(zip(ours.state_dict(), reference.state_dict().values(), strict=True)))
    ours.train(training)
    reference.train(training)
    for size in SIZES:
        image = torch.randn(2, in_chs, *size)
        with torch.no_grad():
            torch.testing.assert_close(ours(image), reference(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("out_chs", [24, 32, 9])
def test_the_modules_are_timm_s(out_chs: int, training: bool) -> None:
    torch.manual_seed(0)
    expect_equal(GhostModule(16, out_chs, nn.ReLU()), ReferenceModule(16, out_chs), 16, training)
    expect_equal(GhostModuleV2(16, out_chs, nn.ReLU()), ReferenceModuleV2(16, out_chs), 16, training)


@pytest.mark.parametrize("training", [False, True])
def test_a_unit_is_timm_s(training: bool) -> None:
    torch.manual_seed(0)
    reference = GhostBottleneck(16, 32, 16, mode="attn")
    expect_equal(GhostV2Unit(16, act=nn.ReLU()), reference, 16, training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("in_chs", "out_chs"), [(16, 24), (16, 16), (3, 8)])
def test_a_unit_with_stride_is_timm_s(in_chs: int, out_chs: int, training: bool) -> None:
    torch.manual_seed(0)
    reference = GhostBottleneck(in_chs, 2 * out_chs, out_chs, stride=2, mode="attn")
    expect_equal(GhostV2Down(in_chs, out_chs, act=nn.ReLU()), reference, in_chs, training)


def test_only_the_first_unit_has_the_stride() -> None:
    assert [type(unit) for unit in GhostV2(16, 24, 3, 2)] == [GhostV2Down, GhostV2Unit, GhostV2Unit]


def test_half_of_a_ghost_module_is_cheap() -> None:
    torch.manual_seed(0)
    module, image = GhostModule(16, 24, act=nn.ReLU()).eval(), torch.randn(1, 16, 13, 9)
    assert module.cheap.conv.groups == module.cheap.conv.in_channels == 12
    with torch.no_grad():
        primary = module.primary(image)
        assert torch.equal(module(image), torch.cat((primary, module.cheap(primary)), dim=1))


def test_an_odd_width_drops_a_cheap_feature() -> None:
    module = GhostModule(8, 9).eval()
    with torch.no_grad():
        assert module(torch.randn(1, 8, 5, 5)).shape == (1, 9, 5, 5)


@pytest.mark.parametrize(("height", "width"), [(8, 6), (13, 9), (1, 7), (1, 1)])
def test_attention_gates_every_ghost_feature(height: int, width: int) -> None:
    torch.manual_seed(0)
    module, image = GhostModuleV2(16, 24).eval(), torch.randn(1, 16, height, width)
    with torch.no_grad():
        small = F.avg_pool2d(image, (min(2, height), min(2, width)))
        gate = module.attention(small).sigmoid()
        rows = torch.arange(height) * gate.shape[2] // height  # the nearest of the halved map
        columns = torch.arange(width) * gate.shape[3] // width
        expected = GhostModule.forward(module, image) * gate[:, :, rows][:, :, :, columns]
        torch.testing.assert_close(module(image), expected)


def test_attention_looks_along_rows_and_columns() -> None:
    """Two cells of the halved map to each side, four pixels: far more than the 3×3 of the ghost features."""
    torch.manual_seed(0)
    module, image = GhostModuleV2(8, 16).eval(), torch.randn(1, 8, 16, 16, requires_grad=True)
    module(image)[0, :, 8, 8].sum().backward()
    reached = image.grad[0].abs().amax(0) > 0
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:14, 4:14] = True
    assert torch.equal(reached, expected)


def test_a_unit_adds_to_its_input() -> None:
    unit, image = GhostV2Unit(16).eval(), torch.randn(1, 16, 7, 7)
    with torch.no_grad():
        assert torch.equal(unit(image), image + unit.ghost2(unit.ghost1(image)))
        nn.init.zeros_(unit.ghost2.primary.conv.weight)
        assert torch.equal(unit(image), image)

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.blocks.ghostnet_v2 import GhostModule, GhostModuleV2, GhostV2Unit


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

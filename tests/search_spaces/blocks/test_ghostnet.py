from __future__ import annotations

import torch
from ultralytics.nn.modules import C2f, GhostBottleneck

from search_spaces.blocks.ghostnet import C2fGhost


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

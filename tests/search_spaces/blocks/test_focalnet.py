from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.blocks.focalnet import Modulation


def reference_modulation(weights: dict[str, Tensor], x: Tensor, focal_level: int) -> Tensor:
    """The paper's equations 4 to 6, per level, with a module's weights."""
    chs = x.shape[1]
    projected = F.conv2d(x, weights["f.weight"], weights["f.bias"])
    query, context, gates = projected[:, :chs], projected[:, chs : 2 * chs], projected[:, 2 * chs :]
    levels = []
    for level in range(focal_level):
        weight = weights[f"focal_layers.{level}.0.weight"]
        context = F.gelu(F.conv2d(context, weight, padding=weight.shape[-1] // 2, groups=chs))
        levels.append(context)
    levels.append(F.gelu(context.mean((2, 3), keepdim=True)).expand_as(context))
    gathered = torch.stack([gates[:, i : i + 1] * level for i, level in enumerate(levels)]).sum(0)
    modulator = F.conv2d(gathered, weights["h.weight"], weights["h.bias"])
    return F.conv2d(query * modulator, weights["proj.weight"], weights["proj.bias"])


@pytest.mark.parametrize("focal_level", [1, 2, 3])
def test_modulation_is_the_paper_s(focal_level: int) -> None:
    torch.manual_seed(0)
    module, image = Modulation(8, focal_window=3, focal_level=focal_level).eval(), torch.randn(2, 8, 13, 9)
    sizes = [layer[0].kernel_size[0] for layer in module.focal_layers]
    assert sizes == [3, 5, 7][:focal_level]
    with torch.no_grad():
        expected = reference_modulation(module.state_dict(), image, focal_level)
        torch.testing.assert_close(module(image), expected)


def test_every_pixel_reaches_every_other() -> None:
    torch.manual_seed(0)
    module, image = Modulation(8).eval(), torch.randn(1, 8, 15, 15, requires_grad=True)
    module(image)[0, :, 0, 0].sum().backward()
    assert image.grad[0, :, 14, 14].abs().max() > 0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.models.focalnet import FocalModulation as Reference
from torch import Tensor
from ultralytics.nn.modules import Conv

from search_spaces.blocks.focalnet import FocalModulation, FocalUnit, Modulation
from search_spaces.contract import fuse, randomise


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


@pytest.mark.parametrize("focal_level", [1, 2, 3])
@pytest.mark.parametrize("size", [(13, 9), (7, 7), (1, 5), (1, 1)])
def test_modulation_is_timm_s(focal_level: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    reference, module = Reference(16, 3, focal_level).eval(), Modulation(16, 3, focal_level).eval()
    module.load_state_dict(reference.state_dict())
    image = torch.randn(2, 16, *size)
    with torch.no_grad():
        torch.testing.assert_close(module(image), reference(image), rtol=1e-5, atol=1e-5)


def test_the_search_s_unit_is_the_paper_s_module_once_fused() -> None:
    torch.manual_seed(0)
    unit, image = randomise(FocalUnit(16)).eval(), torch.randn(2, 16, 13, 9)
    assert isinstance(unit.modulation.proj, Conv)
    fused, module = fuse(unit), Modulation(16).eval()
    weights = fused.modulation.state_dict()
    module.load_state_dict({key.replace("proj.conv.", "proj."): value for key, value in weights.items()})
    with torch.no_grad():
        torch.testing.assert_close(unit(image), image + module(unit.norm(image)), rtol=1e-5, atol=1e-5)


def test_a_chain_of_units_stays_within_half_precision() -> None:
    """Features times features times features: without normalisation they grow without bound as it is trained."""
    torch.manual_seed(0)
    block, image, target = FocalModulation(32, 32, 6).train(), torch.randn(2, 32, 12, 12), torch.randn(2, 32, 12, 12)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.01, momentum=0.9)
    peaks = []
    for unit in block:
        unit.modulation.proj.register_forward_pre_hook(lambda _, inputs: peaks.append(inputs[0].detach().abs().max()))
    for _ in range(20):
        loss = (block(image) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert max(peaks) < 100


def test_every_pixel_reaches_every_other() -> None:
    torch.manual_seed(0)
    module, image = Modulation(8).eval(), torch.randn(1, 8, 15, 15, requires_grad=True)
    module(image)[0, :, 0, 0].sum().backward()
    assert image.grad[0, :, 14, 14].abs().max() > 0

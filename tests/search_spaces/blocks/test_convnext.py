from __future__ import annotations

import pytest
import torch
from timm.models.convnext import ConvNeXt as Reference
from timm.models.convnext import ConvNeXtBlock
from torch import nn

from search_spaces.blocks.convnext import ChannelLayerNorm, ConvNeXtDown, ConvNeXtStem, ConvNeXtUnit


def randomise_norms(reference: nn.Module) -> None:
    for module in reference.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)


def randomise_biases(reference: nn.Module) -> None:
    """timm starts them at 0, which would hide one in the wrong place."""
    for module in reference.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.bias, std=0.5)


@pytest.mark.parametrize("size", [(13, 9), (7, 7), (1, 5), (1, 1)])
def test_a_unit_is_timm_s(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    reference = ConvNeXtBlock(16, ls_init_value=1.0).eval()
    nn.init.normal_(reference.gamma, mean=1.0)  # at the paper's 1e-6 any error would hide behind it
    randomise_norms(reference)
    randomise_biases(reference)
    unit = ConvNeXtUnit(16).eval()
    weights = {}
    for key, value in reference.state_dict().items():
        ours = key.removeprefix("mlp.")
        weights[ours] = value.reshape(unit.state_dict()[ours].shape)  # a 1×1 convolution for a Linear layer
    unit.load_state_dict(weights)
    image = torch.randn(2, 16, *size)
    with torch.no_grad():
        torch.testing.assert_close(unit(image), reference(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patch_size", [2, 4])
@pytest.mark.parametrize("size", [(12, 8), (13, 9), (7, 7), (4, 5)])
def test_stem_and_downsampling_are_timm_s(patch_size: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = Reference(patch_size=patch_size, depths=(1, 1, 1, 1), dims=(8, 16, 16, 16)).eval()
    randomise_norms(network)
    randomise_biases(network)
    for reference, block, image in (
        (network.stem, ConvNeXtStem(3, 8, stride=patch_size), torch.randn(2, 3, *size)),
        (network.stages[1].downsample, ConvNeXtDown(8, 16), torch.randn(2, 8, *size)),
    ):
        block.load_state_dict(reference.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(block(image), reference(image), rtol=1e-5, atol=1e-5)


def test_thop_does_not_know_the_normalisation() -> None:
    assert not isinstance(ChannelLayerNorm(8), nn.LayerNorm)


@pytest.mark.parametrize("block", [ConvNeXtStem, ConvNeXtDown])
def test_a_downsampling_has_one_layer(block: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="one layer, not 2"):
        block(8, 16, 2)

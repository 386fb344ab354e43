from __future__ import annotations

import torch
from torchvision.models.convnext import CNBlock

from search_spaces.blocks.convnext import ConvNeXtUnit


def test_a_unit_is_torchvision_s() -> None:
    torch.manual_seed(0)
    reference = CNBlock(16, layer_scale=1.0, stochastic_depth_prob=0.0).eval()
    torch.nn.init.normal_(reference.layer_scale)
    unit = ConvNeXtUnit(16).eval()
    names = {"layer_scale": "gamma", "block.0": "conv_dw", "block.2": "norm", "block.3": "fc1", "block.5": "fc2"}
    weights = {}
    for key, value in reference.state_dict().items():
        name, _, kind = key.rpartition(".") if "." in key else (key, "", "")
        ours = f"{names[name]}.{kind}" if kind else names[name]
        weights[ours] = value.reshape(unit.state_dict()[ours].shape)  # a 1×1 convolution for a Linear layer
    unit.load_state_dict(weights)
    image = torch.randn(2, 16, 13, 9)
    with torch.no_grad():
        torch.testing.assert_close(unit(image), reference(image), rtol=1e-4, atol=1e-5)

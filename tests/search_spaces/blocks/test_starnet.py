from __future__ import annotations

import pytest
import torch
from timm.models.starnet import Block
from torch import nn

from search_spaces.blocks.starnet import StarUnit
from search_spaces.contract import randomise


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mlp_ratio", [3, 4])
def test_a_unit_is_timm_s(mlp_ratio: int, training: bool) -> None:
    torch.manual_seed(0)
    reference = randomise(Block(16, mlp_ratio)).train(training)
    unit = StarUnit(16, mlp_ratio, act=nn.ReLU6()).train(training)
    weights = {key: value.clone() for key, value in reference.state_dict().items()}
    for name in ("dwconv", "g"):
        weights[f"{name}.bn.running_mean"] -= weights.pop(f"{name}.conv.bias")  # ours have no bias before the mean
    for name in ("f1", "f2", "dwconv2"):
        for kind in ("weight", "bias"):
            weights[f"{name}.{kind}"] = weights.pop(f"{name}.conv.{kind}")
    unit.load_state_dict(weights)
    for size in [(13, 9), (7, 7), (1, 5), (1, 1)]:
        image = torch.randn(2, 16, *size)
        with torch.no_grad():
            torch.testing.assert_close(unit(image), reference(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("act", "kind"), [(True, nn.SiLU), (False, nn.Identity), (nn.GELU(), nn.GELU)])
def test_the_activation_is_chosen_as_in_ultralytics_conv(act: nn.Module | bool, kind: type[nn.Module]) -> None:
    assert type(StarUnit(8, act=act).act) is kind

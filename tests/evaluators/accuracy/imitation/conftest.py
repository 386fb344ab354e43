from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from evaluators.accuracy.imitation.parent import Interfaces, ParentNetwork
from search_spaces import hook
from search_spaces.presets import load_preset

CLASSES = 3


def images(count: int = 4, size: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def make_parent(preset: str) -> Interfaces:
    """Random weights that are as far from their beginning as trained ones: no scale is 1, no bias 0."""
    torch.manual_seed(0)
    architecture = load_preset(preset)
    network = hook.build(hook.model_file(architecture, CLASSES))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    parent = ParentNetwork(network, architecture, [images(8)])
    return Interfaces(parent, parent.measure_importance([images(8)]))


@pytest.fixture(scope="module", params=["yolov8n", "yolo11n", "yolov9t", "yolo26n"])
def family(request: Any) -> Interfaces:
    return make_parent(request.param)


@pytest.fixture(scope="module")
def yolov8n() -> Interfaces:
    return make_parent("yolov8n")

"""Batch statistics are those of the images that a network is shown."""

from __future__ import annotations

import torch

from evaluators.accuracy.batch_statistics import measure_statistics
from search_spaces import hook
from search_spaces.presets import load_preset


def test_statistics_are_those_of_what_the_network_sees() -> None:
    torch.manual_seed(0)
    network = hook.build(hook.model_file(load_preset("yolov8n"), 10)).eval()
    images = torch.rand(16, 3, 64, 64)
    weights = {name: value.clone() for name, value in network.named_parameters()}
    measure_statistics(network, [images[:8], images[8:]])
    norm = network.model[0].bn
    with torch.no_grad():
        expected = network.model[0].conv(images)
    assert torch.allclose(norm.running_mean, expected.mean((0, 2, 3)), atol=1e-4)
    assert norm.momentum is not None
    assert not network.training
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())

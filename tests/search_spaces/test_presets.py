from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel

from evaluators.complexity import measure_complexity
from search_spaces import SearchSpace, hook
from search_spaces.registry import get_block, get_family, list_families
from search_spaces.space import list_presets, load_preset


def build_preset(name: str) -> DetectionModel:
    return hook.build(hook.model_file(load_preset(name), nc=80))


def test_yolov8n_is_ultralytics_own() -> None:
    ours, stock = build_preset("yolov8n").eval(), DetectionModel("yolov8n.yaml", nc=80, verbose=False).eval()
    assert [type(module) for module in ours.modules()] == [type(module) for module in stock.modules()]
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert [layer.f for layer in ours.model] == [layer.f for layer in stock.model]
    image = torch.rand(2, 3, 96, 64)
    spread_activations(stock, image)
    ours.load_state_dict(stock.state_dict())
    with torch.no_grad():
        one, other = stock(image)[0]
        assert (one - other).abs().max() > 1  # pixel: what it sees reaches the output
        assert torch.equal(ours(image)[0], stock(image)[0])


def spread_activations(network: nn.Module, image: Tensor) -> None:
    """Set the statistics to these images': with the initial ones, an untrained network's signal fades out."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        network.train()(image)
    network.eval()


@pytest.mark.parametrize(
    ("name", "params", "layers", "gflops"),
    [("yolov8n", 3_157_200, 225, 8.9), ("yolov8n-ghost", 2_502_908, 323, 7.1)],
)
def test_published_sizes(name: str, params: int, layers: int, gflops: float) -> None:
    complexity = measure_complexity(build_preset(name), 640)
    assert (complexity.params, complexity.layers) == (params, layers)
    assert round(complexity.gflops, 1) == gflops


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_builds_what_it_says(name: str) -> None:
    architecture, network = load_preset(name), build_preset(name)
    for layer, stage in zip((2, 4, 6, 8), architecture.stages, strict=True):
        assert any(isinstance(module, get_block(stage.block).module) for module in network.model[layer].modules())
    assert network.stride.tolist() == [8, 16, 32]


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_lies_in_the_space(name: str) -> None:
    space, architecture = SearchSpace.load("yolov8n"), load_preset(name)
    choices = space.choices_of(architecture)
    assert choices is not None
    assert space.architecture(choices) == architecture


def test_presets_differ() -> None:
    assert len({load_preset(name).key for name in list_presets()}) == len(list_presets())


@pytest.mark.parametrize("name", list_families())
def test_every_family_has_its_baseline_among_the_presets(name: str) -> None:
    assert load_preset(get_family(name).baseline).family == name

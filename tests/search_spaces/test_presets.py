"""The library's designs: the stock ones are Ultralytics' own models, the swaps are what their names say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import SPPELAN, SPPF, Detect
from ultralytics.nn.tasks import DetectionModel

from evaluators.complexity import measure_complexity
from search_spaces import hook
from search_spaces.blocks import get_block
from search_spaces.families import get_family
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset, presets

STOCK = [name for name in presets() if "-" not in name]
SWAPS = [name for name in presets() if "-" in name]
SMALL = [name for name in STOCK if name[-1] in "nst" or name == "yolov9c"]


def build_preset(name: str) -> DetectionModel:
    return hook.build(hook.model_file(load_preset(name), nc=80))


def layers_of(model: dict[str, Any]) -> nn.Sequential:
    """The layers of a model file, without memory for their weights."""
    with torch.device("meta"):
        layers, _ = tasks.parse_model(model, ch=3, verbose=False)
    return layers


def shapes(network: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(key, value.shape) for key, value in network.state_dict().items()]


def test_all_stock_models_are_compared() -> None:
    assert len(STOCK) == 18
    assert len(SMALL) == 9
    assert {load_preset(name).family for name in SMALL} == {"yolov8", "yolov9", "yolo11", "yolo26"}


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_model_is_ultralytics_own(name: str) -> None:
    ours = layers_of(hook.model_file(load_preset(name), nc=80))
    stock = layers_of(tasks.yaml_model_load(f"{name}.yaml"))
    assert [type(module) for module in ours.modules()] == [type(module) for module in stock.modules()]
    assert shapes(ours) == shapes(stock)
    assert [(layer.i, layer.f, layer.type) for layer in ours] == [(layer.i, layer.f, layer.type) for layer in stock]


@dataclass(frozen=True)
class Pair:
    """Our network of a stock model and Ultralytics' own."""

    name: str
    ours: DetectionModel
    stock: DetectionModel


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Pair:
    """Built once for both tests; only the last one changes it."""
    name = request.param
    return Pair(name, build_preset(name).eval(), DetectionModel(f"{name}.yaml", nc=80, verbose=False).eval())


@pytest.mark.parametrize("pair", SMALL, indirect=True)
def test_a_stock_model_costs_what_ultralytics_own_does(pair: Pair) -> None:
    assert measure_complexity(pair.ours, ImageSize(96, 96)) == measure_complexity(pair.stock, ImageSize(96, 96))


@pytest.mark.parametrize("pair", SMALL, indirect=True)
def test_a_stock_model_computes_what_ultralytics_own_does(pair: Pair) -> None:
    ours, stock = pair.ours, pair.stock
    assert [type(module) for module in ours.modules()] == [type(module) for module in stock.modules()]
    assert ours.stride.tolist() == stock.stride.tolist() == [8, 16, 32]
    image = torch.rand(2, 3, 96, 64)
    spread_activations(stock, image)
    ours.load_state_dict(stock.state_dict())
    assert ours.end2end == pair.name.startswith("yolo26")
    assert not stock.end2end  # unless it is told, Ultralytics infers with the half that needs NMS
    ours.end2end = False
    assert ours(image)[0].shape == (2, 4 + 80, 12 * 8 + 6 * 4 + 3 * 2)
    assert_same_output(ours, stock, image)


@pytest.mark.parametrize("name", ["yolo26n", "yolo26s"])
def test_yolo26_gives_the_same_final_boxes(name: str) -> None:
    ours, stock = build_preset(name).eval(), DetectionModel(f"{name}.yaml", nc=80, verbose=False).eval()
    image = torch.rand(2, 3, 96, 64)
    spread_activations(stock, image)
    ours.load_state_dict(stock.state_dict())
    stock.end2end = True  # Ultralytics 8.4.190 infers with the other half unless asked
    for network in (ours, stock):
        assert network.model[-1].end2end
        assert network(image)[0].shape == (2, 12 * 8 + 6 * 4 + 3 * 2, 6)  # box, score, class: nothing left to suppress
        assert network(torch.rand(1, 3, 160, 160))[0].shape == (1, 300, 6)  # of 525
    assert_same_output(ours, stock, image)


def assert_same_output(ours: nn.Module, stock: nn.Module, image: Tensor) -> None:
    """Difference exactly 0, in the result and in what each part of the head gives."""
    with torch.no_grad():
        one, other = stock(image)[0]
        assert (one - other).abs().max() > 1  # pixel: what it sees reaches the output
        for mine, theirs in zip(tensors(ours(image)), tensors(stock(image)), strict=True):
            assert torch.equal(mine, theirs)


def tensors(output: Any) -> Iterator[Tensor]:
    """All tensors of an output, however nested."""
    if isinstance(output, Tensor):
        yield output
    else:
        for part in output.values() if isinstance(output, dict) else output:
            yield from tensors(part)


def spread_activations(network: nn.Module, image: Tensor) -> None:
    """Set the statistics to these images': with the initial ones, an untrained network's signal fades out."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        network.train()(image)
    network.eval()


def test_published_sizes_of_yolov8n_and_its_ghost() -> None:
    stock, ghost = (
        measure_complexity(build_preset(name), ImageSize(640, 640)) for name in ("yolov8n", "yolov8n-ghost")
    )
    assert (stock.params, stock.layers, round(stock.gflops, 1)) == (3_157_200, 225, 8.9)
    assert (ghost.params, ghost.layers, round(ghost.gflops, 1)) == (2_502_908, 323, 7.1)
    assert f"{100 * (ghost.params / stock.params - 1):.2f} %" == "-20.72 %"
    assert f"{100 * (round(ghost.gflops, 1) / round(stock.gflops, 1) - 1):.2f} %" == "-20.22 %"


@pytest.mark.parametrize(
    ("name", "params"),
    # As Ultralytics publishes them, for its own YAMLs and 80 classes.
    [
        *[("yolov8n", 3_157_200), ("yolov8s", 11_166_560), ("yolov8m", 25_902_640)],
        *[("yolov8l", 43_691_520), ("yolov8x", 68_229_648)],
        *[("yolo11n", 2_624_080), ("yolo11s", 9_458_752), ("yolo11m", 20_114_688)],
        *[("yolo11l", 25_372_160), ("yolo11x", 56_966_176)],
        *[("yolo26n", 2_572_280), ("yolo26s", 10_009_784), ("yolo26m", 21_896_248)],
        *[("yolo26l", 26_299_704), ("yolo26x", 58_993_368)],
    ],
)
def test_published_parameters(name: str, params: int) -> None:
    assert sum(p.numel() for p in layers_of(hook.model_file(load_preset(name), nc=80)).parameters()) == params


@pytest.mark.parametrize("name", [name for name in presets() if name[6:7] in "nt"])
def test_a_small_preset_builds_what_it_says(name: str) -> None:
    architecture, network = load_preset(name), build_preset(name)
    assert network.stride.tolist() == [8, 16, 32]
    assert isinstance(network.model[-1], Detect)
    # Each place is one row in the small designs: the stem, then a downsampling and a block for each stage.
    names = [architecture.stem.downsample]
    for stage in architecture.stages:
        names += [stage.downsample, stage.block]
    assert [type(layer) for layer in network.model[:9]] == [get_block(name).module for name in names]
    widths = [architecture.stem.width]
    for stage in architecture.stages:
        widths += [stage.downsample_width, stage.width]
    maps, strides = run(network, torch.rand(1, 3, 128, 64)), [2, 4, 4, 8, 8, 16, 16, 32, 32]
    assert maps[:9] == [(w, 128 // s, 64 // s) for w, s in zip(widths, strides, strict=True)]


def run(network: DetectionModel, image: Tensor) -> list[tuple[int, int, int]]:
    """Channels, height and width of what each layer gives."""
    found: list[tuple[int, int, int]] = []
    for layer in network.model[:-1]:
        layer.register_forward_hook(lambda module, given, output: found.append(tuple(output.shape[1:])))
    with torch.no_grad():
        network.eval()(image)
    return found


@pytest.mark.parametrize("name", SWAPS)
def test_a_swap_is_as_wide_and_deep_as_its_stock_model(name: str) -> None:
    swap, stock = load_preset(name), load_preset(name.partition("-")[0])
    assert swap.family == stock.family
    assert swap.neck == stock.neck
    assert swap.stem.width == stock.stem.width
    for one, other in zip(swap.stages, stock.stages, strict=True):
        assert (one.width, one.depth, one.widen) == (other.width, other.depth, other.widen)
    assert (swap.stages == stock.stages) == name.endswith("-focal")


@pytest.mark.parametrize("name", SWAPS)
def test_every_swap_builds(name: str) -> None:
    layers = layers_of(hook.model_file(load_preset(name), nc=80))
    assert isinstance(layers[-1], Detect)
    assert {get_block(block).module for block in load_preset(name).blocks} <= {type(m) for m in layers.modules()}


SWAPPED = {"ghost": "C2fGhost", "ghostv2": "GhostV2", "shufflev2": "ShuffleV2", "convnext": "ConvNeXt"}


@pytest.mark.parametrize("scale", "nsmlx")
@pytest.mark.parametrize("swap", SWAPPED)
def test_a_swap_of_yolov8_replaces_the_backbone(scale: str, swap: str) -> None:
    architecture = load_preset(f"yolov8{scale}-{swap}")
    assert {stage.block for stage in architecture.stages} == {SWAPPED[swap]}
    assert "Conv" not in {stage.downsample for stage in architecture.stages}
    assert architecture.attention == "none"


@pytest.mark.parametrize("name", [*(f"yolov8{scale}" for scale in "nsmlx"), *(f"yolov9{scale}" for scale in "tsc")])
def test_focal_is_the_stock_model_with_one_row_before_the_pooling(name: str) -> None:
    stock, focal = (hook.model_file(load_preset(f"{name}{suffix}"), nc=80) for suffix in ("", "-focal"))
    *backbone, pooling = stock["backbone"]
    width = load_preset(name).stages[-1].width
    assert pooling[2] == ("SPPELAN" if name.startswith("yolov9") else "SPPF")
    assert focal["backbone"] == [*backbone, [-1, 1, "FocalModulation", [width]], pooling]  # one unit, however deep P5
    layers = layers_of(focal)
    assert type(layers[9]) is get_block("FocalModulation").module
    assert type(layers[10]) in (SPPELAN, SPPF)
    without = [(key, value.shape) for layer in (*layers[:9], *layers[10:]) for key, value in layer.state_dict().items()]
    own = [(key, value.shape) for layer in layers_of(stock) for key, value in layer.state_dict().items()]
    assert without == own


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("block", ["C2PSA", "FocalModulation"])
@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolo11n", "yolo26n"])
def test_attention_is_one_unit_before_the_pooling_or_as_deep_as_p5_after_it(name: str, block: str, depth: int) -> None:
    stock = load_preset(name)
    *others, p5 = stock.stages
    design = replace(stock, stages=(*others, replace(p5, depth=depth)), attention=block)
    backbone = hook.model_file(design, nc=80)["backbone"]
    (index,) = [index for index, row in enumerate(backbone) if row[2] == block]
    after = get_family(stock.family).light_head
    assert (index, backbone[index][1]) == ((len(backbone) - 1, depth) if after else (len(backbone) - 2, 1))
    assert backbone[index - 1 if after else index + 1][2] in ("SPPF", "SPPELAN")


def test_the_focal_yolov9t_has_one_focal_unit() -> None:
    modules = layers_of(hook.model_file(load_preset("yolov9t-focal"), nc=80)).modules()
    (focal,) = [module for module in modules if type(module) is get_block("FocalModulation").module]
    assert load_preset("yolov9t").stages[-1].depth == 3
    assert [p.shape for p in focal.parameters()] == [
        p.shape for p in get_block("FocalModulation").build(128, 128, 1).parameters()
    ]


@pytest.mark.parametrize(
    ("preset", "change"),
    [
        ("yolo11n", {"attention": "C2PSA", "neck.P5.block": "C2f"}),
        ("yolov8n", {"P2.block": "C3k2"}),
        ("yolov9t", {"P1.downsample": "ADown"}),
    ],
)
def test_a_block_that_cannot_stand_there_is_refused(preset: str, change: dict[str, str]) -> None:
    from search_spaces.space_file import load_space

    architecture = load_preset(preset)
    space = load_space(preset)
    choices = space.choices_of(architecture)
    assert choices is not None
    place, block = list(change.items())[-1]
    with pytest.raises(ValueError, match=rf"^{architecture.family}, {place}: block '{block}'"):
        hook.model_file(space.architecture({**choices, **change}), nc=80)


@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolo11n", "yolo26n"])
def test_light_head_says_which_head_ultralytics_builds(name: str) -> None:
    head = layers_of(hook.model_file(load_preset(name), nc=80))[-1]
    legacy_head = head.cv3[0][0].__class__.__name__ == "Conv"
    assert legacy_head != get_family(load_preset(name).family).light_head

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import get_flops, get_num_params

from evaluators import complexity as complexity_module
from evaluators.complexity import ROWS_REMEMBERED, Size, largest, measure_complexity, predict_size, smallest
from search_spaces import Architecture, SearchSpace, hook
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel


class OneConvolution(nn.Module):
    """The least that can be measured: a 3×3 convolution and its normalisation, folded by `fuse`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fuse(self, verbose: bool) -> OneConvolution:
        self.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()
        return self


class NoOperations(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x

    def fuse(self, verbose: bool) -> NoOperations:
        return self


def test_counts_two_operations_per_multiply_and_add() -> None:
    complexity = measure_complexity(OneConvolution(), ImageSize(64, 32))
    convolution, norm, bias = 8 * 3 * 9, 2 * 8, 8
    assert complexity.params == convolution + norm
    assert complexity.params_fused == convolution + bias
    assert complexity.layers == 3
    assert complexity.gflops_fused == pytest.approx(2 * convolution * 64 * 32 / 1e9)
    assert complexity.gflops > complexity.gflops_fused


@pytest.mark.parametrize(("imgsz", "argument"), [("128", 128), ("160x96", [96, 160])])
def test_agrees_with_ultralytics(imgsz: str, argument: Any, small_detector: DetectionModel) -> None:
    complexity = measure_complexity(small_detector, ImageSize.parse(imgsz))
    assert complexity.params == get_num_params(small_detector)
    assert complexity.gflops == pytest.approx(get_flops(small_detector, argument), rel=1e-3)


def test_fused_is_smaller(small_detector: DetectionModel) -> None:
    complexity = measure_complexity(small_detector, ImageSize(64, 64))
    assert 0 < complexity.params_fused < complexity.params
    assert 0 < complexity.gflops_fused < complexity.gflops


def test_operations_grow_with_the_image_and_weights_do_not(small_detector: DetectionModel) -> None:
    small, large = (measure_complexity(small_detector, ImageSize(imgsz, imgsz)) for imgsz in (64, 128))
    assert large.gflops == pytest.approx(4 * small.gflops, rel=1e-3)
    assert large.gflops_fused == pytest.approx(4 * small.gflops_fused, rel=1e-3)
    assert (large.params, large.params_fused, large.layers) == (small.params, small.params_fused, small.layers)


def test_leaves_the_model_as_it_was(small_detector: DetectionModel) -> None:
    small_detector.train()
    before = {key: value.clone() for key, value in small_detector.state_dict().items()}
    structure = str(small_detector)
    measure_complexity(small_detector, ImageSize(64, 64))
    assert small_detector.training
    assert str(small_detector) == structure
    after = small_detector.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_no_operations_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no operations were counted"):
        measure_complexity(NoOperations(), ImageSize(64, 64))


# Before a network is built


def assert_predicted(architecture: Architecture, classes: int, imgsz: ImageSize) -> None:
    """What is predicted is what is counted."""
    measured = measure_complexity(hook.build(hook.model_file(architecture, classes)), imgsz)
    predicted = predict_size(architecture, classes, imgsz)
    assert predicted.params == measured.params
    assert predicted.gflops == pytest.approx(measured.gflops, abs=1e-9, rel=0)


def drawn(space: SearchSpace, seed: int, count: int) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.architecture(space.sample(rng)) for _ in range(count)]


@pytest.mark.parametrize("imgsz", [ImageSize(96, 96), ImageSize(160, 96)], ids=str)
@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolo11n", "yolo26n"])
def test_the_size_of_random_architectures_is_predicted(name: str, imgsz: ImageSize) -> None:
    for index, architecture in enumerate(drawn(load_space(name), seed=imgsz.width, count=2)):
        assert_predicted(architecture, (1, 80)[index], imgsz)


def test_the_size_of_widened_and_large_architectures_is_predicted() -> None:
    for name in ("yolov9", "yolo11"):
        (architecture,) = drawn(load_space(name), seed=5, count=1)
        assert_predicted(architecture, 20, ImageSize(96, 96))


@pytest.mark.parametrize("name", ["yolov8n", "yolov8n-ghost", "yolov9t-focal", "yolo11n", "yolo26n", "yolo26s"])
def test_the_size_of_known_designs_is_predicted(name: str) -> None:
    assert_predicted(load_preset(name), 80, ImageSize(96, 96))


def test_an_activation_changes_no_size() -> None:
    design = load_preset("yolov9t-focal")
    chosen = replace(design, activation="LeakyReLU")  # thop has a rule for it
    assert_predicted(chosen, 80, ImageSize(96, 96))
    assert predict_size(chosen, 80, ImageSize(96, 96)) == predict_size(design, 80, ImageSize(96, 96))


def test_published_sizes_are_predicted() -> None:
    stock, ghost = (predict_size(load_preset(name), 80, ImageSize(640, 640)) for name in ("yolov8n", "yolov8n-ghost"))
    assert (stock.params, round(stock.gflops, 1)) == (3_157_200, 8.9)
    assert (ghost.params, round(ghost.gflops, 1)) == (2_502_908, 7.1)
    assert predict_size(load_preset("yolov8x"), 80, ImageSize(640, 640)).params == 68_229_648


def test_a_size_depends_on_classes_and_image() -> None:
    design = load_preset("yolo26n")
    sizes = [
        predict_size(design, classes, ImageSize(imgsz, imgsz)) for classes, imgsz in ((1, 96), (80, 96), (80, 192))
    ]
    assert sizes[0].params < sizes[1].params == sizes[2].params
    assert sizes[0].gflops < sizes[1].gflops < sizes[2].gflops


def test_an_architecture_that_cannot_be_built_has_no_size() -> None:
    design = load_preset("yolov8n")
    with pytest.raises(ValueError, match="'ADown' halves the channels"):
        predict_size(replace(design, stem=replace(design.stem, downsample="ADown")), 80, ImageSize(96, 96))


def test_a_size_is_had_again_from_the_rows_that_were_counted_and_they_do_not_grow_without_end() -> None:
    cache = complexity_module._row_size
    assert cache.cache_info().maxsize == ROWS_REMEMBERED < float("inf")
    first = predict_size(load_preset("yolov9t"), 7, ImageSize(96, 96))
    misses, hits = cache.cache_info().misses, cache.cache_info().hits
    assert predict_size(load_preset("yolov9t"), 7, ImageSize(96, 96)) == first
    assert cache.cache_info().misses == misses
    assert cache.cache_info().hits > hits
    assert cache.cache_info().currsize <= ROWS_REMEMBERED


def test_predicting_leaves_no_trace() -> None:
    torch.manual_seed(0)
    before, dtype = torch.get_rng_state(), torch.get_default_dtype()
    predict_size(load_preset("yolo11n"), 9, ImageSize(96, 96))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == dtype
    assert torch.zeros(1).device.type == "cpu"
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("name", "samples", "metric"),
    [
        *[("yolov9t", 100, "params"), ("yolov9t", 20, "gflops"), ("yolov8n", 20, "gflops")],
        *[("yolo11n", 20, "gflops"), ("yolo26n", 20, "params")],
    ],
)
def test_nothing_of_a_space_is_smaller_than_its_smallest(name: str, samples: int, metric: str) -> None:
    space = load_space(name)
    architecture = smallest(space, 10, ImageSize(96, 96), metric)
    # Only the two least of all numbers: the small ones come up more often, and fewer different rows are counted.
    small = replace(space, choices={name: v if isinstance(v[0], str) else v[:2] for name, v in space.choices.items()})

    def value(of: Architecture) -> float:
        return float(getattr(predict_size(of, 10, ImageSize(96, 96)), metric))

    least = value(architecture)
    choices = space.choices_of(architecture)
    assert choices is not None  # it is one of them: the size is reached
    assert all(value(other) >= least for other in drawn(small, seed=1, count=samples))
    assert all(value(space.architecture(neighbour)) >= least for neighbour in space.neighbours(choices))


def test_the_smallest_image_of_a_space_that_chooses_it() -> None:
    plain = load_space("yolov8n").restricted_to_stock()
    space = replace(plain, choices={**plain.choices, "imgsz": (96, 160)})
    least = smallest(space, 10, ImageSize(640, 640), "gflops")
    assert least.imgsz == 96
    assert replace(least, imgsz=None) == smallest(plain, 10, ImageSize(96, 96), "gflops")
    assert isinstance(predict_size(least, 10, ImageSize(96, 96)), Size)


def test_nothing_of_a_space_is_larger_than_its_largest() -> None:
    plain = load_space("yolov8n").restricted_to_stock()
    space = replace(plain, choices={**plain.choices, "imgsz": (96, 160)})
    most = largest(space, 10, ImageSize(640, 640), "gflops")
    assert most.imgsz == 160
    choices = space.choices_of(most)
    assert choices is not None
    greatest = predict_size(most, 10, ImageSize(160, 160)).gflops
    others = [space.architecture(neighbour) for neighbour in space.neighbours(choices)]
    assert all(predict_size(other, 10, ImageSize.parse(other.imgsz or 0)).gflops <= greatest for other in others)

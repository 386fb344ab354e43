from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import get_flops, get_num_params

from evaluators.complexity import measure_complexity

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
    complexity = measure_complexity(OneConvolution(), 10)
    convolution, norm, bias = 8 * 3 * 9, 2 * 8, 8
    assert complexity.params == convolution + norm
    assert complexity.params_fused == convolution + bias
    assert complexity.layers == 3
    assert complexity.gflops_fused == pytest.approx(2 * convolution * 100 / 1e9)
    assert complexity.gflops > complexity.gflops_fused


def test_agrees_with_ultralytics(small_detector: DetectionModel) -> None:
    complexity = measure_complexity(small_detector, 128)
    assert complexity.params == get_num_params(small_detector)
    assert complexity.gflops == pytest.approx(get_flops(small_detector, 128), rel=1e-3)


def test_fused_is_smaller(small_detector: DetectionModel) -> None:
    complexity = measure_complexity(small_detector, 64)
    assert 0 < complexity.params_fused < complexity.params
    assert 0 < complexity.gflops_fused < complexity.gflops


def test_operations_grow_with_the_image_and_weights_do_not(small_detector: DetectionModel) -> None:
    small, large = (measure_complexity(small_detector, imgsz) for imgsz in (64, 128))
    assert large.gflops == pytest.approx(4 * small.gflops, rel=1e-3)
    assert large.gflops_fused == pytest.approx(4 * small.gflops_fused, rel=1e-3)
    assert (large.params, large.params_fused, large.layers) == (small.params, small.params_fused, small.layers)


def test_leaves_the_model_as_it_was(small_detector: DetectionModel) -> None:
    small_detector.train()
    before = {key: value.clone() for key, value in small_detector.state_dict().items()}
    structure = str(small_detector)
    measure_complexity(small_detector, 64)
    assert small_detector.training
    assert str(small_detector) == structure
    after = small_detector.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_no_operations_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no operations were counted"):
        measure_complexity(NoOperations(), 64)

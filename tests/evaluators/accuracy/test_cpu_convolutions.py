"""Convolutions for training on a CPU compute what torch's own do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from evaluators.accuracy.cpu_convolutions import Depthwise, StridedPointwise, prepare_for_cpu
from search_spaces.blocks import get_block


def outcome(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, and gradients with respect to the input and the weights."""
    x = x.clone().requires_grad_()
    y = network(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape))
    gradients = [weight.grad for weight in network.parameters()]
    assert x.grad is not None
    assert all(gradient is not None for gradient in gradients)
    return [y.detach(), x.grad, *[gradient for gradient in gradients if gradient is not None]]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("size", [(1, 7), (3, 3), (12, 9), (97, 90)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "bias"),
    [
        (5, 1, 2, 1, False),
        (5, 2, 2, 1, True),
        (7, 1, 3, 1, True),
        (7, (2, 3), (3, 4), 1, False),
        ((3, 5), 1, (1, 2), 1, False),
        (5, 1, 4, 2, False),
    ],
)
def test_a_depthwise_convolution_has_the_same_output_and_gradients(
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    bias: bool,
    size: tuple[int, int],
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(12, 12, kernel, stride, padding, dilation, groups=12, bias=bias).double()
    ours = copy.deepcopy(plain)
    prepare_for_cpu(ours)
    assert type(ours) is Depthwise
    x = torch.randn(5, 12, *size, dtype=torch.double).to(memory_format=layout)
    for mine, theirs in zip(outcome(ours, x), outcome(plain, x), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_strided_pointwise_convolution_has_the_same_output_and_gradients() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(24, 16, 1, 2, groups=2).double()
    ours = copy.deepcopy(plain)
    prepare_for_cpu(ours)
    assert type(ours) is StridedPointwise
    x = torch.randn(3, 24, 9, 12, dtype=torch.double)
    for mine, theirs in zip(outcome(ours, x), outcome(plain, x), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_block_that_breaks_torch_in_that_layout_is_trained() -> None:
    torch.manual_seed(0)
    plain = get_block("RepVGG").build(8, 16, 1, 2)  # with a strided 1x1 convolution of 8 channels
    ours = copy.deepcopy(plain)
    prepare_for_cpu(ours)
    x = torch.randn(4, 8, 24, 24)
    for mine, theirs in zip(outcome(ours, x), outcome(plain, x), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_other_convolutions_stay_as_they_are() -> None:
    others = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 16, 5, padding=2, groups=8),
        nn.Conv2d(8, 8, 5, padding=2),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, padding_mode="reflect"),
        nn.Conv2d(8, 16, 1),
    )
    prepare_for_cpu(others)
    assert {type(module) for module in others} == {nn.Conv2d}


class OwnConvolution(nn.Conv2d):
    """As a block from another package may have."""


@pytest.mark.parametrize(
    ("strided", "safe"),
    [
        (nn.Conv2d(8, 16, 1, 2), True),
        (OwnConvolution(8, 16, 1, 2), False),
        (nn.Conv2d(8, 16, 1, 2, padding="valid"), False),
        (nn.Conv2d(8, 16, 1, 2, padding=1), False),
    ],
)
def test_the_layout_that_breaks_torch_is_not_used(strided: nn.Conv2d, safe: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), strided)
    prepare_for_cpu(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last) == safe

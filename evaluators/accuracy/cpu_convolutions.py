"""Two kinds of convolution that torch trains badly on a CPU, computed another way; outputs are the same up to rounding.

Strided 1x1: in the layout that is fastest for everything else (channels last), torch 2.15 writes outside its memory
for the weight gradient of fewer than 16 channels, and the process dies. Depthwise beyond 3x3: oneDNN has a fast kernel
for the output but none for the weight gradient, which takes 5 to 20 times as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

VALUES_AT_ONCE = 64 * 1024  # values of the images whose weight gradients are found in one go: they stay in the L2 cache


def prepare_for_cpu(network: nn.Module) -> None:
    """Have a network's convolutions of these kinds computed as below, and lay it out as is fastest on a CPU.

    Weights, names and shapes stay. In a network with a strided 1x1 convolution that is of another class, or padded,
    the layout stays as well.
    """
    for module in network.modules():
        if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or isinstance(module.padding, str):
            continue
        if module.kernel_size == (1, 1) and module.stride != (1, 1) and module.padding == (0, 0):
            module.__class__ = StridedPointwise
        elif module.groups == module.in_channels == module.out_channels and max(module.kernel_size) > 3:
            module.__class__ = Depthwise
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    strided = [c for c in convolutions if c.kernel_size == (1, 1) and c.stride != (1, 1)]
    if all(isinstance(convolution, StridedPointwise) for convolution in strided):
        network.to(memory_format=torch.channels_last)


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride: one without, of every so many pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as of `nn.Conv2d`."""
        down, right = self.stride
        return functional.conv2d(x[:, :, ::down, ::right], self.weight, self.bias, groups=self.groups)


class Depthwise(nn.Conv2d):
    """A depthwise convolution whose weight gradient is computed by `depthwise_weight_gradient`."""

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as of `nn.Conv2d`."""
        y: Tensor = _DepthwiseFunction.apply(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        return y


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.has_bias = (stride, padding, dilation), bias is not None
        return functional.conv2d(x, weight, bias, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad[:3]
        x_gradient, _, bias_gradient = torch.ops.aten.convolution_backward(
            *(gradient, x, weight, [len(weight)] if ctx.has_bias else None),
            *(*ctx.geometry, False, (0, 0), len(weight), (of_input, False, of_bias)),
        )
        found = depthwise_weight_gradient(x, gradient, weight.shape[2:], *ctx.geometry) if of_weight else None
        return x_gradient, found, bias_gradient, None, None, None


def depthwise_weight_gradient(
    x: Tensor,
    gradient: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """A loss's gradient with respect to the weights, from that with respect to the output.

    A weight is read by every output pixel, each time with the input pixel so many strides further. So its gradient is
    itself a depthwise convolution, of each channel of each image with the gradient of its output as the kernel; stride
    and dilation swap places.

    Args:
        x: Input, N x C x H x W.
        gradient: With respect to the output, N x C x h x w.
        kernel: Size.
        stride: Of the convolution, as the following.
        padding: Pixels.
        dilation: Pixels.

    Returns:
        C x 1 x kernel.
    """
    channels, height, width = x.shape[1:]
    images = max(1, VALUES_AT_ONCE // (channels * height * width))
    total = x.new_zeros(channels, *kernel)
    for inputs, outputs in zip(x.split(images), gradient.split(images), strict=True):
        # Images side by side as channels, channels last: no copy where it is one image in that layout.
        wide = inputs.permute(2, 3, 0, 1).flatten(2).permute(2, 0, 1)[None]
        kernels = outputs.permute(2, 3, 0, 1).flatten(2).permute(2, 0, 1)[:, None]
        # Where the stride does not divide the input, there is a rest that no output pixel reads: cut off.
        found = functional.conv2d(wide, kernels, None, dilation, padding, stride, groups=len(kernels))
        total += found[0, :, : kernel[0], : kernel[1]].reshape(-1, channels, *kernel).sum(0)
    return total[:, None]

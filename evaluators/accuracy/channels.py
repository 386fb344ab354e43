"""Which channel of which weight is the same channel of the network: what must be chosen together when channels are.

A network is run once on the meta device, without memory for its weights. Beside every tensor goes another that holds,
for each of its values, the number of the channel that it belongs to. What only moves values (a concatenation, a split,
a shuffle) moves these likewise; a convolution gives new numbers; an addition makes two channels one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel

Numbers = NDArray[np.int64]
Dimension = tuple[str, int]
"""A weight, by its name in the state dict, and one of its dimensions."""

aten = torch.ops.aten
IMGSZ = 64  # pixels: two at the largest stride
PART_SIZE = 8  # pixels of a part's first input
# Operators that move values from place to place, or copy them.
MOVES = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "cat", "split", "split_with_sizes", "chunk"),
        *("slice", "select", "narrow", "unsqueeze", "squeeze", "expand", "clone", "contiguous", "flatten", "unbind"),
        *("stack", "alias", "detach", "unfold", "unflatten", "roll", "flip"),
    }
)
# Of one value each, with f(0) = 0: what is 0 before is 0 behind.
KEEPS_ZERO = frozenset(
    {
        *("silu", "silu_", "relu", "relu_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "hardswish"),
        *("hardswish_", "gelu", "mish", "mish_", "dropout"),
    }
)
NORMALISATIONS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"})


@dataclass(frozen=True)
class Channels:
    """The channels of a network.

    Attributes:
        of: For each dimension of a weight that stands for channels, the channels' numbers.
        fixed: Numbers of channels that must stay where they are: those of the image, of the outputs, and whatever an
            operator mixes that is not followed here (attention).
        residual: Weights that, at zero, make a residual unit hand on what it is given.
        inputs: The numbers of each input's channels.
        outputs: Those of the output; None where there are several outputs.
    """

    of: dict[Dimension, Numbers]
    fixed: frozenset[int]
    residual: frozenset[str]
    inputs: tuple[Numbers, ...] = ()
    outputs: Numbers | None = None


def find_channels(network: DetectionModel) -> Channels:
    """Follow the channels through a detector, which is left as it is.

    Args:
        network: Of any family, with the detection head as its last layer.
    """
    network = deepcopy(network).to("meta").eval()
    network.model[-1].training = True  # the outputs as the loss gets them, before they are decoded
    image = torch.zeros(1, 3, IMGSZ, IMGSZ, device="meta")
    return _follow(network, [image], lambda: network(image), inputs_fixed=True, outputs_fixed=True)


def find_part_channels(body: nn.Module, in_widths: Sequence[int], is_head: bool) -> Channels:
    """Follow the channels through a part of a detector, which is left as it is; none is fixed because it is an input.

    Args:
        body: On the meta device. Reads its inputs joined, or the head one by one, each half as large as the one before.
        in_widths: Channels of each input.
        is_head: Whether it is the detection head.
    """
    modes = [(module, module.training) for module in body.modules()]
    for module, _ in modes:
        module.training = is_head and isinstance(module, Detect)
    sizes = [PART_SIZE >> level if is_head else PART_SIZE for level in range(len(in_widths))]
    maps = [torch.zeros(1, width, size, size, device="meta") for width, size in zip(in_widths, sizes, strict=True)]
    run = partial(body, list(maps)) if is_head else lambda: body(torch.cat(maps, 1))
    try:
        return _follow(body, maps, run, inputs_fixed=False, outputs_fixed=is_head)
    finally:
        for module, mode in modes:
            module.training = mode


def _follow(
    network: nn.Module, inputs: list[Tensor], run: Callable[[], Any], inputs_fixed: bool, outputs_fixed: bool
) -> Channels:
    with torch.no_grad(), _Follower(network, inputs, inputs_fixed) as follower:
        outputs = run()
    found: Channels = follower.channels(
        [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)], outputs_fixed
    )
    return found


@dataclass
class _Tracked:
    tensor: Tensor  # held, so that no other gets its identity
    labels: Tensor  # of the same shape, on the CPU
    ancestors: frozenset[int]
    scales: frozenset[str] = frozenset()  # weights that, at zero, would make all of it zero; none if none would


class _Follower(TorchDispatchMode):
    def __init__(self, network: nn.Module, inputs: Sequence[Tensor], fixed: bool):
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {id(value): name for name, value in network.state_dict(keep_vars=True).items()}
        self._network, self._tracked = network, dict[int, _Tracked]()
        self._same: list[int] = []  # union-find: the number of a channel that is the same one, or its own
        self._of: dict[Dimension, Numbers] = {}
        self._held: list[Tensor] = []  # views of weights, so that no other tensor gets their identity
        self._residual: set[str] = set()
        self._inputs = [self._new(tensor.shape[1]) for tensor in inputs]
        self._fixed: set[int] = set(range(len(self._same)) if fixed else ())
        for tensor, numbers in zip(inputs, self._inputs, strict=True):
            self._spread(tensor, numbers, frozenset())

    def channels(self, outputs: list[Tensor], fixed: bool) -> Channels:
        """What was found, once the network has run; whether its outputs must stay where they are."""
        found = [self._tracked[id(output)] for output in outputs]
        for output in found if fixed else ():
            if not any(id(output.tensor) in other.ancestors for other in found):  # the head gives its inputs, too
                self._fix(output.tensor)
        roots = np.array([self._root(number) for number in range(len(self._same))])
        return Channels(
            {place: roots[numbers] for place, numbers in self._of.items()},
            frozenset(roots[sorted(self._fixed)].tolist()),
            frozenset(self._residual),
            tuple(roots[numbers] for numbers in self._inputs),
            roots[self._channels_of(found[0].labels)] if len(found) == 1 else None,
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if (result := _known_shape(name, func, args)) is None:
            result = func(*args, **kwargs)
        given = [*args, *kwargs.values()]
        several = [leaf for one in given if isinstance(one, (list, tuple)) for leaf in one]
        tracked = [t for a in (*given, *several) if isinstance(a, Tensor) and (t := self._tracked.get(id(a)))]
        if not tracked:
            if name in ("view", "reshape", "alias", "detach") and id(args[0]) in self._names:
                self._names[id(result)] = self._names[id(args[0])]
                self._held.append(result)
            return result
        ancestors = frozenset().union(*(t.ancestors | {id(t.tensor)} for t in tracked))
        if name == "convolution":
            self._convolve(result, args, ancestors)
        elif name in NORMALISATIONS or name == "native_layer_norm":
            self._normalise(name, result[0], args, ancestors)
        elif name in MOVES:
            self._move(func, result, args, kwargs, ancestors, tracked)
        elif isinstance(result, Tensor):
            self._combine(name, result, args, ancestors, tracked)
        else:  # a pooling also gives where it found the largest
            for part in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)):
                self._pass(part, tracked, ancestors)
        return result

    # Operators ------------------------------------------------------------------------------------------------------

    def _convolve(self, result: Tensor, args: Any, ancestors: frozenset[int]) -> None:
        source, weight, bias = self._tracked[id(args[0])], args[1], args[2]
        name, groups = self._names[id(weight)], args[8]
        inputs = self._channels_of(source.labels)
        outputs = self._new(weight.shape[0])
        if groups == 1:
            self._note((name, 1), inputs)
        elif groups == len(inputs) == len(outputs):
            self._unite(inputs, outputs)
        else:
            self._fixed.update([*inputs.tolist(), *outputs.tolist()])
        self._note((name, 0), outputs)
        if bias is not None:
            self._note((self._names[id(bias)], 0), outputs)
        self._spread(result, outputs, ancestors, frozenset({name} if bias is None else ()))

    def _normalise(self, name: str, result: Tensor, args: Any, ancestors: frozenset[int]) -> None:
        source = self._tracked[id(args[0])]
        layer = name == "native_layer_norm"
        labels = source.labels.flatten(0, -2)[0].numpy() if layer else self._channels_of(source.labels)
        weight = args[2] if layer else args[1]
        for value in args[1:]:
            if isinstance(value, Tensor) and id(value) in self._names:
                self._note((self._names[id(value)], 0), labels)
        scale = self._names.get(id(weight))
        self._track(result, source.labels, ancestors, frozenset({scale} if scale else ()))

    def _move(
        self, func: Any, result: Any, args: Any, kwargs: Any, ancestors: frozenset[int], tracked: list[_Tracked]
    ) -> None:
        def labels(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            known = self._tracked.get(id(value))
            return known.labels if known else torch.full(value.shape, -1)

        if "view" in func._schema.name:  # of labels in another order in memory, a view may need a copy
            moved: Any = labels(args[0]).reshape(args[1])
        else:
            moved = func(*tree_map(labels, args), **{k: v for k, v in kwargs.items() if k != "memory_format"})
        scales = [source.scales for source in tracked]
        all_of_them = frozenset().union(*scales) if all(scales) else frozenset()
        for part, numbers in zip(tree_leaves(result), tree_leaves(moved), strict=True):
            self._track(part, numbers, ancestors, all_of_them)

    def _combine(
        self, name: str, result: Tensor, args: Any, ancestors: frozenset[int], tracked: list[_Tracked]
    ) -> None:
        operands = [a for a in args if isinstance(a, Tensor)]
        first = tracked[0]
        if len(operands) == 1 and result.dim() == first.labels.dim():
            self._pass(result, tracked, ancestors, first.scales if name in KEEPS_ZERO else frozenset())
        elif name in ("add", "add_", "mul", "mul_", "sub", "div", "maximum", "minimum") and len(operands) == 2:
            if len(tracked) == 1:  # the other is a weight
                weight = self._names.get(id(operands[0] if operands[1] is first.tensor else operands[1]))
                if weight is not None:
                    self._note_factor(weight, first.labels)
                scales = frozenset({weight} if weight and name.startswith("mul") else ())
                self._track(result, first.labels.expand(result.shape), ancestors, scales)
                return
            one, other = tracked
            if name.startswith("add"):
                self._see_residual(one, other)
            self._track(result, self._merge(one.labels, other.labels), ancestors)
        else:  # a product of matrices, an attention: nothing is known of its channels
            for source in tracked:
                self._fix(source.tensor)
            width = result.shape[1] if result.dim() > 1 else 1
            self._fixed.update((new := self._new(width)).tolist())
            self._spread(result, new, ancestors)

    def _pass(
        self, result: Tensor, tracked: list[_Tracked], ancestors: frozenset[int], scales: frozenset[str] = frozenset()
    ) -> None:
        """What one operand has, whatever became of its height and width."""
        labels = tracked[0].labels
        if labels.shape != result.shape:
            same = [a == b for a, b in zip(labels.shape, result.shape, strict=True)]
            index = tuple(slice(None) if equal else slice(0, 1) for equal in same)
            labels = labels[index].expand(result.shape)
        self._track(result, labels, ancestors, scales)

    def _see_residual(self, one: _Tracked, other: _Tracked) -> None:
        for branch, base in ((one, other), (other, one)):
            if id(base.tensor) in branch.ancestors:
                self._residual.update(branch.scales)

    # Numbers --------------------------------------------------------------------------------------------------------

    def _track(
        self, tensor: Tensor, labels: Tensor, ancestors: frozenset[int], scales: frozenset[str] = frozenset()
    ) -> None:
        self._tracked[id(tensor)] = _Tracked(tensor, labels, ancestors, scales)

    def _spread(
        self, tensor: Tensor, numbers: Numbers, ancestors: frozenset[int], scales: frozenset[str] = frozenset()
    ) -> None:
        shape = [1, -1] + [1] * (tensor.dim() - 2)
        labels = torch.from_numpy(numbers).view(shape).expand(tensor.shape)
        self._track(tensor, labels, ancestors, scales)

    def _channels_of(self, labels: Tensor) -> Numbers:
        return labels.flatten(2)[0, :, 0].numpy() if labels.dim() > 2 else labels[0].numpy()

    def _note(self, place: Dimension, numbers: Numbers) -> None:
        known = self._of.setdefault(place, numbers)
        if known is not numbers:
            self._unite(known, numbers)

    def _note_factor(self, weight: str, labels: Tensor) -> None:
        """A weight that multiplies channels, such as a layer scale: its longest dimension stands for them."""
        value = self._network.state_dict(keep_vars=True)[weight]
        numbers = self._channels_of(labels)
        places = [d for d, size in enumerate(value.shape) if size == len(numbers)]
        if value.numel() == len(numbers) and places:
            self._note((weight, places[0]), numbers)

    def _merge(self, one: Tensor, other: Tensor) -> Tensor:
        """Labels after an operation value by value: both have the same channels, unless one is spread over all."""
        for a, b in ((one, other), (other, one)):
            for dim in range(min(a.dim(), b.dim())):
                if a.dim() == b.dim() and a.shape[dim] > b.shape[dim] and bool((a != a.narrow(dim, 0, 1)).any()):
                    return a.expand(torch.broadcast_shapes(a.shape, b.shape))
        shape = torch.broadcast_shapes(one.shape, other.shape)
        one, other = one.expand(shape), other.expand(shape)
        differ = (one != other) & (one >= 0) & (other >= 0)
        pairs = (one[differ] * len(self._same) + other[differ]).unique().numpy()  # a pair as one number: fast to sort
        self._unite(pairs // len(self._same), pairs % len(self._same))
        return torch.maximum(one, other)

    def _new(self, number: int) -> Numbers:
        numbers = np.arange(len(self._same), len(self._same) + number)
        self._same.extend(numbers.tolist())
        return numbers

    def _fix(self, tensor: Tensor) -> None:
        if known := self._tracked.get(id(tensor)):
            self._fixed.update(n for n in known.labels.unique().tolist() if n >= 0)

    def _unite(self, one: Numbers, other: Numbers) -> None:
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            low, high = sorted((self._root(a), self._root(b)))
            self._same[high] = low

    def _root(self, number: int) -> int:
        while self._same[number] != number:
            self._same[number] = self._same[self._same[number]]
            number = self._same[number]
        return number


def _known_shape(name: str, func: Any, args: Any) -> Any:
    """What an operator gives on the meta device, where that is easily said: torch itself takes far longer to."""
    if name in NORMALISATIONS:
        return torch.empty_like(args[0]), *(args[0].new_empty(0) for _ in func._schema.returns[1:])
    if name == "convolution" and not args[6]:
        source, weight, _, *geometry = args[:6]
        sides = zip(source.shape[2:], weight.shape[2:], *geometry, strict=True)
        shape = [(side + 2 * pad - apart * (kernel - 1) - 1) // step + 1 for side, kernel, step, pad, apart in sides]
        return source.new_empty((len(source), len(weight), *shape))
    return None

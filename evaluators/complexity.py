"""Parameters and floating-point operations of a detector: counted on the network, or before one is built."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from evaluators.evaluation import Complexity
from search_spaces.image_size import ImageSize, chosen_size

if TYPE_CHECKING:
    from torch import nn
    from ultralytics.nn.tasks import DetectionModel

    from search_spaces.architecture import Architecture
    from search_spaces.families import ModelFile
    from search_spaces.space import SearchSpace, Value

FREE = ("batch_norm", "detach", "empty", "view", "reshape", "alias")  # steps that take no time once deployed
ROWS_REMEMBERED = 16384  # of a few hundred bytes each; a space has some thousands of different rows


def measure_complexity(model: DetectionModel, imgsz: ImageSize) -> Complexity:
    """Count weights and operations, before and after fusing batch normalisation.

    Args:
        model: A detector as Ultralytics builds it, not fused; left unchanged.
        imgsz: Size of the image.

    Raises:
        RuntimeError: If operations cannot be counted. Ultralytics' own `get_flops` returns 0.0 then.
    """
    import torch

    fused = deepcopy(model).eval().fuse(verbose=False)
    image = torch.zeros(1, 3, *imgsz.shape)
    return Complexity(
        params=_params(model),
        gflops=_gflops(model, image),
        params_fused=_params(fused),
        gflops_fused=_gflops(fused, image),
        layers=len(list(model.modules())),
    )


@dataclass(frozen=True)
class Size:
    """How large a detector is before fusing: equal to what `measure_complexity` counts.

    Attributes:
        params: Number of weights.
        gflops: Billions of floating-point operations for one image, as Ultralytics counts them.
        operators: Number of steps that compute or move values, normalisation left out, which is folded away.
        moved: Millions of values that these write, and of weights that they read.
    """

    params: int
    gflops: float
    operators: int
    moved: float


def predict_size(architecture: Architecture, classes: int, imgsz: ImageSize) -> Size:
    """Size of an architecture without building its network: the sum of its rows', each counted once ever.

    Args:
        architecture: What would be built.
        classes: Number of classes.
        imgsz: Size of the image.

    Raises:
        ValueError: If a block cannot stand where the architecture has it.
    """
    from search_spaces import hook
    from search_spaces.families import get_family

    hook.install()
    file = hook.model_file(architecture, classes)
    options = {key: value for key, value in file.items() if key not in hook.PARTS}
    head = json.dumps(options | {"light_head": get_family(architecture.family).light_head}, sort_keys=True)
    rows: list[_RowSize] = []
    maps = [(3, *imgsz.shape)]  # channels, height and width of what each row reads: the image, then the rows' outputs
    for source, repeats, name, arguments in file["backbone"] + file["head"]:
        sources = [source] if isinstance(source, int) else source
        inputs = tuple(maps[index] if index < 0 else maps[index + 1] for index in sources)
        rows.append(_row_size(head, json.dumps([repeats, name, arguments]), inputs))
        maps.append((rows[-1].chs, *rows[-1].shape))
    return Size(
        params=sum(row.params for row in rows),
        gflops=sum(row.macs for row in rows) * 2 / 1e9,
        operators=sum(row.operators for row in rows),
        moved=sum(row.written + row.params for row in rows) / 1e6,
    )


def smallest(space: SearchSpace, classes: int, imgsz: ImageSize, metric: Literal["params", "gflops"]) -> Architecture:
    """The architecture of a space with the fewest parameters or operations."""
    return _extreme(space, classes, imgsz, metric, 0, min)


def largest(space: SearchSpace, classes: int, imgsz: ImageSize, metric: Literal["params", "gflops"]) -> Architecture:
    """The architecture of a space with the most parameters or operations."""
    return _extreme(space, classes, imgsz, metric, -1, max)


def _extreme(
    space: SearchSpace,
    classes: int,
    imgsz: ImageSize,
    metric: Literal["params", "gflops"],
    end: Literal[0, -1],
    extreme: Callable[..., Any],
) -> Architecture:
    """The smallest or largest architecture of a space.

    A detector's size is the sum of its rows', which depend on one another through their widths only, and no block gets
    smaller by being wider or deeper. So: the least (or greatest) numbers, every combination of what decides further
    widths, and under each of these the smallest (or largest) block at every place by itself.
    """
    numbers = {name: values[end] for name, values in space.choices.items()}
    decisive = [name for name in space.choices if name.endswith(".widen") or name == "neck.downsample"]
    places = [name for name, values in space.choices.items() if isinstance(values[0], str) and name not in decisive]

    def value(choices: Mapping[str, Value]) -> float:
        architecture = space.architecture(choices)
        return float(getattr(predict_size(architecture, classes, chosen_size(architecture, imgsz)), metric))

    found = []
    for combination in product(*(space.choices[name] for name in decisive)):
        choices = {**numbers, **dict(zip(decisive, combination, strict=True))}
        for place in places:
            choices = extreme(({**choices, place: block} for block in space.choices[place]), key=value)
        found.append(choices)
    return space.architecture(extreme(found, key=value))


@dataclass(frozen=True)
class _RowSize:
    params: int
    macs: float
    operators: int
    written: int
    chs: int
    shape: tuple[int, int]


@lru_cache(maxsize=ROWS_REMEMBERED)
def _row_size(head: str, row: str, inputs: tuple[tuple[int, int, int], ...]) -> _RowSize:
    """Build one row behind rows that give what it reads, without memory for weights, and count it."""
    import torch
    from ultralytics.nn import tasks

    repeats, name, arguments = json.loads(row)
    sources: Any = -1 if len(inputs) == 1 else list(range(len(inputs)))
    options = json.loads(head)
    # What stands before the detection head decides which one Ultralytics builds.
    giver = "C3k2" if options.pop("light_head") else "Conv"
    before = [[-1, 1, "nn.Identity", []]] if len(inputs) == 1 else [[-1, 1, giver, [chs]] for chs, *_ in inputs]
    file: ModelFile = {**options, "backbone": before, "head": [[sources, repeats, name, arguments]]}
    with torch.device("meta"), torch.no_grad():
        layers, _ = tasks.parse_model(file, ch=inputs[0][0], verbose=False)
        layer = layers[-1].eval()
        if name == "Detect":
            layer.stride = [8.0] * len(inputs)  # a network finds it out by running; any value gives the same count
        maps = [torch.zeros(1, *shape) for shape in inputs]
        given: Any = maps[0] if len(maps) == 1 else maps
        macs = _macs(layer, given)
        output, operators, written = _steps(layer, given)
    chs, shape = (0, (0, 0)) if name == "Detect" else (output.shape[1], tuple(output.shape[2:]))
    return _RowSize(_params(layer), macs, operators, written, chs, shape)


def _steps(layer: nn.Module, given: Any) -> tuple[Any, int, int]:
    """What a layer gives, in how many steps that compute or move values, and how many values these write."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    written: list[int] = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            free = func.is_view or any(word in str(func) for word in FREE)
            if not free and isinstance(found, torch.Tensor):
                written.append(found.numel())
            return found

    with Count():  # type: ignore[no-untyped-call]
        output = layer(given)
    return output, len(written), sum(written)


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _gflops(model: nn.Module, image: Any) -> float:
    """By thop at the true image size; Ultralytics extrapolates from one stride, which is equal where it can be."""
    macs = _macs(deepcopy(model).eval(), image)
    if not macs > 0:
        raise RuntimeError("no operations were counted")
    return macs * 2 / 1e9


def _macs(model: nn.Module, given: Any) -> float:
    import thop

    macs, _ = thop.profile(model, inputs=[given], verbose=False)
    return float(macs)

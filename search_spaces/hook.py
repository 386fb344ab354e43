"""The one place where our blocks meet Ultralytics: its model files may name them as if they were its own.

Ultralytics offers no way to register a module: `parse_model` looks names up in the globals of `ultralytics.nn.tasks`
and decides by identity which classes take channels and a depth. So `install` puts one wrapper in place of
`parse_model`. For a model file that names our blocks, the wrapper runs Ultralytics' own code with private globals, in
which one class of ours stands in for one of Ultralytics' own that the file does not use (a *slot*) and builds whatever
block the row names. A lock keeps threads apart: while it runs, Ultralytics itself changes shared state (which detection
head is built, the default activation). A model file without our names takes the original path.

A model file of ours also says `activation: ReLU`, which Ultralytics alone refuses: all activations are then replaced.
Its own `activation: torch.nn.ReLU()` means what it means there.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from types import FunctionType
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv, Detect
from ultralytics.utils.torch_utils import initialize_weights

from search_spaces.activation import ACTIVATIONS, parsing, replace_activations
from search_spaces.architecture import MAX_WIDTH, Architecture
from search_spaces.block import Block, Place, Row
from search_spaces.blocks import our_modules
from search_spaces.families import ModelFile, get_family
from search_spaces.names import UnknownNameError, nearest

PARTS = ("backbone", "head")
LAYERS = "ultralytics.nn.modules."
# Classes that `parse_model` gives (in_chs, out_chs, depth, ...) with no special case of their own, in every Ultralytics
# from 8.0.200 to 8.4.190.
SLOTS = ("C3x", "BottleneckCSP", "C1", "C2", "C3TR", "RepC3")

_lock = threading.Lock()


def install() -> None:
    """Teach Ultralytics our blocks. Idempotent and safe from several threads.

    Raises:
        RuntimeError: If this Ultralytics builds something other than what the model file says.
    """
    with _lock:
        if getattr(tasks.parse_model, "knows_nas_yolo_blocks", False):
            return
        wrapper = _wrap(tasks.parse_model)
        _self_test(wrapper)
        torch.serialization.add_safe_globals(_our_classes())
        tasks.parse_model = wrapper


def build(model: ModelFile) -> tasks.DetectionModel:
    """Build a detector with random weights from a model file's content; NMS-free if it has such a head.

    A file of the user's own is read by `search_spaces.model_file`, which checks what Ultralytics would execute.

    Raises:
        ValueError: If the file is not that of a detector.
    """
    install()
    if not {"nc", "backbone", "head"} <= model.keys():
        raise ValueError("a model file has nc, backbone and head")
    network = tasks.DetectionModel(model, verbose=False)
    head = network.model[-1]
    if getattr(head, "one2one_cv2", None) is not None:
        head.end2end = True  # from 8.4.190 on, Ultralytics itself leaves the NMS-free half unused unless it is told
    if not isinstance(head, Detect):
        raise ValueError(f"the model ends in {type(head).__name__}, not in Detect: it is no detector")
    return network


def build_rows(rows: list[Row], in_chs: int) -> list[nn.Module]:
    """Build rows that each read the one before, the first a map of `in_chs` channels; their numbers are not scaled."""
    install()
    file = {"nc": 1, "scales": {"n": [1.0, 1.0, MAX_WIDTH]}, "scale": "n", "backbone": deepcopy(rows), "head": []}
    layers, _ = tasks.parse_model(file, in_chs, verbose=False)
    initialize_weights(layers)  # as a detector does: it also sets what batch normalisation adds and remembers
    return list(layers)


def model_file(architecture: Architecture, nc: int) -> ModelFile:
    """The Ultralytics model file of an architecture for `nc` classes."""
    return get_family(architecture.family).model_file(architecture, nc)


def row_modules() -> frozenset[str]:
    """What a row may name without a dot: Ultralytics' layers that `parse_model` knows, and our blocks' classes."""
    layers = (name for name, value in vars(tasks).items() if _is_layer(value))
    return frozenset(layers) | our_modules().keys()


def row_variables() -> tuple[str, ...]:
    """Words among a row's arguments in whose place `parse_model` puts a variable of its own."""
    names: tuple[str, ...] = inspect.unwrap(tasks.parse_model).__code__.co_varnames
    return names


def unknown_module(name: str) -> str:
    """One line on a name that no row can have."""
    import ultralytics

    version, how = ultralytics.__version__, "see docs/add-a-block.md"
    if _is_layer(getattr(ultralytics.nn.modules, name, None)):
        return (
            f"module {name!r}: Ultralytics {version} has that class, but its parse_model takes no row of it, and "
            f"nas-yolo has no such block; to add it as one, {how}"
        )
    near = nearest(name, row_modules())
    hint = f"did you mean {near!r}? To add a block" if near else "to add it as a block"
    return (
        f"unknown module {name!r}: no layer that Ultralytics {version} takes in a row, and no block of nas-yolo; "
        f"{hint}, {how}"
    )


def _is_layer(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module) and value.__module__.startswith(LAYERS)


def _our_classes() -> list[Any]:
    """Every module class in the files of our blocks: a pickled network names their units too."""
    files = {block.module.__module__ for block in our_modules().values()}
    return [
        value
        for file in sorted(files)
        for value in vars(sys.modules[file]).values()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == file
    ]


def _units_of_others(layers: nn.Module) -> list[Any]:
    """Classes in a network that a block from outside takes from other files than its own."""
    kinds = {type(layer) for layer in layers.modules()}
    return [kind for kind in kinds if not kind.__module__.startswith(("torch.", "ultralytics."))]


class _Ours(nn.Module):
    """Stands in Ultralytics' slot for every block of ours; the row's second argument says which."""

    def __new__(cls, in_chs: int, out_chs: int, depth: int, name: str, *arguments: Any) -> Any:
        """Build the block itself."""
        block = our_modules()[name]
        if block.depth == "inserted":
            return block.module(in_chs, out_chs, depth, *arguments)
        units = [block.module(in_chs if i == 0 else out_chs, out_chs, *arguments) for i in range(depth)]
        return units[0] if len(units) == 1 else nn.Sequential(*units)


def _wrap(original: FunctionType) -> Callable[..., Any]:
    def parse_model(d: ModelFile, ch: int, verbose: bool = True) -> Any:
        named = [row[2] for row in d["backbone"] + d["head"]]
        ours = our_modules()
        for name in named:
            if name not in ours and name not in vars(tasks) and "." not in name:
                raise UnknownNameError(unknown_module(name))
        activation = d.get("activation")
        if isinstance(activation, str) and activation in ACTIVATIONS:
            layers, save = parse_model({key: d[key] for key in d if key != "activation"}, ch, verbose)
            replace_activations(layers, activation)
            return layers, save
        if not any(name in ours for name in named):
            with _parsing():
                return original(d, ch, verbose)
        slot = next((slot for slot in SLOTS if slot not in named), None)
        if slot is None:
            raise ValueError(f"a model file may not name {', '.join(SLOTS)} all together with nas-yolo blocks")
        private = {**vars(tasks), slot: _Ours, **dict.fromkeys(ours, _Ours)}
        clone = FunctionType(original.__code__, private, original.__name__, original.__defaults__, original.__closure__)
        with _parsing():
            layers, save = clone({**d, **{part: [_row(row, ours) for row in d[part]] for part in PARTS}}, ch, verbose)
        torch.serialization.add_safe_globals(_units_of_others(layers))
        for layer, name in zip(layers, named, strict=True):
            if name in ours:
                layer.type = f"{ours[name].module.__module__}.{name}"
        return layers, save

    parse_model.knows_nas_yolo_blocks = True  # type: ignore[attr-defined]
    parse_model.__wrapped__ = original  # type: ignore[attr-defined]
    return parse_model


@contextmanager
def _parsing() -> Iterator[None]:
    """One thread at a time; the default activation is put back, also where Ultralytics fails on the way."""
    with parsing:
        default = Conv.default_act
        try:
            yield
        finally:
            Conv.default_act = default


def _row(row: Row, ours: Mapping[str, Block]) -> Row:
    """The row with the name among the arguments, where `_Ours` finds it."""
    source, repeats, name, arguments = row
    return [source, repeats, name, [arguments[0], name, *arguments[1:]]] if name in ours else row


def _self_test(parse_model: Callable[..., Any]) -> None:
    """Build three rows of each kind: a changed Ultralytics shall fail here, loudly, not silently build another net."""
    for name, block in our_modules().items():
        stride = 1 if "stage" in block.roles or "attention" in block.roles else 2
        width, depth = (16, 1) if stride == 2 else (24, 2)
        rows = [[-1, 1, "Conv", [16, 3, 2]], *block.rows(Place(16, width, depth, stride))]
        head = [[[0, 1], 1, "Concat", [1]]]
        layers, _ = parse_model({"nc": 1, "backbone": rows, "head": head}, 3, verbose=False)
        expected = block.build(16, width, depth, stride)
        built = layers[1:-1]
        same = any(isinstance(module, block.module) for module in built.modules()) and (
            [p.shape for p in built.parameters()] == [p.shape for p in expected.parameters()]
        )
        if not same:
            import ultralytics

            raise RuntimeError(
                f"Ultralytics {ultralytics.__version__} builds block {name!r} wrongly; install a version that "
                "nas-yolo's constraints.txt names"
            )

"""The one place where our blocks meet Ultralytics: its model files may name them as if they were its own.

Ultralytics offers no way to register a module: `parse_model` looks names up in the globals of `ultralytics.nn.tasks`
and decides by identity which classes take channels and a depth. So `install` puts one wrapper in place of
`parse_model`. For a model file that names our blocks, the wrapper runs Ultralytics' own code with private globals, in
which the class also stands in for one of Ultralytics' own that the file does not use and that is treated the same way
(a *slot*). Nothing shared is changed while it runs, so threads do not disturb one another, and a model file without our
names takes the original path untouched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from ultralytics.nn import tasks
from ultralytics.nn.modules import Detect

from search_spaces.architecture import Architecture
from search_spaces.families import ModelFile
from search_spaces.registry import get_block, get_family, list_blocks

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
        torch.serialization.add_safe_globals([get_block(name).module for name in list_blocks()])
        tasks.parse_model = wrapper


def build(model: ModelFile | str | Path, nc: int | None = None) -> tasks.DetectionModel:
    """Build a detector with random weights from a model file's content or path.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not that of a detector.
    """
    install()
    if isinstance(model, dict) and not {"nc", "backbone", "head"} <= model.keys():
        raise ValueError("a model file has nc, backbone and head")
    network = tasks.DetectionModel(model if isinstance(model, dict) else str(model), nc=nc, verbose=False)
    if not isinstance(network.model[-1], Detect):
        raise ValueError(f"the model ends in {type(network.model[-1]).__name__}, not in Detect: it is no detector")
    return network


def model_file(architecture: Architecture, nc: int) -> ModelFile:
    """The Ultralytics model file of an architecture for `nc` classes."""
    return get_family(architecture.family).rows(architecture, nc)


def _wrap(original: FunctionType) -> Callable[..., Any]:
    def parse_model(d: ModelFile, ch: int, verbose: bool = True) -> Any:
        named = [row[2] for row in d["backbone"] + d["head"]]
        ours = {name: get_block(name) for name in dict.fromkeys(named) if name in list_blocks()}
        ours = {name: block for name, block in ours.items() if not block.stock}
        if not ours:
            return original(d, ch, verbose)
        slots = [slot for slot in SLOTS if slot not in named]
        if len(ours) > len(slots):
            raise ValueError(f"a model file may name at most {len(slots)} kinds of nas-yolo blocks, not {len(ours)}")
        private = dict(vars(tasks))
        for slot, (name, block) in zip(slots, ours.items(), strict=False):
            private[slot] = private[name] = block.module
        clone = FunctionType(original.__code__, private, original.__name__, original.__defaults__, original.__closure__)
        return clone(d, ch, verbose)

    parse_model.knows_nas_yolo_blocks = True  # type: ignore[attr-defined]
    return parse_model


def _self_test(parse_model: Callable[..., Any]) -> None:
    """Build three rows of each kind: a changed Ultralytics shall fail here, loudly, not silently build another net."""
    for name in list_blocks():
        block = get_block(name)
        if block.stock:
            continue
        rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 2, name, [24, *block.arguments]], [[0, 1], 1, "Concat", [1]]]
        layers, _ = parse_model({"nc": 1, "backbone": rows[:1], "head": rows[1:]}, 3, verbose=False)
        expected = block.build(16, 24, 2)
        same = isinstance(layers[1], block.module) and (
            [p.shape for p in layers[1].parameters()] == [p.shape for p in expected.parameters()]
        )
        if not same:
            import ultralytics

            raise RuntimeError(
                f"Ultralytics {ultralytics.__version__} builds block {name!r} wrongly; install a version that "
                "nas-yolo's constraints.txt names"
            )

"""Checkpoints (.pt) of others, read without making anything of what they name: no class, no function, no import.

A checkpoint is a pickle, which may call anything. Here torch reads it with `weights_only`, and stand-ins take the place
of all classes that a checkpoint of Ultralytics needs: tensors and plain values are read, everything else is a record
of its attributes. A file that names anything else is refused.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.model_rows import ModelError

if TYPE_CHECKING:
    from torch import Tensor

GIVE = "give a checkpoint as Ultralytics' training writes it, e.g. weights/best.pt"
LAYERS = re.compile(r"(torch\.nn|ultralytics\.nn)\.modules(\.\w+)?\.\w+|torchvision\.(ops|models)(\.\w+)+")
# What else is in checkpoints of Ultralytics, of all tasks and versions.
PARTS = re.compile(
    r"ultralytics\.nn\.(tasks|distill_model)\.\w+|ultralytics(\.yolo)?\.utils\.(loss\.\w+|tal\.\w+|IterableSimpleNamespace)"
    r"|numpy\.(_?core\.multiarray\.scalar|dtype)|pathlib(\._local)?\.\w+|torchvision\.transforms(\.\w+)+|builtins\.getattr"
)
YOLOV5 = re.compile(r"models\.(yolo|common|experimental|tf)\.\w+")
NAMED = 5  # classes that a message lists

_one_at_a_time = threading.Lock()


class Pickled:
    """Stands for an object of the class of this name: holds its attributes, does nothing."""

    arguments: tuple[Any, ...] = ()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class PickledValue(Pickled):
    """An object that was made by a call: holds the call's arguments."""

    def __init__(self, *arguments: Any):
        self.arguments = arguments


class PickledLayer(Pickled):
    """A network or a part of one. Pickling writes its attributes; a file that calls its class was made to do harm."""

    def __init__(self, *arguments: Any):
        raise ModelError(f"calls {name_of(self)}")


@dataclass(frozen=True)
class Network:
    """A network as a checkpoint has it.

    Attributes:
        rows: Content of the model file that it was built from, not checked.
        scale: Of that; empty: none was given.
        names: Of its classes.
        weights: State dict.
        leaves: Class of each layer that has no parts, by path.
    """

    rows: dict[str, Any]
    scale: str
    names: tuple[str, ...]
    weights: dict[str, Tensor] = field(repr=False)
    leaves: dict[str, str] = field(repr=False)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors and plain values of a checkpoint; everything else is `Pickled`.

    Raises:
        ModelError: If it is none, or names what is no part of one; says what it is.
    """
    import torch

    names = _names_in(path)
    if any(YOLOV5.fullmatch(name) for name in names):
        raise ModelError(
            f"{path} is a checkpoint of the YOLOv5 repository or one that follows it, which Ultralytics does not "
            "load; train an anchor-free one with Ultralytics, e.g. yolov5nu"
        )
    if foreign := sorted(name for name in names if not _known(name)):
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        raise ModelError(
            f"{path} was not read: it needs {', '.join(foreign[:NAMED])}{more}, which neither Ultralytics' layers nor "
            f"nas-yolo's blocks are; {GIVE}, or add a block of your own (docs/add-a-block.md)"
        )
    try:
        with _allowed([(_stand_in(name), name) for name in names]):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or doctored file comes to
        said = " ".join(str(error).split())[:100]
        raise ModelError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {said}); {GIVE}") from error
    if not isinstance(saved, dict):
        raise ModelError(f"{path} is no checkpoint: it holds {name_of(saved)}; {GIVE}")
    return saved


def network_of(saved: Mapping[str, Any], path: Path) -> Network:
    """The network of a checkpoint, of any task.

    Raises:
        ModelError: If it holds none.
    """
    network = saved.get("ema") or saved.get("model")
    if not isinstance(network, Pickled):
        if any(map(_is_weights, [saved, *saved.values()])):
            raise ModelError(
                f"{path} holds weights only (a state dict), no network; {GIVE}, or the model YAML that they are of"
            )
        held = ", ".join(map(str, list(saved)[:NAMED])) or "nothing"
        raise ModelError(f"{path} is no checkpoint of a model: it holds {held}; {GIVE}")
    rows = vars(network).get("yaml")
    if not isinstance(rows, dict):
        raise ModelError(f"{path} holds a {name_of(network)}, which is no detector of Ultralytics; {GIVE}")
    weights: dict[str, Tensor] = {}
    leaves: dict[str, str] = {}
    for name, layer in _layers(network, ""):
        if not _attributes(layer, "_modules"):
            leaves[name] = name_of(layer).rpartition(".")[2]
        temporary = vars(layer).get("_non_persistent_buffers_set") or ()
        for word, value in {**_attributes(layer, "_parameters"), **_attributes(layer, "_buffers")}.items():
            if value is not None and word not in temporary:
                weights[f"{name}.{word}"] = value
    names = vars(network).get("names")
    values = tuple(names.values() if isinstance(names, dict) else names if isinstance(names, list) else ())
    return Network(rows, str(rows.get("scale") or ""), tuple(map(str, values)), weights, leaves)


def plain(value: Any) -> Any:
    """The number that a NumPy scalar in a checkpoint stands for; anything else as it is."""
    import numpy as np

    if name_of(value).endswith("multiarray.scalar"):
        kind, data = value.arguments
        return np.frombuffer(data, kind.arguments[0])[0].item()
    return value


def name_of(value: object) -> str:
    """The full name of the class of an object, or of the one that a record stands for."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _names_in(path: Path) -> list[str]:
    """Classes and functions that the file names, beyond those of tensors.

    Raises:
        ModelError: If it is no file that `torch.save` wrote.
    """
    import torch

    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if start != b"PK\x03\x04":
        raise ModelError(f"{path} is {'no PyTorch checkpoint' if start else 'empty'}; {GIVE}")
    try:
        with _allowed([]):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except ValueError as error:
        what = "a TorchScript export" if "torchscript" in str(error).lower() else "no PyTorch checkpoint"
        raise ModelError(f"{path} is {what}; {GIVE}") from error
    except Exception as error:
        raise ModelError(f"{path} is damaged: truncated, or no PyTorch checkpoint; {GIVE}") from error


def _known(name: str) -> bool:
    return bool(LAYERS.fullmatch(name) or PARTS.fullmatch(name) or _is_loaded_layer(name))


def _is_loaded_layer(name: str) -> bool:
    """Whether a layer of that name is in this process already, as those of all blocks are, wherever they come from."""
    import torch

    from search_spaces.blocks import our_modules

    our_modules()  # loads them
    module, _, word = name.rpartition(".")
    value = vars(sys.modules[module]).get(word) if module in sys.modules else None
    return isinstance(value, type) and issubclass(value, torch.nn.Module)


@cache
def _stand_in(name: str) -> type[Pickled]:
    module, _, word = name.rpartition(".")
    layer = LAYERS.fullmatch(name) or module == "ultralytics.nn.tasks" or _is_loaded_layer(name)
    return type(word, (PickledLayer if layer else PickledValue,), {"__module__": module})


@contextmanager
def _allowed(stand_ins: list[Any]) -> Iterator[None]:
    """Let torch make these and nothing else of what a file names; what it may make is one set for the whole process."""
    from torch import serialization

    with _one_at_a_time:
        before = serialization.get_safe_globals()
        serialization.clear_safe_globals()
        serialization.add_safe_globals(stand_ins)
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(before)


def _layers(layer: Pickled, path: str) -> Iterator[tuple[str, Pickled]]:
    yield path, layer
    for name, part in _attributes(layer, "_modules").items():
        if isinstance(part, Pickled):
            yield from _layers(part, f"{path}.{name}" if path else name)


def _attributes(layer: Pickled, kind: str) -> dict[str, Any]:
    found = vars(layer).get(kind)
    return found if isinstance(found, dict) else {}


def _is_weights(value: object) -> bool:
    import torch

    return isinstance(value, Mapping) and bool(value) and all(isinstance(one, torch.Tensor) for one in value.values())

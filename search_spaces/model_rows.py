"""The content of a model file, checked before Ultralytics builds it: that it is a detector's, and that it only builds.

Ultralytics evaluates what stands under `activation`, calls whatever a row names among all that its own code imports
(also functions that download or unpickle), and lets `TorchVision` rows download weights. Here a row names a layer, its
arguments are plain values, and an activation is a class of torch.nn with numbers.
"""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from typing import Any

import yaml

from search_spaces.activation import ACTIVATIONS
from search_spaces.errors import UserError
from search_spaces.families import ModelFile

PARTS = ("backbone", "head")
MULTIPLES = ("depth_multiple", "width_multiple")
MAX_TEXT = 200  # characters of an argument or an activation; deeply nested text overflows Python's parser
WORD = re.compile(r"[A-Za-z][\w.-]*")
DETECTORS = ("Detect", "v10Detect")
# By what the name of the last row's module has in it, the first that fits.
TASKS = {
    "classif": "an image classifier",
    "semantic": "a model for semantic segmentation",
    "segment": "a model for segmentation",
    "pose": "a model for poses",
    "obb": "a model for oriented boxes (OBB)",
    "depth": "a model for depth",
    "rtdetr": "an RT-DETR, with a transformer for a head",
    "world": "an open-vocabulary model (YOLO-World)",
    "yoloe": "an open-vocabulary model (YOLOE)",
}


class ModelError(UserError, ValueError):
    """A file that is no model that can be used; one line that says what it is and what to do."""


def checked(content: object, where: str) -> ModelFile:
    """The content of a model file as Ultralytics builds it, without what it does not read.

    Args:
        content: Of the file.
        where: The file, for messages.

    Raises:
        ModelError: If it is not that of a detector, or more than builds one.
    """
    if not isinstance(content, dict) or not {"nc", *PARTS} <= content.keys():
        raise ModelError(f"{where} {_other_file(content)}")
    rows = []
    for part in PARTS:
        if not isinstance(content[part], list):
            raise ModelError(f"{where}: {part} must be a list of rows [from, repeats, module, arguments]")
        rows += content[part]
    for number, row in enumerate(rows):
        if not _is_row(row, number):
            raise ModelError(
                f"{where}: {row_text(number, row)} must be [from, repeats, module, arguments], from an earlier row"
            )
    if not content["head"]:
        raise ModelError(f"{where}: head has no rows; a detector ends in Detect")
    _check_task(rows[-1], where)
    found = {"nc": _whole(content["nc"], "nc", where), **_options(content, where)}
    if rows[0][2] == "Silence":  # YOLOv9e's old name of it, as Ultralytics itself mends it
        rows[0] = [*rows[0][:2], "nn.Identity", rows[0][3]]
    checked_rows = [_checked_row(row, row_text(number, row), where) for number, row in enumerate(rows)]
    split = len(content["backbone"])
    return {**found, "backbone": checked_rows[:split], "head": checked_rows[split:]}


def row_text(number: int, row: object) -> str:
    """A row as a file has it, with its number among those of backbone and head, counted from 0."""
    text = yaml.safe_dump(row, default_flow_style=True, width=10**6) if _plain(row) else repr(row)
    text = " ".join(text.removesuffix("...\n").split())
    return f"row {number} {text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + '...'}"


def _other_file(content: object) -> str:
    """What it is instead, and what to do."""
    if content is None:
        return "is empty; give a model YAML, e.g. a copy of Ultralytics' yolov8.yaml"
    if not isinstance(content, dict):
        kind = "text" if isinstance(content, str) else f"a {type(content).__name__}"
        return f"is no model: it holds {kind}, not nc, backbone and head"
    if {"family", "stages"} & content.keys():
        return "is a search space, not a model; search it with nas-yolo search --space"
    if not set(PARTS) & content.keys() and {"names", "train", "val"} & content.keys():
        return "describes a data set, not a model; search on it with nas-yolo search --data"
    missing = [key for key in ("nc", *PARTS) if key not in content]
    return f"is no model: it lacks {', '.join(missing)}"


def _is_row(row: object, number: int) -> bool:
    if not isinstance(row, list) or len(row) != 4:
        return False
    source, repeats, module, arguments = row
    sources = source if isinstance(source, list) and source else [source]
    return (
        all(type(one) is int and -max(number, 1) <= one < max(number, 0) for one in sources)
        and type(repeats) is int
        and repeats >= 1
        and isinstance(module, str)
        and isinstance(arguments, list)
    )


def _check_task(last: list[Any], where: str) -> None:
    head, arguments = last[2], last[3]
    if "anchors" in arguments:
        raise ModelError(
            f"{where} is a model of the YOLOv5 repository or one that follows it (its {head} has anchors), which "
            "Ultralytics does not build; give an anchor-free one of Ultralytics, e.g. yolov5n.yaml"
        )
    if head in DETECTORS:
        return
    what = next((task for word, task in TASKS.items() if word in head.lower()), "no detector")
    raise ModelError(f"{where} is {what}: it ends in {head}; give a detection model, which ends in Detect")


def _options(content: dict[str, Any], where: str) -> dict[str, Any]:
    """What stands beside the rows, as far as Ultralytics reads it."""
    found: dict[str, Any] = {}
    if content.get("activation"):
        found["activation"] = _activation(content["activation"], where)
    if scales := content.get("scales"):
        good = isinstance(scales, dict) and all(
            isinstance(name, str) and isinstance(values, list) and [_is_number(value) for value in values] == [True] * 3
            for name, values in scales.items()
        )
        if not good:
            raise ModelError(f"{where}: scales must be like {{n: [0.33, 0.25, 1024]}}: depth, width, greatest width")
        found["scales"] = scales
    for key in MULTIPLES:
        if key in content:
            if not _is_number(content[key]):
                raise ModelError(f"{where}: {key} must be a number")
            found[key] = content[key]
    if "reg_max" in content:
        found["reg_max"] = _whole(content["reg_max"], "reg_max", where)
    if "end2end" in content:
        found["end2end"] = bool(content["end2end"])
    if (channels := content.get("channels", content.get("ch", 3))) != 3:
        raise ModelError(f"{where} reads images of {channels!r} channels; nas-yolo has images of three (RGB)")
    return found


def _activation(text: object, where: str) -> str:
    """The activation written anew: a class of torch.nn, and numbers."""
    import torch

    error = ModelError(
        f"{where}: activation {str(text)[:MAX_TEXT]!r} is not of the form nn.ReLU() or torch.nn.LeakyReLU(0.1)"
    )
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise error
    if text in ACTIVATIONS:
        return text  # of all layers, as nas-yolo's own files have it
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise error from None
    if not isinstance(call, ast.Call):
        raise error
    prefix, _, name = ast.unparse(call.func).rpartition(".")
    known = getattr(torch.nn.modules.activation, name, None)
    if prefix not in ("nn", "torch.nn") or not (isinstance(known, type) and issubclass(known, torch.nn.Module)):
        raise error
    values = [(None, value) for value in call.args] + [(keyword.arg, keyword.value) for keyword in call.keywords]
    arguments = []
    for key, node in values:
        try:
            value = ast.literal_eval(node)
        except ValueError:
            raise error from None
        if not _is_number(value) and not isinstance(value, bool):
            raise error
        arguments.append(f"{key}={value!r}" if key else repr(value))
    return f"torch.nn.{name}({', '.join(arguments)})"


def _checked_row(row: list[Any], text: str, where: str) -> list[Any]:
    from search_spaces import hook

    source, repeats, module, arguments = row
    library, _, name = module.rpartition(".")
    if not library:
        if module not in hook.row_modules():
            raise ModelError(f"{where}: {text}: {hook.unknown_module(module)}")
    elif not _is_class_of(library, name):
        raise ModelError(
            f"{where}: {text}: a row can name a layer of Ultralytics, a block of nas-yolo, or a class of torch.nn as "
            f"nn.Name; {module} is none"
        )
    if module == "TorchVision":  # channels, name of a model, weights to download
        arguments = [*arguments[:2], None, *arguments[3:]]
    values = [_argument(value, text, where) for value in arguments]
    return [source, repeats, module, values]


def _is_class_of(library: str, name: str) -> bool:
    import torch
    import torchvision

    homes = {"nn": torch.nn, "torchvision.ops": torchvision.ops}
    value = getattr(homes.get(library), name, None)
    return isinstance(value, type) and issubclass(value, torch.nn.Module)


def _argument(value: object, text: str, where: str) -> object:
    """The value that Ultralytics makes of an argument; `nc` stays, as the number of classes."""
    from search_spaces import hook

    if value == "nc":
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            value = ast.literal_eval(value)
    own_word = isinstance(value, str) and (not WORD.fullmatch(value) or value in hook.row_variables())
    if own_word or not _plain(value):
        raise ModelError(f"{where}: {text}: argument {str(value)[:MAX_TEXT]!r} is no number, word, list or nc")
    return value


def _plain(value: object, depth: int = 4) -> bool:
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_plain(one, depth - 1) for one in value)
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= MAX_TEXT)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: object, what: str, where: str) -> int:
    if type(value) is not int or value < 1:
        raise ModelError(f"{where}: {what} {value!r} must be a whole number, at least 1")
    return value

"""Model files that Ultralytics loads without nas-yolo: our blocks in its own rows, where that is exact."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from search_spaces.activation import ACTIVATIONS, ultralytics_text
from search_spaces.architecture import Architecture
from search_spaces.block import Row
from search_spaces.block_activation import ultralytics_gives
from search_spaces.blocks import get_block, list_blocks, our_modules
from search_spaces.families import ModelFile

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

PARTS = ("backbone", "head")


def needs_nas_yolo(architecture: Architecture) -> tuple[str, ...]:
    """What Ultralytics alone cannot build of a design: its blocks, or that it cannot give them the activation."""
    found = [name for name in architecture.blocks if not get_block(name).loads_in_stock]
    if (activation := architecture.activation) is not None:
        others = [name for name in architecture.blocks if name not in found]
        found += [f"{name} with {activation}" for name in others if not ultralytics_gives(name, activation)]
    return tuple(found)


def stock_file(model: ModelFile) -> ModelFile | None:
    """The same detector in rows that Ultralytics knows; None if a block has no such form.

    Args:
        model: A model file whose rows name inputs by number, or by -1.
    """
    spans = _spans(model)
    if spans is None:
        return None
    last = [-1]  # where the output of each row, counted from the image, is found among the new rows
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for part in PARTS:
        for row in model[part]:
            new = spans[len(last) - 1]
            first = deepcopy(new[0])
            first[0] = _moved(row[0], last) if len(new) == 1 else first[0]
            parts[part] += [first, *deepcopy(new[1:])]
            last.append(last[-1] + len(new))
    stock = {**model, **parts}
    if model.get("activation") in ACTIVATIONS:
        stock["activation"] = ultralytics_text(model["activation"])
    return stock


def stock_network(network: DetectionModel, model: ModelFile) -> DetectionModel:
    """The detector of `stock_file(model)` with the weights of `network`, which was built from `model`.

    Raises:
        ValueError: If a block has no form in Ultralytics' rows.
    """
    from search_spaces import hook

    file, spans = stock_file(model), _spans(model)
    if file is None or spans is None:
        raise ValueError("a block of this model has no form in Ultralytics' own rows")
    stock, ours = hook.build(file), our_modules()
    layers = iter(stock.model)
    for layer, row, span in zip(network.model, model["backbone"] + model["head"], spans, strict=True):
        form = ours[row[2]].stock_form if row[2] in ours else None
        weights = form.weights(layer) if form else [layer.state_dict()]
        for state, _ in zip(weights, span, strict=True):
            next(layers).load_state_dict(state)
    return stock.train(network.training)


def _spans(model: ModelFile) -> list[list[Row]] | None:
    """The rows that replace each row; None if there are none for one of them, or not with the file's activation."""
    spans = []
    ours = our_modules()
    if (activation := model.get("activation")) in ACTIVATIONS:
        named = {row[2] for row in model["backbone"] + model["head"]}
        blocks = [name for name in list_blocks() if get_block(name).module.__name__ in named]
        if not all(ultralytics_gives(name, activation) for name in blocks):
            return None
    for row in model["backbone"] + model["head"]:
        if row[2] not in ours:
            spans.append([row])
            continue
        form = ours[row[2]].stock_form
        if form is None or row[0] != -1:
            return None
        spans.append(form.rows(row[1], row[3]))
    return spans


def _moved(source: int | list[int], last: list[int]) -> int | list[int]:
    """The input's new number; -1 stays, the row before is still the row before."""
    if isinstance(source, list):
        return [index if index < 0 else last[index + 1] for index in source]
    return source if source < 0 else last[source + 1]

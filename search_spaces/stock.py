"""Model files that Ultralytics loads without nas-yolo: our blocks in its own rows, where that is exact."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from search_spaces.families import ModelFile
from search_spaces.registry import Row, our_modules

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

PARTS = ("backbone", "head")


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
    return {**model, **parts}


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
    """The rows that replace each row."""
    spans = []
    ours = our_modules()
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

"""The model to beat in other widths and depths: its own curve of accuracy against latency, within a space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from search_spaces.architecture import Architecture
from search_spaces.presets import presets
from search_spaces.space import Choices, SearchSpace, Value, values_of

# What widths and depths are multiplied with. Those that are of most use to a comparison come first: one that is faster
# and one that is slower than the model itself, then what lies between and beyond.
LADDER = (
    (0.5, 1.0),  # what a search finds is mostly faster than stock: smaller ones tell most
    (0.75, 1.0),
    (0.5, 0.5),
    (1.5, 1.0),
    (2.0, 1.0),
    (1.5, 1.5),
    (3.0, 1.0),
    (0.25, 1.0),
    (1.0, 2.0),
)


def scaled_designs(space: SearchSpace, stock: Architecture) -> dict[str, Architecture]:
    """Points of a space that differ from a model in widths and depths only, all of these multiplied with the same.

    Each width and depth is the nearest, by ratio, that the space offers at its place. What else the model is made of
    stays, but for its activation, where the space does not offer that: then it is the first that the space names.

    Args:
        space: What is searched.
        stock: The model to beat, whether it lies in the space or not.

    Returns:
        By name, e.g. `yolov8n-w0.50-d0.82`: what widths and depths came to, as geometric means over all places; a stock
        model has its own name. In order of usefulness; none where the space leaves no choice of widths and depths, or
        offers other blocks only.
    """
    names = {preset.architecture: name for name, preset in presets().items()}
    found: dict[Architecture, str] = {stock: space.baseline}
    for width, depth in LADDER:
        choices = _nearest(space, values_of(stock), width, depth)
        if choices is None:
            return {}
        design = space.architecture(choices)
        name = names.get(replace(design, imgsz=None), space.baseline + _factors(stock, design))
        if name not in found.values():
            found.setdefault(design, name)
    return {name: design for design, name in found.items() if design != stock}


def _nearest(space: SearchSpace, stock: Mapping[str, Value], width: float, depth: float) -> Choices | None:
    """The point nearest to a model so scaled; None if the space does not offer what else it is made of."""
    factors = {"width": width, "depth": depth}
    choices: Choices = {}
    for name, values in space.choices.items():
        factor, value = factors.get(name.rpartition(".")[2]), stock.get(name)
        if factor is not None:
            wanted = factor * int(stock[name])
            choices[name] = min(values, key=lambda offered: abs(math.log(int(offered) / wanted)))
        elif value in values:
            choices[name] = value
        elif name == "activation":
            choices[name] = values[0]
        else:
            return None
    return choices


def _factors(stock: Architecture, design: Architecture) -> str:
    """`-w0.50`, `-w1.50-d1.84`: the geometric means of how many times as wide and as deep a design is."""
    one, other = values_of(stock), values_of(design)
    text = ""
    for key in ("width", "depth"):
        logs = [math.log(int(other[name]) / int(one[name])) for name in one if name.endswith(f".{key}")]
        factor = f"{math.exp(sum(logs) / len(logs)):.2f}"
        text += "" if factor == "1.00" else f"-{key[0]}{factor}"
    return text

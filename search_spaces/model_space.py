"""The search space around a model that a user made."""

from __future__ import annotations

import logging
from dataclasses import replace

from search_spaces.architecture import MAX_DEPTH, MAX_WIDTH, WIDTH_STEP
from search_spaces.families import get_family
from search_spaces.model_architecture import architecture_of
from search_spaces.model_file import Model
from search_spaces.space import LEVELS, SearchSpace, Value, values_of
from search_spaces.space_reader import library_space

WIDTHS = (0.5, 0.75, 1.0, 1.5)  # of the model's own

log = logging.getLogger(__name__)


def space_around(model: Model) -> SearchSpace:
    """A space whose points are the model and others like it.

    At each place the model's own block and those of the family's library space; half to one and a half times its
    widths, its depths and one more or less. A neck as wide as the backbone stays so.

    Raises:
        ModelError: If a row of the model is not understood.
    """
    own = replace(architecture_of(model), imgsz=None)
    if model.scale_from == "first of its scales":
        log.warning("the search space is around %s", model.text)
    values, library = values_of(own), library_space(get_family(own.family).baseline).choices
    tied = {
        f"neck.{name}.width"
        for name, stage, level in zip(LEVELS, own.stages[1:], own.neck.levels, strict=True)
        if level.width == stage.downsample_width
    }
    widens = {name: _widens(values, name, library[name]) for name in values if name.endswith(".widen")}
    choices: dict[str, tuple[Value, ...]] = {}
    for name, value in values.items():
        place, _, kind = name.rpartition(".")
        if name in tied or name == "activation":  # which stays that of the blocks
            continue
        if name in widens:
            choices[name] = widens[name]
        elif kind == "width":
            choices[name] = _widths(int(value), max(map(int, widens.get(f"{place}.widen", (1,)))))
        elif kind == "depth":
            depth = int(value)
            choices[name] = tuple(range(max(depth - 1, 1), min(depth + 1, MAX_DEPTH) + 1))
        else:
            choices[name] = tuple(dict.fromkeys((value, *library[name])))
    return SearchSpace(model.name, own.family, choices, own)


def _widens(values: dict[str, Value], name: str, known: tuple[Value, ...]) -> tuple[Value, ...]:
    """How many times wider a block may be than its downsampling: what the model's own width can be divided by."""
    width = int(values[name.replace(".widen", ".width")])
    possible = {int(value) for value in known if width % (WIDTH_STEP * int(value)) == 0}
    return tuple(sorted({int(values[name]), *possible}))


def _widths(own: int, widen: int) -> tuple[int, ...]:
    """Multiples of what the width must be one of, from half of the model's own to one and a half times it."""
    step = WIDTH_STEP * widen
    found = {max(round(own * share / step), 1) * step for share in WIDTHS}
    return tuple(sorted(width for width in found | {own} if width <= MAX_WIDTH))

"""The architecture of a model that a user made: its rows read, one after the other, as those of a known family."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from search_spaces.architecture import Architecture, Level, Neck, Stage, Stem
from search_spaces.block import Block, Place, Row
from search_spaces.blocks import get_block, list_blocks
from search_spaces.families import get_family, list_families
from search_spaces.model_file import Model
from search_spaces.model_rows import ModelError, row_text
from search_spaces.presets import load_preset

if TYPE_CHECKING:
    from torch import nn
    from ultralytics.nn.tasks import DetectionModel

PROBE_PX = 64  # of the image whose maps tell how many channels each row gives
SILU = re.compile(r"torch\.nn\.SiLU\((inplace=)?(True|False)?\)")


def architecture_of(model: Model) -> Architecture:
    """The architecture whose model file builds the same layers as the model's.

    Raises:
        ModelError: If no family has such rows; names the first row that is not understood, and what would be.
    """
    if model.architecture is not None:
        return model.architecture
    activation = model.file.get("activation", "torch.nn.SiLU()")
    if not SILU.fullmatch(activation):
        raise ModelError(
            f"{model.name}: activation {activation} is not understood; the known families have torch.nn.SiLU()"
        )
    network = model.build()
    widths = _widths(network)
    readings = [_Reading(model, network, widths, name) for name in list_families()]
    refusals = []
    for reading in sorted(readings, key=lambda reading: reading.likeness, reverse=True):
        try:
            return reading.architecture()
        except _NotUnderstoodError as refusal:
            refusals.append((reading.likeness, reading.reached, str(refusal)))
    raise ModelError(max(refusals, key=lambda refusal: refusal[:2])[-1])


class _NotUnderstoodError(Exception):
    """A row that a family does not have there."""


@dataclass(frozen=True)
class _Found:
    """What stands at a place."""

    block: str
    width: int
    depth: int
    widen: int


class _Reading:
    """Reads a model's rows from the first to the last as those of one family.

    Attributes:
        likeness: How many rows name what the family's stock models name, and whether its head has the same halves.
        reached: The row that is read next.
    """

    def __init__(self, model: Model, network: DetectionModel, widths: Sequence[int], family: str):
        self._model, self._widths, self._name, self._family = model, widths, family, get_family(family)
        self._rows: list[Row] = model.file["backbone"] + model.file["head"]
        self._layers = list(network.model)
        stock = replace(load_preset(self._family.baseline), attention="C2PSA")
        self._places = stock.places
        file = self._family.rows(stock, model.classes)
        rows = zip(file["roles"], file["backbone"] + file["head"], strict=True)
        self._stock_rows: dict[str, Row] = {role: row for role, row in rows if not role.rpartition(".")[2].isdigit()}
        named = [row[2] for row in self._stock_rows.values()]
        same_head = file.get("end2end", False) == model.file.get("end2end", False)
        self.likeness = sum(row[2] in named for row in self._rows), same_head
        self.reached = 0

    def architecture(self) -> Architecture:
        """What all rows together are.

        Raises:
            _NotUnderstoodError: At the first row that differs from the family's.
        """
        found: dict[str, _Found] = {}
        for role, row in self._stock_rows.items():
            if role == "attention":
                if attention := self._read(role)[0]:
                    found[role] = attention
            elif role.endswith((".block", ".downsample")):
                part, rows = self._read(role)
                if part is None:
                    raise self._refusal(role, rows[0])
                found[role] = part
            elif type(self._layers[self.reached]).__name__ == row[2].rpartition(".")[2]:
                self.reached += 1
            else:
                raise self._refusal(role, self._at_width(role, row))
        architecture = self._assembled(found)
        self._compare(architecture)
        return architecture

    def _assembled(self, found: dict[str, _Found]) -> Architecture:
        def stage(level: str) -> Stage:
            part = found[f"{level}.block"]
            return Stage(found[f"{level}.downsample"].block, part.block, part.width, part.depth, part.widen)

        def level(role: str) -> Level:
            part = found[role]
            return Level(part.block, part.width, part.depth)

        levels = (level("neck.P3.block"), level("neck.P4.up.block"), level("neck.P5.block"))
        stem = found["P1.downsample"]
        return Architecture(
            family=self._name,
            stem=Stem(stem.block, stem.width),
            stages=(stage("P2"), stage("P3"), stage("P4"), stage("P5")),
            neck=Neck(found["neck.P4.downsample"].block, levels),
            attention=found["attention"].block if "attention" in found else "none",
        )

    def _read(self, role: str) -> tuple[_Found | None, list[Row]]:
        """The block that the next rows are; None if they are none, and what would be one."""
        from search_spaces import hook

        in_neck, down = role.startswith("neck."), role.endswith(".downsample")
        place = "neck.downsample" if in_neck and down else role.replace(".up.", ".")
        row, in_chs, width = self._rows[self.reached], self._in_chs(), self._widths[self.reached]
        widen = 2 if width == 2 * in_chs and role in ("P2.block", "P3.block", "P4.block", "P5.block") else 1
        if not in_neck and not down:
            width = widen * in_chs  # a stage is once or twice as wide as its downsampling, attention as the stage

        def at(depth: int) -> Place:
            return Place(in_chs, width, 1 if down else depth, 2 if down else 1, widen, in_neck)

        likely: list[Row] = []
        for name in list_blocks("attention" if role == "attention" else "downsample" if down else "stage"):
            block = get_block(name)
            if row[2] != block.module.__name__ or self._family.refusal(place, name):
                continue
            for depth in self._depths(block):
                try:  # widths and depths that no architecture can have
                    Stage(name, name, width, depth, widen)
                except ValueError as error:
                    raise self._error(f"as {role}, {error}") from error
                rows = block.rows(at(depth))
                layers = hook.build_rows(rows, in_chs)
                if self._same(layers):
                    self.reached += len(rows)
                    return _Found(name, width, depth, widen), rows
                likely = likely or rows
        return None, likely or get_block(self._places[place]).rows(at(1))

    def _depths(self, block: Block) -> list[int]:
        """How many units the next rows may be of."""
        _, _, module, arguments = self._rows[self.reached]
        if block.depth == "argument":
            return [arguments[-1]] if arguments and type(arguments[-1]) is int and arguments[-1] > 0 else [1]
        here = self._repeats(self.reached)
        source, _, follows, _ = self._rows[self.reached + 1] if self.reached + 1 < len(self._rows) else (0, 0, "", [])
        if block.depth == "stacked" and here == 1 and source == -1 and follows == module:
            return [1 + self._repeats(self.reached + 1), 1]  # the first unit in a row of its own, or none follows
        return [here]

    def _repeats(self, number: int) -> int:
        """As Ultralytics scales them."""
        file = self._model.file
        scales = file.get("scales")
        multiple = scales[file["scale"]][0] if scales else file.get("depth_multiple", 1.0)
        repeats: int = self._rows[number][1]
        return max(round(repeats * multiple), 1) if repeats > 1 else repeats

    def _in_chs(self) -> int:
        if self.reached == 0:
            return 3
        sources = _sources(self._layers[self.reached].f, self.reached)
        return sum(self._widths[source] for source in sources)

    def _same(self, expected: Sequence[nn.Module]) -> bool:
        there = self._layers[self.reached : self.reached + len(expected)]
        return len(there) == len(expected) and all(map(_alike, there, expected))

    def _compare(self, architecture: Architecture) -> None:
        """Refuse the first row that differs from the architecture's: in what it reads, too."""
        from search_spaces import hook

        file = self._family.model_file(architecture, self._model.classes)
        roles, rows = self._family.roles(architecture), file["backbone"] + file["head"]
        for number, layer in enumerate(hook.build(file).model):
            mine = self._layers[number]
            if not _alike(mine, layer) or _sources(mine.f, number) != _sources(layer.f, number):
                self.reached = number
                raise self._refusal(roles[number], rows[number])

    def _at_width(self, role: str, row: Row) -> Row:
        """The stock model's row, the pooling as wide as the model is there."""
        if role != "pooling":
            return row
        width, stock = self._in_chs(), row[3][0]
        return [*row[:3], [width, *(width // 2 if argument == stock // 2 else argument for argument in row[3][1:])]]

    def _refusal(self, role: str, expected: Row) -> _NotUnderstoodError:
        scaled = self._model.file.get("scales") or {"width_multiple", "depth_multiple"} & self._model.file.keys()
        numbers = ", its numbers as scaled" if scaled else ""
        row = row_text(self.reached, expected).split(" ", 2)[2]
        return self._error(f"{self._name} has {role} there, such as {row}{numbers}")

    def _error(self, why: str) -> _NotUnderstoodError:
        row = row_text(self.reached, self._rows[self.reached])
        return _NotUnderstoodError(f"{self._model.name}: {row} is not understood; {why}")


def _widths(network: DetectionModel) -> list[int]:
    """Channels that each row gives, the last, the head, left out."""
    import torch

    widths: list[int] = []

    def note(_: Any, __: Any, out: Any) -> None:
        widths.append(out.shape[1] if isinstance(out, torch.Tensor) else 0)  # a row that gives several maps: 0

    handles = [layer.register_forward_hook(note) for layer in list(network.model)[:-1]]
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
    finally:
        for handle in handles:
            handle.remove()
    return [*widths, 0]


def _alike(one: nn.Module, other: nn.Module) -> bool:
    return _content(one) == _content(other)


def _content(layer: nn.Module) -> list[Any]:
    """All that decides what a layer computes, its weights' values aside."""
    return [
        (
            name,
            type(part).__name__,
            part.extra_repr(),
            [tuple(value.shape) for value in part.parameters(recurse=False)],
            {
                key: value
                for key, value in vars(part).items()
                if isinstance(value, (bool, int, float, str)) and key not in ("training", "i", "f", "type", "np")
            },
        )
        for name, part in layer.named_modules()
    ]


def _sources(source: int | list[int], number: int) -> list[int]:
    """The rows that a row reads, counted from the first."""
    return [one if one >= 0 else number + one for one in (source if isinstance(source, list) else [source])]

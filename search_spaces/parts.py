"""What a detector consists of, place by place: which rows stand there, what they read, how wide that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from search_spaces.architecture import Architecture
from search_spaces.block import Row
from search_spaces.families import get_family

IMAGE = "image"
IMAGE_CHANNELS = 3
WEIGHTLESS = ("Concat", "nn.Upsample")
HEAD = "detect"
REMEMBERED = 4096  # architectures


@dataclass(frozen=True)
class Part:
    """What an architecture has at one place.

    Attributes:
        place: Such as `P2.block`, `neck.P4.up.block` or `detect`.
        rows: Of the model file, each reading the one before; the head's names its inputs.
        layers: Where the rows are in the network.
        sources: The places that the first row reads, joined in this order; the head reads each by itself.
        in_widths: Channels of each source.
        width: Channels that it gives; 0 for the head, whose outputs follow from the classes.
    """

    place: str
    rows: tuple[Row, ...]
    layers: tuple[int, ...]
    sources: tuple[str, ...]
    in_widths: tuple[int, ...]
    width: int

    @property
    def is_head(self) -> bool:
        """Whether it reads its sources one by one, and gives the network's outputs."""
        return self.place == HEAD

    @property
    def shape(self) -> tuple[str, tuple[int, ...]]:
        """What it is, wherever it stands: equal for two parts that the same weights fit."""
        return repr([row[1:] for row in self.rows]), self.in_widths


@lru_cache(maxsize=REMEMBERED)
def parts_of(architecture: Architecture) -> Mapping[str, Part]:
    """The parts of an architecture by place, in the order in which they are computed."""
    file = get_family(architecture.family).rows(architecture, 1)
    rows, roles = file["backbone"] + file["head"], file["roles"]
    gives: list[tuple[tuple[str, int], ...]] = []  # of each row: which places' channels, and how many
    found: dict[str, Part] = {}
    for index, (row, role) in enumerate(zip(rows, roles, strict=True)):
        indices = row[0] if isinstance(row[0], list) else [row[0]]
        read = [one for i in indices for one in _given(gives, index, i)]
        if row[2] in WEIGHTLESS:
            gives.append(tuple(read))
            continue
        place = _place(role)
        width = 0 if place == HEAD else row[3][0]
        before = found.get(place)
        sources, in_widths = zip(*read, strict=True)
        found[place] = Part(
            place,
            (*before.rows, row) if before else (row,),
            (*before.layers, index) if before else (index,),
            before.sources if before else sources,
            before.in_widths if before else in_widths,
            width,
        )
        gives.append(((place, width),))
    return MappingProxyType(found)


def _given(gives: list[tuple[tuple[str, int], ...]], index: int, source: int) -> tuple[tuple[str, int], ...]:
    at = index + source if source < 0 else source
    return gives[at] if at >= 0 else ((IMAGE, IMAGE_CHANNELS),)


def _place(role: str) -> str:
    """Without the number of a row among several at the same place."""
    name, _, number = role.rpartition(".")
    return name if number.isdigit() else role

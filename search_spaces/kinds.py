"""What a library of blocks has: which block at which place, and in which widths and depths it comes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from search_spaces.activation import DEFAULT
from search_spaces.architecture import Architecture
from search_spaces.parts import parts_of
from search_spaces.space import STAGES, Choices, SearchSpace, Value, values_of

FORMS = 16  # between the largest and the smallest that an entry is trained in
NUMBERS = (".width", ".depth")
SIZES = (*NUMBERS, ".widen")
WIDENS = tuple(f"{level}.widen" for level in STAGES)
PLAIN = "-"
FIXED = ("activation", "imgsz")  # the same for a parent and all that imitate it


@dataclass(frozen=True)
class Kind:
    """What an entry is of: a block at a place, in all widths and depths.

    Attributes:
        place: Where.
        block: Which; `-` where there is nothing to choose: the pooling, the head.
        widen: Of a stage: blocks are put together in another way where they widen what they read.
    """

    place: str
    block: str
    widen: int = 1

    @property
    def text(self) -> str:
        """For records; `parse` reads it."""
        return f"{self.place}|{self.block}|{self.widen}"

    @classmethod
    def parse(cls, text: str) -> Kind:
        """Read what `text` wrote."""
        place, block, widen = text.split("|")
        return cls(place, block, int(widen))

    @classmethod
    def of(cls, place: str, architecture: Architecture) -> Kind:
        """What an architecture has at a place."""
        choice = choice_at(place)
        if choice is None:
            return cls(place, PLAIN)
        stages = dict(zip(STAGES, architecture.stages, strict=True))
        level, _, part = place.partition(".")
        return cls(
            place, architecture.places[choice], stages[level].widen if part == "block" and level in stages else 1
        )

    @property
    def choices(self) -> dict[str, str | int]:
        """What a design has to have it."""
        choice = choice_at(self.place)
        found: dict[str, str | int] = {} if choice is None else {choice: self.block}
        level, _, part = self.place.partition(".")
        return found | ({f"{level}.widen": self.widen} if part == "block" and level in STAGES else {})


def choice_at(place: str) -> str | None:
    """The choice of a space that says which block stands at a place; None where there is none."""
    if place in ("pooling", "detect"):
        return None
    if place.startswith("neck.") and place.endswith(".downsample"):
        return "neck.downsample"
    return place.replace(".up.", ".")


def can_have_library(space: SearchSpace) -> bool:
    """Whether designs of a space agree, with the stock model too, in what all blocks of a library have in common."""
    stock = DEFAULT if space.model is None else values_of(space.model)["activation"]
    sizes, activations = space.choices.get("imgsz", ()), space.choices.get("activation", (stock,))
    return len(sizes) <= 1 and set(activations) == {stock}


def kinds_of(space: SearchSpace, start: Choices) -> list[Kind]:
    """What there must be entries of for all of a space's designs.

    Args:
        space: The space.
        start: Any point of it.

    Raises:
        ValueError: If designs differ in what an entry is not made for: the activation, the size of the image.
    """
    if not can_have_library(space):
        raise ValueError(f"blocks imitate a parent for one of {FIXED}, and space {space.name} chooses among several")
    found: dict[Kind, None] = {}
    widens = [dict(zip(WIDENS, values, strict=True)) for values in product(*(space.choices[name] for name in WIDENS))]
    for name in space.choices:
        for value in () if name.endswith(SIZES) else space.choices[name]:
            for widen in widens:
                architecture = space.architecture({**start, **widen, name: value})
                found.update((Kind.of(place, architecture), None) for place in parts_of(architecture))
    return list(found)


def largest_of(space: SearchSpace, start: Choices, kind: Kind) -> Architecture:
    """A design with all that an entry's other forms are slices of: as wide and deep as the space allows."""
    sizes = {
        name: max(map(int, values)) for name, values in space.choices.items() if name.endswith((".width", ".depth"))
    }
    sizes |= {name: min(map(int, space.choices[name])) for name in WIDENS}  # the downsampling is as wide as the block
    designs = [
        space.architecture({**start, **sizes, "neck.downsample": block, **kind.choices})
        for block in space.choices["neck.downsample"]
    ]

    def size(architecture: Architecture) -> tuple[int, int]:
        part = parts_of(architecture)[kind.place]
        return sum(part.in_widths), part.width

    return max(designs, key=size)


def forms_of(space: SearchSpace, start: Choices, kind: Kind, seed: int) -> list[Architecture]:
    """Designs with a kind of block in different forms: of the start's sizes, the largest, the smallest, random ones.

    Args:
        space: The space.
        start: The point of it that is the parent, or is nearest to it.
        kind: Which block, and where.
        seed: Of the random ones.
    """
    rng = np.random.default_rng(seed)
    sizes = {
        name: values for name, values in space.choices.items() if name.endswith(SIZES) or name == "neck.downsample"
    }
    numbers = {name: values for name, values in sizes.items() if name.endswith((".width", ".depth"))}
    designs = [
        space.architecture({**start, **kind.choices}),
        largest_of(space, start, kind),
        space.architecture(
            {**start, **{name: min(map(int, values)) for name, values in numbers.items()}, **kind.choices}
        ),
    ]
    for _ in range(FORMS):
        drawn = {name: values[int(rng.integers(len(values)))] for name, values in sizes.items()}
        designs.append(space.architecture({**start, **drawn, **kind.choices}))
    found: dict[object, Architecture] = {}
    for design in designs:
        found.setdefault(parts_of(design)[kind.place].shape, design)
    return list(found.values())


def nearest_choices(space: SearchSpace, architecture: Architecture) -> Choices:
    """The point of a space that is an architecture, or is as near to it as the space allows."""
    wanted, found = values_of(architecture), dict[str, Value]()
    for name, values in space.choices.items():
        value = wanted.get(name)
        numbers = [one for one in values if isinstance(one, int)]
        if value in values:
            found[name] = value
        elif isinstance(value, int) and numbers:
            found[name] = min(numbers, key=lambda one: abs(one - value))
        else:
            found[name] = values[0]
    return found

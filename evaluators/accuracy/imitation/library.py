"""The entries of a space: which there are, in which forms they come, and where they are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from evaluators.accuracy.checkpoints import load_checkpoint, save_checkpoint
from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.parent import Interfaces
from search_spaces.architecture import Architecture
from search_spaces.parts import Part, parts_of
from search_spaces.space import Choices, SearchSpace

if TYPE_CHECKING:
    from evaluators.location import Location

FORMAT = 1
FORMS = 16  # between the largest and the smallest that an entry is trained in
SIZES = (".width", ".depth")
PLAIN = "-"  # the block at places where there is nothing to choose: the pooling, the head


def largest_of(space: SearchSpace, start: Choices, place: str, block: str) -> Architecture:
    """A design with a block at a place and the largest sizes of the space."""
    sizes = {name: max(map(int, values)) for name, values in space.choices.items() if name.endswith(SIZES)}
    choice = choice_at(place)
    return space.architecture({**start, **sizes, **({} if choice is None else {choice: block})})


def choice_at(place: str) -> str | None:
    """The choice of a space that says which block stands at a place; None where there is none."""
    if place in ("pooling", "detect"):
        return None
    if place.startswith("neck.") and place.endswith(".downsample"):
        return "neck.downsample"
    return place.replace(".up.", ".")


def block_at(place: str, architecture: Architecture) -> str:
    """The block that an architecture has at a place."""
    choice = choice_at(place)
    return PLAIN if choice is None else architecture.places[choice]


def blocks_of(space: SearchSpace, start: Choices) -> list[tuple[str, str]]:
    """Place and block of every entry that a space's designs are made of.

    Args:
        space: The space.
        start: Any point of it.
    """
    found: dict[tuple[str, str], None] = {}
    choices = {name for name in space.choices if not name.endswith((".width", ".depth", ".widen"))}
    for name in sorted(choices & {"attention", "neck.downsample", *(n for n in choices if "." in n)}):
        for value in space.choices[name]:
            architecture = space.architecture({**start, name: value})
            for place in parts_of(architecture):
                if choice_at(place) in (name, None):
                    found[place, block_at(place, architecture)] = None
    return list(found)


def forms_of(space: SearchSpace, start: Choices, place: str, block: str, seed: int) -> list[Architecture]:
    """Designs with a block at a place: of the start's sizes, the largest, the smallest, and random ones.

    Each has another form at that place.

    Args:
        space: The space.
        start: The point of it that is the parent, or is nearest to it.
        place: Where.
        block: Which.
        seed: Of the random ones.
    """
    rng = np.random.default_rng(seed)
    choice = choice_at(place)
    fixed = {**start} if choice is None else {**start, choice: block}
    sizes = {name: values for name, values in space.choices.items() if name.endswith(SIZES)}
    picks: list[Mapping[str, int | str]] = [
        {},
        {name: max(values, key=int) for name, values in sizes.items()},
        {name: min(values, key=int) for name, values in sizes.items()},
    ]
    for _ in range(FORMS):
        picks.append({name: values[int(rng.integers(len(values)))] for name, values in sizes.items()})
    found: dict[object, Architecture] = {}
    for pick in picks:
        architecture = space.architecture({**fixed, **pick})
        found.setdefault(parts_of(architecture)[place].shape, architecture)
    return list(found.values())


class Library:
    """Entries by place and block.

    Args:
        interfaces: Of the parent.
    """

    def __init__(self, interfaces: Interfaces):
        self.interfaces = interfaces
        self._entries: dict[tuple[str, str], Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Add an entry, in the place of one that is there."""
        self._entries[entry.place, block_at(entry.place, entry.largest)] = entry

    def find(self, architecture: Architecture, part: Part) -> Entry:
        """The entry for a part of an architecture.

        Raises:
            KeyError: If there is none.
        """
        return self._entries[part.place, block_at(part.place, architecture)]

    def has(self, architecture: Architecture) -> bool:
        """Whether an architecture can be put together."""
        return all(
            (place, block_at(place, architecture)) in self._entries or self.interfaces.parent.has(part)
            for place, part in parts_of(architecture).items()
        )


def key_of(parent: str, place: str, largest: Architecture, steps: int) -> str:
    """What an entry is called by its content, sixteen hexadecimal digits.

    Args:
        parent: A digest of the parent's weights, and of what it was trained on.
        place: Where.
        largest: With the block there; what else it has is nothing to the entry.
        steps: Of its training.
    """
    part = parts_of(largest)[place]
    document = json.dumps([FORMAT, parent, place, part.shape, largest.activation, steps])
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def save_entry(entry: Entry, steps: int, error: float, location: Location) -> None:
    """Write an entry, as a whole.

    Raises:
        StoreError: If that fails.
    """
    document = {
        "format": FORMAT,
        "place": entry.place,
        "largest": entry.largest.document,
        "seed": entry.seed,
        "steps": steps,
        "error": error,
        "weights": {name: value.detach() for name, value in entry.weights.items()},
    }
    save_checkpoint(document, location)


def load_entry(interfaces: Interfaces, location: Location) -> Entry:
    """Read an entry that imitates this parent.

    Raises:
        FileNotFoundError: If there is none.
        StoreError: If it cannot be read.
        ValueError: If another version wrote it.
    """
    saved = load_checkpoint(location)
    if saved.get("format") != FORMAT:
        raise ValueError(f"{location} was written by another version of nas-yolo")
    entry = Entry(interfaces, saved["place"], Architecture.from_document(saved["largest"]), saved["seed"])
    entry.load(saved["weights"])
    return entry

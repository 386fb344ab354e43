"""The entries that designs are put together from."""

from __future__ import annotations

from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.parent import Interfaces
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind
from search_spaces.parts import Part, parts_of


class Library:
    """Entries by place and block.

    Args:
        interfaces: Of the parent.
    """

    def __init__(self, interfaces: Interfaces):
        self.interfaces = interfaces
        self._entries: dict[Kind, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry, in the place of one that is there."""
        self._entries[Kind.of(entry.place, entry.largest)] = entry

    def find(self, architecture: Architecture, part: Part) -> Entry:
        """The entry for a part of an architecture.

        Raises:
            KeyError: If there is none.
        """
        return self._entries[Kind.of(part.place, architecture)]

    def parent_has(self, architecture: Architecture, part: Part) -> bool:
        """Whether the parent itself has just this part."""
        return self.interfaces.parent.has(architecture, part)

    def has_kind(self, kind: Kind) -> bool:
        """Whether there is an entry of it."""
        return kind in self._entries

    def has(self, architecture: Architecture) -> bool:
        """Whether an architecture can be put together."""
        return all(
            Kind.of(place, architecture) in self._entries or self.parent_has(architecture, part)
            for place, part in parts_of(architecture).items()
        )

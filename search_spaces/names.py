"""Names that nobody knows: what to tell the user, with the nearest one that is known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from search_spaces.errors import UserError


class UnknownNameError(UserError, ValueError):
    """A name that is not one of those that are known."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One line that says that `name` is not one of `known`, with the nearest word or else all of them."""
    known = sorted(known)
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like `name`, whatever the case; None if none is."""
    by_lower = {word.lower(): word for word in sorted(known)}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[near[0]] if near else None

"""A new search in the database."""

from __future__ import annotations

import re
from pathlib import Path

from evaluators.location import check_writable
from nas_yolo.application.reuse import take_over
from nas_yolo.config import SearchConfig
from search_spaces.errors import UserError
from storage import Repository, Search


def create_search(repository: Repository, name: str, config: SearchConfig) -> Search:
    """Add a search to the database; it begins with the library of an earlier one, where there is one that fits.

    Raises:
        UserError: If the name is taken or cannot be a folder's, or artifacts cannot be written where they are to be.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"name {name!r} may have letters, digits, '.', '_' and '-' only, and starts with one of the first two"
        )
    if config.artifacts is not None and name not in _taken(repository):  # else it is refused, with nothing written
        check_writable(config.artifacts)
    search = repository.create_search(name, config.document())
    take_over(repository, search)
    return search


def free_name(repository: Repository, data: Path) -> str:
    """A name from the data file: its folder's if the file is just called data.yaml; numbered if taken."""
    stem = data.resolve().parent.name if data.stem == "data" else data.stem
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "search"
    taken = _taken(repository)
    number = 1
    while (name := stem if number == 1 else f"{stem}-{number}") in taken:
        number += 1
    return name


def _taken(repository: Repository) -> set[str]:
    return {search.name for search in repository.searches()}

"""What a user may name as a space: one of the library, a file of one, or a model to make one around."""

from __future__ import annotations

from pathlib import Path

from search_spaces.model_file import read_model
from search_spaces.model_space import space_around
from search_spaces.names import unknown
from search_spaces.space import SearchSpace, SpaceError
from search_spaces.space_reader import SpaceReader, library_space, list_spaces, read_space


def load_space(name_or_path: str) -> SearchSpace:
    """Read a space of the library by name, or any file: of a space, or of a model (YAML, .pt) to make one around.

    Raises:
        SpaceError: If there is none, or it holds an unknown key or an impossible value.
        ModelError: If it is a model that no space can be made around.
    """
    library = list_spaces()
    if name_or_path in library:
        return library_space(name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise SpaceError(
            f"{unknown('space', name_or_path, library)}; or give a YAML file (copy one: nas-yolo spaces), or your model"
        )
    if path.suffix.lower() == ".pt" or SpaceReader(path).is_model:
        return space_around(read_model(name_or_path))
    return read_space(name_or_path, path)

"""The images and labels of a search, read as its training arguments say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evaluators.dataset import Progress, Reading, read_dataset

MEANING = ("single_cls", "classes")  # training arguments that change what labels mean
Reader = Callable[[str, bool, Mapping[str, Any]], Reading]


def read_data(data: str, skip_bad: bool, arguments: Mapping[str, Any], progress: Progress | None = None) -> Reading:
    """Read a data set; nothing is written.

    Args:
        data: The data YAML.
        skip_bad: Leave out what cannot be used.
        arguments: Of the trainings; some change what labels mean.
        progress: Is told how many images are read, and of how many.
    """
    classes = arguments.get("classes")
    return read_dataset(
        data,
        skip_bad,
        single_cls=bool(arguments.get("single_cls")),
        classes=[classes] if isinstance(classes, int) else classes,
        progress=progress,
    )

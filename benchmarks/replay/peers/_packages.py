"""Packages that only peers need."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


class MissingPackageError(ModuleNotFoundError):
    """A peer's package is not installed."""


def library(name: str) -> Any:
    """A module of a package that only benchmarks need.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what they use that is deprecated
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        message = f"this peer needs the package {error.name}: pip install 'nas-yolo[bench]'"
        raise MissingPackageError(message, name=error.name) from error

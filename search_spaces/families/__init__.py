"""One file per base detector. Each defines `family`, which turns an architecture into an Ultralytics model file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from search_spaces.families._family import Family, ModelFile
from search_spaces.names import UnknownNameError, unknown

__all__ = ["Family", "ModelFile", "get_family", "list_families"]


def list_families() -> tuple[str, ...]:
    """All family names, sorted. Imports neither torch nor Ultralytics."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


@cache
def get_family(name: str) -> Family:
    """The family of that name.

    Raises:
        UnknownNameError: If there is none; the message names the nearest.
    """
    if name not in list_families():
        raise UnknownNameError(unknown("family", name, list_families()))
    module = importlib.import_module(f"{__name__}.{name}")
    family: Family = module.family
    return family

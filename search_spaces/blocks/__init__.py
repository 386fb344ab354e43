"""All blocks by name: one file per paper, which registers its own, and those of plugins.

Importing this package loads none of them, and no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from search_spaces.block import Block, BlockError, Role
from search_spaces.names import UnknownNameError, unknown
from search_spaces.registry import registered

ENTRY_POINTS = "nas_yolo.blocks"


@cache
def _load_blocks() -> None:
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    for plugin in entry_points(group=ENTRY_POINTS):
        try:
            plugin.load()
        except Exception as error:
            source = plugin.dist.name if plugin.dist else plugin.value
            said = " ".join(str(error).split()) or type(error).__name__
            raise BlockError(
                f"block plugin {plugin.name!r} of package {source!r} does not load: {said}; mend or uninstall it"
            ) from error


def list_blocks(role: Role | None = None) -> tuple[str, ...]:
    """Names of all blocks, or of those for one role, sorted. Every stage block may also stand as attention.

    The first call imports torch.

    Raises:
        BlockError: If a plugin does not load.
    """
    _load_blocks()
    wanted = {role, "stage"} if role == "attention" else {role}
    return tuple(sorted(name for name, block in registered().items() if role is None or wanted & block.roles))


def get_block(name: str) -> Block:
    """The block of that name.

    Raises:
        UnknownNameError: If there is none; the message names the nearest.
    """
    _load_blocks()
    if name not in registered():
        raise UnknownNameError(unknown("block", name, registered()))
    return registered()[name]


def our_modules() -> dict[str, Block]:
    """By class name, as in model files: one block of each class that Ultralytics does not know by itself."""
    _load_blocks()
    return {block.module.__name__: block for block in registered().values() if not block.stock}

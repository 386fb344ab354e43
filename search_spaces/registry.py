"""Names for things that are one file each: blocks and families. Adding one means adding its file."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.families import Family

    Module = TypeVar("Module", bound=type[nn.Module])


class UnknownNameError(UserError, ValueError):
    """A name that is not registered."""


@dataclass(frozen=True)
class Block:
    """A kind of layer that a search may put into a stage.

    Attributes:
        name: As written in spaces, results and model files.
        module: The class; built as `module(in_chs, out_chs, *arguments)`, or, where it takes its own depth,
            `module(in_chs, out_chs, depth, *arguments)`.
        arguments: What follows the width in the backbone rows of a model file.
        takes_depth: Whether the class builds `depth` units itself. Otherwise they are stacked.
        stock: Whether Ultralytics knows the name by itself.
        paper: Title and arXiv number of where the idea comes from.
        licence: Licence of the original code.
    """

    name: str
    module: type[nn.Module]
    arguments: tuple[Any, ...]
    takes_depth: bool
    stock: bool
    paper: str
    licence: str

    def build(self, in_chs: int, out_chs: int, depth: int = 1) -> nn.Module:
        """Build it outside a model: (N, in_chs, H, W) to (N, out_chs, H, W)."""
        from torch import nn

        if self.takes_depth:
            return self.module(in_chs, out_chs, depth, *self.arguments)
        widths = [in_chs] + [out_chs] * depth
        return nn.Sequential(*(self.module(i, o, *self.arguments) for i, o in pairwise(widths)))


_blocks: dict[str, Block] = {}


def register_block(
    name: str,
    *,
    paper: str,
    licence: str,
    arguments: tuple[Any, ...] = (),
    takes_depth: bool = True,
    stock: bool = False,
) -> Callable[[Module], Module]:
    """Make a module class available as a block. See `Block` for the arguments.

    Raises:
        ValueError: If another class already has the name.
    """

    def register(module: Module) -> Module:
        if name in _blocks and _blocks[name].module is not module:
            raise ValueError(f"block {name!r} is registered twice: {_blocks[name].module} and {module}")
        _blocks[name] = Block(name, module, arguments, takes_depth, stock, paper, licence)
        return module

    return register


@cache
def _load_blocks() -> None:
    import search_spaces.blocks as package

    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")


def list_blocks() -> tuple[str, ...]:
    """All block names, sorted. The first call imports torch."""
    _load_blocks()
    return tuple(sorted(_blocks))


def get_block(name: str) -> Block:
    """The block of that name.

    Raises:
        UnknownNameError: If there is none; the message names the nearest.
    """
    _load_blocks()
    if name not in _blocks:
        raise UnknownNameError(unknown("block", name, _blocks))
    return _blocks[name]


def list_families() -> tuple[str, ...]:
    """All family names, sorted. Imports neither torch nor Ultralytics."""
    import search_spaces.families as package

    return tuple(sorted(found.name for found in pkgutil.iter_modules(package.__path__)))


def get_family(name: str) -> Family:
    """The family of that name.

    Raises:
        UnknownNameError: If there is none; the message names the nearest.
    """
    if name not in list_families():
        raise UnknownNameError(unknown("family", name, list_families()))
    module = importlib.import_module(f"search_spaces.families.{name}")
    family: Family = module.family
    return family


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One line that says that `name` is not one of `known`, with the nearest word or else all of them."""
    known = sorted(known)
    by_lower = {word.lower(): word for word in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[near[0]]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"

"""How a block is made known: what its file imports, here and in packages of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from search_spaces.block import Block, BlockError, Place, Role, Row, StockForm

if TYPE_CHECKING:
    from torch import nn

    Module = TypeVar("Module", bound=type[nn.Module])

__all__ = ["BlockError", "Place", "Role", "Row", "StockForm", "register_block", "registered"]

_blocks: dict[str, Block] = {}


def _stride_argument(place: Place) -> tuple[Any, ...]:
    return () if place.stride == 1 else (place.stride,)


def register_block(
    name: str,
    *,
    paper: str,
    licence: str,
    roles: Iterable[Role] = ("stage",),
    arguments: Callable[[Place], tuple[Any, ...]] = _stride_argument,
    depth: Literal["inserted", "stacked", "argument"] = "inserted",
    stock: bool = False,
    stock_form: StockForm | None = None,
) -> Callable[[Module], Module]:
    """Make a module class available as a block. See `Block` for the arguments.

    By default the class is built as `module(in_chs, out_chs, depth)`, with a fourth argument, the stride 2, where it
    downsamples. A class from outside this package is held to `search_spaces.contract` at once.

    Raises:
        BlockError: If another class already has the name, or the class breaks the contract; names the check.
    """

    def register(module: Module) -> Module:
        if stock and not module.__module__.startswith("ultralytics."):
            raise BlockError(f"block {name!r}: stock means a class of Ultralytics, not of {module.__module__}")
        block = Block(name, module, frozenset(roles), arguments, depth, stock, stock_form, paper, licence)
        for other in _blocks.values():
            if name == other.name and module is not other.module:
                raise BlockError(f"block {name!r} is registered twice: {other.module} and {module}")
            if module.__name__ == other.module.__name__ and module is not other.module:
                raise BlockError(f"block {name!r}: model files already know another class {module.__name__!r}")
        if not stock and not module.__module__.startswith("search_spaces.blocks."):
            from ultralytics.nn import tasks

            from search_spaces.contract import check_block

            if module.__name__ in vars(tasks):
                raise BlockError(
                    f"block {name!r}: Ultralytics has a class {module.__name__!r} of its own; rename yours"
                )
            check_block(block)
        _blocks[name] = block
        return module

    return register


def registered() -> Mapping[str, Block]:
    """Those that have registered so far, by name; `search_spaces.blocks` loads all that there are."""
    return _blocks

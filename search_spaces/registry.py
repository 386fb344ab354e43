"""Names for things that are one file each: blocks and families. Adding one means adding its file."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search_spaces.families import Family

    Module = TypeVar("Module", bound=type[nn.Module])

ENTRY_POINTS = "nas_yolo.blocks"

Role = Literal["stage", "downsample", "attention"]
Row = list[Any]
"""One row of an Ultralytics model file: `[from, repeats, module, arguments]`."""


class UnknownNameError(UserError, ValueError):
    """A name that is not registered."""


class BlockError(UserError, ValueError):
    """A block that cannot be registered; says which check failed."""


@dataclass(frozen=True)
class Place:
    """Where a block stands in a detector: what it is given and what it shall give.

    Attributes:
        in_chs: Channels of its input.
        width: Channels of its output.
        depth: Number of units, at least 1.
        stride: 1, or 2 where it halves the resolution.
        widen: How many times wider a stage is than what its downsampling gives, 1 or 2. The stock models have
            `width / (2 * widen)` hidden channels there.
        in_neck: Whether it fuses two maps in the neck, rather than standing in the backbone.
    """

    in_chs: int
    width: int
    depth: int = 1
    stride: int = 1
    widen: int = 1
    in_neck: bool = False

    def __post_init__(self) -> None:
        if self.stride == 2 and self.depth != 1:
            raise ValueError(f"a downsampling has depth 1, not {self.depth}")


@dataclass(frozen=True)
class StockForm:
    """How a block of ours is written in rows that Ultralytics knows by itself.

    Attributes:
        rows: From a row's repeats and arguments to the rows that compute the same. They count inputs backwards:
            -1 is the row before, and for the first of them the block's own input.
        weights: From a built block to the state dict of each of these rows.
    """

    rows: Callable[[int, list[Any]], list[Row]]
    weights: Callable[[Any], list[dict[str, Tensor]]]


@dataclass(frozen=True)
class Block:
    """A kind of layer that a search may put into a detector.

    Attributes:
        name: As written in spaces and results.
        module: The class; built as `module(in_chs, out_chs, depth, *arguments)` if depth is `inserted`, else as
            `module(in_chs, out_chs, *arguments)`. A model file names it by its class name.
        roles: Where it may stand: in a `stage` and the neck, as a stride-2 `downsample`, or as `attention` only.
        arguments: What follows the width in a row, depending on the place.
        depth: Who makes `depth` units: `inserted`, the class, which Ultralytics gives the row's repeats as its third
            argument; `stacked`, the row's repeats; `argument`, the class, by an argument in the row.
        stock: Whether Ultralytics knows the class by itself.
        stock_form: For a block of ours: the same in Ultralytics' rows, if there is such a form.
        paper: Title and arXiv number of where the idea comes from.
        licence: Licence of the original code.
    """

    name: str
    module: type[nn.Module]
    roles: frozenset[Role]
    arguments: Callable[[Place], tuple[Any, ...]]
    depth: Literal["inserted", "stacked", "argument"]
    stock: bool
    stock_form: StockForm | None
    paper: str
    licence: str

    @property
    def loads_in_stock(self) -> bool:
        """Whether a detector of it can be written so that Ultralytics loads it without us."""
        return self.stock or self.stock_form is not None

    def rows(self, place: Place) -> list[Row]:
        """The rows that build it there, each reading the one before."""
        row = [-1, 1 if self.depth == "argument" else place.depth, self.module.__name__]
        if self.depth == "stacked" and place.depth > 1 and place.in_chs != place.width:
            # Ultralytics would build all units with the first one's input width.
            inner = Place(place.width, place.width, place.depth - 1, 1, 1, place.in_neck)
            return [[-1, 1, row[2], [place.width, *self.arguments(place)]], *self.rows(inner)]
        return [[*row, [place.width, *self.arguments(place)]]]

    def build(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1) -> nn.Module:
        """Build it outside a model: (N, in_chs, H, W) to (N, out_chs, H / stride, W / stride)."""
        return self.build_at(Place(in_chs, out_chs, depth, stride))

    def build_at(self, place: Place) -> nn.Module:
        """Build what its rows at this place build."""
        from torch import nn

        layers: list[nn.Module] = []
        in_chs = place.in_chs
        for _, repeats, _, (width, *arguments) in self.rows(place):
            if self.depth == "inserted":
                layers.append(self.module(in_chs, width, repeats, *arguments))
            else:
                layers += [self.module(in_chs, width, *arguments) for _ in range(repeats)]
            in_chs = width
        return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


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


@cache
def _load_blocks() -> None:
    import search_spaces.blocks as package

    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")
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
    return tuple(sorted(name for name, block in _blocks.items() if role is None or wanted & block.roles))


def get_block(name: str) -> Block:
    """The block of that name.

    Raises:
        UnknownNameError: If there is none; the message names the nearest.
    """
    _load_blocks()
    if name not in _blocks:
        raise UnknownNameError(unknown("block", name, _blocks))
    return _blocks[name]


def our_modules() -> dict[str, Block]:
    """By class name, as in model files: one block of each class that Ultralytics does not know by itself."""
    _load_blocks()
    return {block.module.__name__: block for block in _blocks.values() if not block.stock}


def list_families() -> tuple[str, ...]:
    """All family names, sorted. Imports neither torch nor Ultralytics."""
    import search_spaces.families as package

    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


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
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like `name`, whatever the case; None if none is."""
    by_lower = {word.lower(): word for word in sorted(known)}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[near[0]] if near else None

"""A block, and the place where it stands: what a search knows of a kind of layer. Plain data, and how to build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Role = Literal["stage", "downsample", "attention"]
Row = list[Any]
"""One row of an Ultralytics model file: `[from, repeats, module, arguments]`."""


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

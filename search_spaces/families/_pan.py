"""What the families share: stages P1 to P5, a path-aggregation neck (PAN), a Detect head on P3 to P5.

Paper: Path Aggregation Network for Instance Segmentation, arXiv:1803.01534.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.block import Place, Row
from search_spaces.blocks import get_block
from search_spaces.families._family import ModelFile


def same_width(downsample: str, width: int, next_width: int) -> int:
    """The neck's downsampling keeps the width of the level that it reads."""
    return width


def pan_rows(
    architecture: Architecture,
    nc: int,
    pooling: Callable[[int], Row],
    attention_first: bool,
    neck_downsample_width: Callable[[str, int, int], int] = same_width,
    **options: Any,
) -> ModelFile:
    """The model file, with explicit channels, and under `roles` what each row is for.

    Args:
        architecture: Of the family that calls.
        nc: Number of classes.
        pooling: The row of the spatial pooling after P5, from its width.
        attention_first: Whether attention is one unit before the pooling, or after it and as deep as P5.
        neck_downsample_width: Channels of the neck's downsampling, from its name and the widths of the level that it
            reads and of the next.
        options: Further entries of the model file.
    """
    rows: list[Row] = []
    roles: list[str] = []

    def append(role: str, *new: Row) -> int:
        """Append rows; the index of the last."""
        rows.extend(new)
        roles.extend(f"{role}.{number}" if number else role for number in range(len(new)))
        return len(rows) - 1

    def add(role: str, block: str, place: Place) -> int:
        return append(role, *get_block(block).rows(place))

    def upsample(level: str) -> None:
        append(f"neck.{level}.upsample", [-1, 1, "nn.Upsample", [None, 2, "nearest"]])

    def fuse(role: str, other: int) -> None:
        append(role, [[-1, other], 1, "Concat", [1]])

    width = architecture.stem.width
    add("P1.downsample", architecture.stem.downsample, Place(3, width, stride=2))
    ends = []
    for level, stage in zip(("P2", "P3", "P4", "P5"), architecture.stages, strict=True):
        add(f"{level}.downsample", stage.downsample, Place(width, stage.downsample_width, stride=2))
        place = Place(stage.downsample_width, stage.width, stage.depth, widen=stage.widen)
        ends.append(add(f"{level}.block", stage.block, place))
        width = stage.width
    attention = Place(width, width, 1 if attention_first else architecture.stages[-1].depth)
    if architecture.attention != "none" and attention_first:
        add("attention", architecture.attention, attention)
    append("pooling", pooling(width))
    if architecture.attention != "none" and not attention_first:
        add("attention", architecture.attention, attention)
    p5, backbone = len(rows) - 1, len(rows)

    _, w3, w4, w5 = (stage.width for stage in architecture.stages)
    n3, n4, n5 = architecture.neck.levels
    down = architecture.neck.downsample

    upsample("P4")
    fuse("neck.P4.up.fuse", ends[2])
    inner = add("neck.P4.up.block", n4.block, Place(w5 + w4, n4.width, n4.depth, in_neck=True))
    upsample("P3")
    fuse("neck.P3.fuse", ends[1])
    out3 = add("neck.P3.block", n3.block, Place(n4.width + w3, n3.width, n3.depth, in_neck=True))
    width = neck_downsample_width(down, n3.width, n4.width)
    add("neck.P4.downsample", down, Place(n3.width, width, stride=2, in_neck=True))
    fuse("neck.P4.fuse", inner)
    out4 = add("neck.P4.block", n4.block, Place(width + n4.width, n4.width, n4.depth, in_neck=True))
    width = neck_downsample_width(down, n4.width, n5.width)
    add("neck.P5.downsample", down, Place(n4.width, width, stride=2, in_neck=True))
    fuse("neck.P5.fuse", p5)
    out5 = add("neck.P5.block", n5.block, Place(width + w5, n5.width, n5.depth, in_neck=True))
    append("detect", [[out3, out4, out5], 1, "Detect", ["nc"]])
    return {"nc": nc, **options, "roles": roles, "backbone": rows[:backbone], "head": rows[backbone:]}

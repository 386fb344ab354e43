"""GhostConv and C2fGhost: half of the channels from a convolution, half from a cheap depthwise one.

Paper: GhostNet: More Features from Cheap Operations, arXiv:1911.11907. Original code: Apache-2.0 (Huawei Noah).
`GhostConv` and `GhostBottleneck` are Ultralytics' (AGPL-3.0), used, not copied; their cheap operation is a 5×5
depthwise convolution where the paper has 3×3.
Activation is Ultralytics' SiLU where the paper has ReLU, also in a search: it is what the rest of the detector has.
`C2fGhost` is YOLOv8's C2f with ghost bottlenecks as units; it is also what replaces C2f in `yolov8n-ghost`. It can be
written in Ultralytics' own rows: its first convolution is two, one for each half that C2f splits off.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import C2f, GhostBottleneck, GhostConv

from search_spaces.blocks.c2f import c2f_arguments
from search_spaces.registry import Row, StockForm, register_block

PAPER = "GhostNet, arXiv:1911.11907"

register_block(
    "GhostConv",
    paper=PAPER,
    licence="Apache-2.0 (original), AGPL-3.0 (Ultralytics)",
    roles=("stage", "downsample"),
    arguments=lambda place: (3, place.stride),
    depth="stacked",
    stock=True,
)(GhostConv)


def _rows(depth: int, arguments: list[Any]) -> list[Row]:
    """A convolution for each half of the hidden channels, the units, everything concatenated, a last convolution."""
    width, expand_ratio = arguments[0], arguments[3] if len(arguments) > 3 else 0.5
    hidden = _hidden_chs(width, expand_ratio)
    return [
        [-1, 1, "Conv", [hidden, 1, 1]],
        [-2, 1, "Conv", [hidden, 1, 1]],
        *([-1, 1, "GhostBottleneck", [hidden]] for _ in range(depth)),
        [list(range(-2 - depth, 0)), 1, "Concat", [1]],
        [-1, 1, "Conv", [width, 1, 1]],
    ]


def _weights(block: C2fGhost) -> list[dict[str, Tensor]]:
    first = block.cv1.state_dict()
    halves = [{k: v.chunk(2)[half] if v.ndim else v for k, v in first.items()} for half in (0, 1)]
    return [*halves, *(unit.state_dict() for unit in block.m), {}, block.cv2.state_dict()]


def _hidden_chs(width: int, expand_ratio: float) -> int:
    """Rounded up to a multiple of 8, as Ultralytics does for every row, so that the stock form is the same net."""
    return -(-int(width * expand_ratio) // 8) * 8


@register_block(
    "C2fGhost",
    paper=PAPER,
    licence="Apache-2.0 (original), AGPL-3.0 (C2f)",
    arguments=c2f_arguments,
    stock_form=StockForm(_rows, _weights),
)
class C2fGhost(C2f):  # type: ignore[misc]  # Ultralytics has no types
    """C2f whose units are ghost bottlenecks: (N, in_chs, H, W) to (N, out_chs, H, W).

    `shortcut` is taken for the sake of YOLOv8's rows and has no effect: a ghost bottleneck always has one.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        depth: int = 1,
        shortcut: bool = True,
        groups: int = 1,
        expand_ratio: float = 0.5,
    ):
        hidden = _hidden_chs(out_chs, expand_ratio)
        super().__init__(in_chs, out_chs, depth, shortcut, groups, (hidden + 0.5) / out_chs)  # C2f truncates
        self.m = nn.ModuleList(GhostBottleneck(hidden, hidden) for _ in range(depth))

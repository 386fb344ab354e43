"""GhostConv and C2fGhost: half of the channels from a convolution, half from a cheap depthwise one.

Paper: GhostNet: More Features from Cheap Operations, arXiv:1911.11907. Original code: Apache-2.0 (Huawei Noah).
`GhostConv` and `GhostBottleneck` are Ultralytics' (AGPL-3.0), used, not copied; their cheap operation is a 5×5
depthwise convolution where the paper has 3×3.
`C2fGhost` is YOLOv8's C2f with ghost bottlenecks as units; it is also what replaces C2f in `yolov8n-ghost`.
"""

from __future__ import annotations

from torch import nn
from ultralytics.nn.modules import C2f, GhostBottleneck, GhostConv

from search_spaces.registry import register_block

PAPER = "GhostNet, arXiv:1911.11907"

register_block(
    "GhostConv",
    paper=PAPER,
    licence="Apache-2.0 (original), AGPL-3.0 (Ultralytics)",
    arguments=(3, 1),
    takes_depth=False,
    stock=True,
)(GhostConv)


@register_block("C2fGhost", paper=PAPER, licence="Apache-2.0 (original), AGPL-3.0 (C2f)", arguments=(True,))
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
        super().__init__(in_chs, out_chs, depth, shortcut, groups, expand_ratio)
        self.m = nn.ModuleList(GhostBottleneck(self.c, self.c) for _ in range(depth))

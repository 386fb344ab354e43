"""YOLOv8: stem, stages P2 to P5, SPPF, a path-aggregation neck (PAN), an anchor-free Detect head on P3 to P5.

Source: Ultralytics YOLOv8 (AGPL-3.0). With the blocks, widths and depths of `presets/yolov8n.yaml` the rows below
build Ultralytics' own yolov8n.
"""

from __future__ import annotations

from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.families import Family, ModelFile
from search_spaces.registry import get_block

Row = list[Any]


def rows(architecture: Architecture, nc: int) -> ModelFile:
    """The model file, with explicit channels and no scales.

    Args:
        architecture: Of this family.
        nc: Number of classes.
    """
    stem, neck = architecture.stem, architecture.neck
    backbone: list[Row] = [[-1, 1, stem.downsample, [stem.width, 3, 2]]]
    for stage in architecture.stages:
        backbone.append([-1, 1, stage.downsample, [stage.width, 3, 2]])
        backbone.append([-1, stage.depth, stage.block, [stage.width, *get_block(stage.block).arguments]])
    backbone.append([-1, 1, "SPPF", [architecture.stages[-1].width, 5]])  # 9

    p3, p4, p5 = neck.widths
    head: list[Row] = [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 6], 1, "Concat", [1]],
        [-1, neck.depth, neck.block, [p4]],  # 12
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, neck.depth, neck.block, [p3]],  # 15, P3
        [-1, 1, "Conv", [p3, 3, 2]],
        [[-1, 12], 1, "Concat", [1]],
        [-1, neck.depth, neck.block, [p4]],  # 18, P4
        [-1, 1, "Conv", [p4, 3, 2]],
        [[-1, 9], 1, "Concat", [1]],
        [-1, neck.depth, neck.block, [p5]],  # 21, P5
        [[15, 18, 21], 1, "Detect", ["nc"]],
    ]
    return {"nc": nc, "backbone": backbone, "head": head}


family = Family(baseline="yolov8n", neck_blocks=("C2f", "C2fGhost"), rows=rows)

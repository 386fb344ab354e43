"""YOLO11: C3k2 stages that widen at P2 and P3, SPPF, attention (C2PSA), a lighter head that needs NMS.

Source: Ultralytics YOLO11 (AGPL-3.0). The presets yolo11n to yolo11x are Ultralytics' own models.
"""

from __future__ import annotations

from search_spaces.architecture import Architecture
from search_spaces.families._family import Family, ModelFile
from search_spaces.families._pan import pan_rows


def _rows(architecture: Architecture, nc: int) -> ModelFile:
    return pan_rows(architecture, nc, pooling=lambda width: [-1, 1, "SPPF", [width, 5]], attention_first=False)


family = Family(baseline="yolo11n", rows=_rows, light_head=True)

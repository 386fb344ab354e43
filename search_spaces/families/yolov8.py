"""YOLOv8: C2f stages, SPPF, an anchor-free head that needs NMS.

Source: Ultralytics YOLOv8 (AGPL-3.0). The presets yolov8n to yolov8x are Ultralytics' own models.
"""

from __future__ import annotations

from search_spaces.architecture import Architecture
from search_spaces.families._family import Family, ModelFile
from search_spaces.families._pan import pan_rows


def _rows(architecture: Architecture, nc: int) -> ModelFile:
    return pan_rows(architecture, nc, pooling=lambda width: [-1, 1, "SPPF", [width, 5]], attention_first=True)


family = Family(baseline="yolov8n", rows=_rows, light_head=False)

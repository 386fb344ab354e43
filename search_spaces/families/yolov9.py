"""YOLOv9: GELAN stages, SPPELAN, YOLOv8's head; without the auxiliary branch that the paper trains with.

Paper: YOLOv9: Learning What You Want to Learn Using Programmable Gradient Information, arXiv:2402.13616.
Source: Ultralytics' conversion (AGPL-3.0). The presets yolov9t, yolov9s and yolov9c are Ultralytics' own models.
"""

from __future__ import annotations

from search_spaces.architecture import WIDTH_STEP, Architecture
from search_spaces.families._family import Family, ModelFile
from search_spaces.families._pan import pan_rows


def _rows(architecture: Architecture, nc: int) -> ModelFile:
    return pan_rows(
        architecture,
        nc,
        pooling=lambda width: [-1, 1, "SPPELAN", [width, width // 2]],
        attention_first=True,
        neck_downsample_width=_neck_downsample_width,
    )


def _neck_downsample_width(downsample: str, width: int, next_width: int) -> int:
    """AConv, of the small models, gives half of what the next level has; ADown, of yolov9c, keeps the width."""
    return -(-next_width // 2 // WIDTH_STEP) * WIDTH_STEP if downsample == "AConv" else width


family = Family(baseline="yolov9t", rows=_rows, light_head=False)

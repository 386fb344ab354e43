"""YOLO26: YOLO11's stages, a residual SPPF, attention in the last fusion, and a head that needs no NMS.

The head is trained twice over (one-to-many and one-to-one); deployed, only the one-to-one half is left and its output
is final. It regresses distances directly (`reg_max` 1, no distribution focal loss).
Source: Ultralytics YOLO26 (AGPL-3.0). The presets yolo26n to yolo26x are Ultralytics' own models.
"""

from __future__ import annotations

from search_spaces.architecture import Architecture
from search_spaces.families._family import Family, ModelFile
from search_spaces.families._pan import pan_rows


def _rows(architecture: Architecture, nc: int) -> ModelFile:
    return pan_rows(
        architecture,
        nc,
        pooling=lambda width: [-1, 1, "SPPF", [width, 5, 3, True]],
        attention_first=False,
        end2end=True,
        reg_max=1,
    )


family = Family(baseline="yolo26n", rows=_rows, light_head=True)

"""A2C2f: YOLO12's aggregation block whose units are attention over the whole map followed by a small perceptron.

Paper: YOLOv12: Attention-Centric Real-Time Object Detectors, arXiv:2502.12524.
Code: Ultralytics' own `A2C2f` (AGPL-3.0), used, not copied, with its SiLU and batch normalisation; one area, so that
any image size works (YOLO12 cuts P4 into four). Its cost grows with the square of the number of pixels: it is for P4
and P5. A model file that names it gets YOLO11's detection head, so it belongs to the families that have that head.
"""

from __future__ import annotations

from ultralytics.nn import modules

from search_spaces.blocks.psa import whole_heads
from search_spaces.registry import register_block

if hasattr(modules, "A2C2f"):  # not before Ultralytics 8.3.78
    register_block(
        "A2C2f",
        paper="YOLOv12, arXiv:2502.12524",
        licence="AGPL-3.0 (Ultralytics)",
        arguments=lambda place: (True, 1, False, 2.0, whole_heads(place.width, 0.5 / place.widen, head_chs=32)),
        stock=True,
    )(modules.A2C2f)

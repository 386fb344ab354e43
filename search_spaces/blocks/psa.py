"""C2PSA: self-attention over all pixels for half of the channels; between backbone and neck in YOLO11 and YOLO26.

Paper: YOLOv10: Real-Time End-to-End Object Detection, arXiv:2405.14458 (partial self-attention).
Code: Ultralytics' own `C2PSA` (AGPL-3.0), used, not copied, with its SiLU and batch normalisation. Its cost grows with
the square of the number of pixels.
"""

from __future__ import annotations

from ultralytics.nn.modules import C2PSA

from search_spaces.registry import register_block

HEAD_CHS = 64  # channels of an attention head, Ultralytics' choice


def whole_heads(width: int, ratio: float, head_chs: int = HEAD_CHS) -> float:
    """The share of `width` nearest above `ratio` that whole attention heads can divide between them.

    A hidden width that its heads do not divide fails in Ultralytics; the stock widths all divide and keep `ratio`.
    """
    hidden = max(-(-int(width * ratio) // head_chs), 1) * head_chs
    share = hidden / width
    return share if int(width * share) == hidden else (hidden + 0.5) / width  # Ultralytics truncates the product


register_block(
    "C2PSA",
    paper="YOLOv10, arXiv:2405.14458 (YOLO11's form)",
    licence="AGPL-3.0 (Ultralytics)",
    roles=("attention",),
    arguments=lambda place: (whole_heads(place.width, 0.5),),
    stock=True,
)(C2PSA)

"""C3k2, C3k2-C3k and C3k2-PSA: YOLO11's cross-stage partial block, with three kinds of units.

The units are bottlenecks, CSP blocks of two bottlenecks (C3k), or a bottleneck followed by self-attention (PSA, in
YOLO26). Attention costs the square of the number of pixels: it is for P5.
Paper: CSPNet: A New Backbone that can Enhance Learning Capability of CNN, arXiv:1911.11929.
Code: Ultralytics' own `C3k2` (AGPL-3.0), used, not copied, with its SiLU and batch normalisation. A model file that
names it gets YOLO11's detection head, so it belongs to the families that have that head.
"""

from __future__ import annotations

from typing import Any

from ultralytics.nn.modules import C3k2

from search_spaces.blocks.psa import whole_heads
from search_spaces.registry import Place, register_block

PAPER = "CSPNet, arXiv:1911.11929 (YOLO11's form)"
LICENCE = "AGPL-3.0 (Ultralytics)"


def _bottlenecks(place: Place) -> tuple[Any, ...]:
    return (False, 0.5 / place.widen)


def _c3k(place: Place) -> tuple[Any, ...]:
    return (True, 0.5 / place.widen)


def _attention(place: Place) -> tuple[Any, ...]:
    return (True, whole_heads(place.width, 0.5 / place.widen), True)


register_block("C3k2", paper=PAPER, licence=LICENCE, arguments=_bottlenecks, stock=True)(C3k2)
register_block("C3k2-C3k", paper=PAPER, licence=LICENCE, arguments=_c3k, stock=True)(C3k2)
register_block("C3k2-PSA", paper=PAPER, licence=LICENCE, arguments=_attention, stock=True)(C3k2)

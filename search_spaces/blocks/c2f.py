"""C2f: cross-stage partial block of YOLOv8 with every unit's output concatenated.

Paper: CSPNet: A New Backbone that can Enhance Learning Capability of CNN, arXiv:1911.11929.
Code: Ultralytics' own `C2f` (AGPL-3.0), used, not copied, with its SiLU and batch normalisation. As in YOLOv8, its
units are residual in the backbone only.
"""

from __future__ import annotations

from typing import Any

from ultralytics.nn.modules import C2f

from search_spaces.registry import Place, register_block


def c2f_arguments(place: Place) -> tuple[Any, ...]:
    """Shortcut; where the stage is widened also groups, and hidden channels as a fraction of the width."""
    shortcut = not place.in_neck
    return (shortcut,) if place.widen == 1 else (shortcut, 1, 0.5 / place.widen)


register_block(
    "C2f",
    paper="CSPNet, arXiv:1911.11929 (YOLOv8's form)",
    licence="AGPL-3.0 (Ultralytics)",
    arguments=c2f_arguments,
    stock=True,
)(C2f)

"""RepNCSPELAN4, ELAN1, AConv and ADown: YOLOv9's stages and downsamplings.

Paper: YOLOv9: Learning What You Want to Learn Using Programmable Gradient Information, arXiv:2402.13616 (GELAN).
Code: Ultralytics' own classes (AGPL-3.0), used, not copied, with their SiLU and batch normalisation. RepNCSPELAN4
holds re-parameterised convolutions, which are fused for measurement and export. Hidden channels are the stock models':
as many as the downsampling gives, and half of that.
"""

from __future__ import annotations

from typing import Any

from ultralytics.nn.modules import ELAN1, AConv, ADown, RepNCSPELAN4

from search_spaces.registry import Place, register_block

PAPER = "YOLOv9, arXiv:2402.13616"
LICENCE = "AGPL-3.0 (Ultralytics)"


def _hidden(place: Place) -> tuple[int, int]:
    return place.width // place.widen, place.width // place.widen // 2


def _rep_arguments(place: Place) -> tuple[Any, ...]:
    return (*_hidden(place), place.depth)


register_block("RepNCSPELAN4", paper=PAPER, licence=LICENCE, arguments=_rep_arguments, depth="argument", stock=True)(
    RepNCSPELAN4
)
register_block("ELAN1", paper=PAPER, licence=LICENCE, arguments=_hidden, depth="stacked", stock=True)(ELAN1)
for _module in (AConv, ADown):
    register_block(
        _module.__name__,
        paper=PAPER,
        licence=LICENCE,
        roles=("downsample",),
        arguments=lambda place: (),
        depth="stacked",
        stock=True,
    )(_module)

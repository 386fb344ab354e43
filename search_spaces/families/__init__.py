"""One file per base detector. Each defines `family`, which turns an architecture into an Ultralytics model file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search_spaces.architecture import Architecture

ModelFile = dict[str, Any]
"""The content of an Ultralytics model YAML: `nc`, `backbone` and `head` rows with explicit channels."""


@dataclass(frozen=True)
class Family:
    """A base detector.

    Attributes:
        baseline: The preset that is the stock model to beat.
        neck_blocks: Blocks that may take the neck's places, where input and output widths differ.
        rows: Architecture and number of classes to model file.
    """

    baseline: str
    neck_blocks: tuple[str, ...]
    rows: Callable[[Architecture, int], ModelFile]

"""What a base detector is: how an architecture becomes an Ultralytics model file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search_spaces.architecture import MAX_WIDTH, Architecture

ModelFile = dict[str, Any]
"""The content of an Ultralytics model YAML: `nc`, `backbone` and `head` rows with explicit channels."""

# Ultralytics decides by these names which detection head a model file gets: YOLO11's, which is lighter, or YOLOv8's.
LIGHT_HEAD_BLOCKS = ("A2C2f", "C3k2", "C3k2-C3k", "C3k2-PSA")
HALVES_INPUT = ("ADown",)


@dataclass(frozen=True)
class Family:
    """A base detector.

    Attributes:
        baseline: The preset that is the stock model to beat.
        rows: Architecture and number of classes to model file, with what each row is for under `roles`.
        light_head: Whether its stock models have YOLO11's detection head.
    """

    baseline: str
    rows: Callable[[Architecture, int], ModelFile]
    light_head: bool

    def refusal(self, place: str, block: str) -> str:
        """Why this block cannot stand at this place (as `Architecture.places` names it); empty if it can."""
        if place == "P1.downsample" and block in HALVES_INPUT:
            return f"block {block!r} halves the channels of what it reads, and an image has three"
        if not self.light_head and block in LIGHT_HEAD_BLOCKS:
            return f"block {block!r} is not for this family: Ultralytics would build another detection head"
        if self.light_head and place == "neck.P5.block" and block not in LIGHT_HEAD_BLOCKS:
            return (
                f"block {block!r} cannot stand here: Ultralytics builds this family's detection head only with one of "
                f"{', '.join(LIGHT_HEAD_BLOCKS)}"
            )
        return ""

    def roles(self, architecture: Architecture) -> tuple[str, ...]:
        """What each row of its model file is for, e.g. `P2.block` or `detect`; the same in all designs."""
        return tuple(self.rows(architecture, 1)["roles"])

    def model_file(self, architecture: Architecture, nc: int) -> ModelFile:
        """The Ultralytics model file of an architecture for `nc` classes, with explicit channels.

        Raises:
            ValueError: If a block cannot stand where the architecture has it.
        """
        for place, block in architecture.places.items():
            if refusal := self.refusal(place, block):
                raise ValueError(f"{architecture.family}, {place}: {refusal}")
        file = self.rows(architecture, nc)
        del file["roles"]
        if architecture.activation is not None:
            file["activation"] = architecture.activation
        if self.light_head:
            # Ultralytics asks for the scale where a row is C3k2: without one, 8.3 fails or builds another net.
            return {"nc": nc, "scales": {"n": [1.0, 1.0, MAX_WIDTH]}, "scale": "n", **file}
        return file

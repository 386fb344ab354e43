"""One point of a search space: which block, how wide and how deep at every stage of a detector."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Stem:
    """The first convolution, P1: image to `width` channels at half the resolution."""

    downsample: str
    width: int


@dataclass(frozen=True)
class Stage:
    """One backbone stage: a stride-2 `downsample` to `width` channels, then `depth` units of `block`."""

    downsample: str
    block: str
    width: int
    depth: int


@dataclass(frozen=True)
class Neck:
    """The feature pyramid: `depth` units of `block` at each fusion; `widths` of its P3, P4 and P5 outputs."""

    block: str
    depth: int
    widths: tuple[int, int, int]


@dataclass(frozen=True)
class Architecture:
    """A detector's choices, without weights, classes or image size. Equal content means equal `key`.

    Attributes:
        family: The base detector, which says where the blocks go (a file of `search_spaces/families`).
        stem: P1.
        stages: P2 to P5.
        neck: The feature pyramid.
    """

    family: str
    stem: Stem
    stages: tuple[Stage, Stage, Stage, Stage]
    neck: Neck

    @cached_property
    def document(self) -> str:
        """The canonical JSON text: sorted keys, no spaces."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of `document`."""
        return hashlib.sha256(self.document.encode()).hexdigest()[:16]

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of all blocks in it, each once, in order of appearance."""
        used = [self.stem.downsample]
        for stage in self.stages:
            used += [stage.downsample, stage.block]
        return tuple(dict.fromkeys([*used, self.neck.block]))

    @classmethod
    def from_document(cls, document: str | dict[str, Any]) -> Architecture:
        """Read back what `document` wrote.

        Raises:
            ValueError: If a part is missing or unknown.
        """
        data = json.loads(document) if isinstance(document, str) else document
        try:
            p2, p3, p4, p5 = (Stage(**stage) for stage in data["stages"])
            w3, w4, w5 = data["neck"]["widths"]
            neck = Neck(**{**data["neck"], "widths": (w3, w4, w5)})
            return cls(**{**data, "stem": Stem(**data["stem"]), "stages": (p2, p3, p4, p5), "neck": neck})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an architecture: {error}") from error

"""One point of a search space: which block, how wide and how deep at every stage of a detector."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from search_spaces.activation import ACTIVATIONS
from search_spaces.names import unknown

WIDTH_STEP = 8  # Ultralytics rounds channels up to a multiple of it while it builds; here they must be one before
MAX_WIDTH = 2048
MAX_DEPTH = 12
IMGSZ_STEP = 32  # the largest stride


@dataclass(frozen=True)
class Stem:
    """The first convolution, P1: image to `width` channels at half the resolution."""

    downsample: str
    width: int

    def __post_init__(self) -> None:
        _check_width(self.width)


@dataclass(frozen=True)
class Stage:
    """One backbone stage: a stride-2 `downsample`, then `depth` units of `block` with `width` channels.

    The downsampling gives `width / widen` channels, and the block widens them; `widen` is 1 or 2.
    """

    downsample: str
    block: str
    width: int
    depth: int
    widen: int = 1

    def __post_init__(self) -> None:
        _check_width(self.width, self.widen)
        _check_depth(self.depth)

    @property
    def downsample_width(self) -> int:
        """Channels between the downsampling and the block."""
        return self.width // self.widen


@dataclass(frozen=True)
class Level:
    """One level of the neck, P3, P4 or P5: `depth` units of `block` after each fusion, giving `width` channels."""

    block: str
    width: int
    depth: int

    def __post_init__(self) -> None:
        _check_width(self.width)
        _check_depth(self.depth)


@dataclass(frozen=True)
class Neck:
    """The feature pyramid: its levels P3 to P5, and the `downsample` with which it goes back from P3 to P5."""

    downsample: str
    levels: tuple[Level, Level, Level]


@dataclass(frozen=True)
class Architecture:
    """A detector's choices, without weights and classes. Equal content means equal `key`.

    Attributes:
        family: The base detector, which says where the blocks go (a file of `search_spaces/families`).
        stem: P1.
        stages: P2 to P5.
        attention: Block between backbone and neck, or `none`.
        neck: The feature pyramid.
        imgsz: Height and width of the image in pixels, if the space chooses it; None: the search's.
        activation: Of all layers, one of `search_spaces.activation.ACTIVATIONS`; None: what each block has by itself.

    Raises:
        ValueError: If a width is no multiple of 8, a depth or the image size is out of range, or the activation
            unknown.
    """

    family: str
    stem: Stem
    stages: tuple[Stage, Stage, Stage, Stage]
    neck: Neck
    attention: str = "none"
    imgsz: int | None = None
    activation: str | None = None

    def __post_init__(self) -> None:
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise ValueError(unknown("activation", self.activation, ACTIVATIONS))
        if self.imgsz is None:
            return
        if type(self.imgsz) is not int or self.imgsz < IMGSZ_STEP or self.imgsz % IMGSZ_STEP:
            raise ValueError(f"image size {self.imgsz} must be a multiple of {IMGSZ_STEP}")

    @cached_property
    def document(self) -> str:
        """The canonical JSON text: sorted keys, no spaces."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.activation is None:
            del parts["activation"]  # keys in databases are older than the choice
        return json.dumps(parts, default=vars, sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of `document`."""
        return hashlib.sha256(self.document.encode()).hexdigest()[:16]

    @property
    def places(self) -> dict[str, str]:
        """Which block stands where: `P1.downsample` to `neck.P5.block`, in order of appearance."""
        found = {"P1.downsample": self.stem.downsample}
        for level, stage in zip(("P2", "P3", "P4", "P5"), self.stages, strict=True):
            found |= {f"{level}.downsample": stage.downsample, f"{level}.block": stage.block}
        if self.attention != "none":
            found["attention"] = self.attention
        found["neck.downsample"] = self.neck.downsample
        return found | {
            f"neck.{name}.block": level.block for name, level in zip(("P3", "P4", "P5"), self.neck.levels, strict=True)
        }

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of all blocks in it, each once, in order of appearance."""
        return tuple(dict.fromkeys(self.places.values()))

    @classmethod
    def from_document(cls, document: str | dict[str, Any]) -> Architecture:
        """Read back what `document` wrote.

        Raises:
            ValueError: If a part is missing or unknown, or a number out of range.
        """
        data = json.loads(document) if isinstance(document, str) else document
        try:
            p2, p3, p4, p5 = (Stage(**stage) for stage in data["stages"])
            n3, n4, n5 = (Level(**level) for level in data["neck"]["levels"])
            neck = Neck(**{**data["neck"], "levels": (n3, n4, n5)})
            return cls(**{**data, "stem": Stem(**data["stem"]), "stages": (p2, p3, p4, p5), "neck": neck})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an architecture: {error}") from error


def _check_width(width: int, widen: int = 1) -> None:
    if type(widen) is not int or widen not in (1, 2):
        raise ValueError(f"widen {widen!r} must be 1 or 2")
    step = WIDTH_STEP * widen
    if type(width) is not int or not step <= width <= MAX_WIDTH or width % step:
        raise ValueError(f"width {width!r} must be a multiple of {step} up to {MAX_WIDTH}")


def _check_depth(depth: int) -> None:
    if type(depth) is not int or not 1 <= depth <= MAX_DEPTH:
        raise ValueError(f"depth {depth!r} must be from 1 to {MAX_DEPTH}")

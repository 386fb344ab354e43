"""Width and height of the images that a network is trained on and run with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.architecture import IMGSZ_STEP, Architecture
from search_spaces.errors import UserError


class ImageSizeError(UserError, ValueError):
    """A size that no network takes."""


@dataclass(frozen=True, order=True)
class ImageSize:
    """A size that need not be square.

    Attributes:
        width: Pixels, a multiple of the largest stride (32).
        height: Likewise.

    Raises:
        ImageSizeError: If a side is no such multiple.
    """

    width: int
    height: int

    def __post_init__(self) -> None:
        if not (_is_side(self.width) and _is_side(self.height)):
            raise _error(f"image size {self.width}x{self.height}", self.width, self.height)

    @classmethod
    def parse(cls, given: int | str, what: str = "image size") -> ImageSize:
        """Read `640`, which is square, or `640x384`: width, then height.

        Args:
            given: As `plain` writes it.
            what: What it is, for messages.

        Raises:
            ImageSizeError: If it is not of that form, or no network takes it.
        """
        found = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", str(given))
        sides = (int(found[1]), int(found[2] or found[1])) if found else (640, 384)
        if not found or not all(map(_is_side, sides)):
            raise _error(f"{what} {given}", *sides)
        return cls(*sides)

    @property
    def plain(self) -> int | str:
        """For documents: a number if it is square, else text such as `640x384`."""
        return self.width if self.is_square else f"{self.width}x{self.height}"

    def __str__(self) -> str:
        return str(self.plain)

    @property
    def is_square(self) -> bool:
        """Whether width and height are the same."""
        return self.width == self.height

    @property
    def longer(self) -> int:
        """The longer side, pixels."""
        return max(self.width, self.height)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, as tensors have them."""
        return self.height, self.width

    @property
    def argument(self) -> int | list[int]:
        """As Ultralytics has it: a number if it is square, else height and width, in this order."""
        return self.width if self.is_square else [self.height, self.width]

    @classmethod
    def from_argument(cls, argument: int | Sequence[int]) -> ImageSize:
        """Read back what `argument` wrote."""
        height, width = (argument, argument) if isinstance(argument, int) else argument
        return cls(width, height)


def chosen_size(architecture: Architecture, otherwise: ImageSize) -> ImageSize:
    """The size that an architecture is trained and measured at.

    Args:
        architecture: Has its own if its space chooses it, which is square.
        otherwise: The search's.
    """
    return ImageSize(architecture.imgsz, architecture.imgsz) if architecture.imgsz else otherwise


def _is_side(pixels: int) -> bool:
    return type(pixels) is int and pixels >= IMGSZ_STEP and pixels % IMGSZ_STEP == 0


def _nearest(pixels: float) -> int:
    return max(round(pixels / IMGSZ_STEP), 1) * IMGSZ_STEP


def _error(subject: str, *sides: int) -> ImageSizeError:
    nearest = ImageSize(*map(_nearest, sides))
    return ImageSizeError(f"{subject} must be a multiple of {IMGSZ_STEP}, or WIDTHxHEIGHT of two, e.g. {nearest}")

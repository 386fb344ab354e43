"""Ultralytics' data set for images that need not be square, which its own trainings and validations know nothing of.

Ultralytics builds what it does to images for a square of the longer side. Here images are loaded as they fit into the
size itself, so that they are resized once, and are as large in training as in validation; and squares are cut to it.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from ultralytics.data.augment import BaseMixTransform, Compose, LetterBox, Mosaic, RandomPerspective
from ultralytics.data.dataset import YOLODataset

from search_spaces.image_size import ImageSize


class FittedImages(YOLODataset):  # type: ignore[misc]  # Ultralytics has no types
    """Images of one size, square or not; what is square is as Ultralytics has it, to the bit.

    Args:
        imgsz: The size.
        arguments: Of Ultralytics' class.
    """

    def __init__(self, imgsz: ImageSize, **arguments: Any):
        self.size = imgsz
        super().__init__(imgsz=imgsz.longer, **arguments)

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Any:
        """As Ultralytics, scaled to fit into the size."""
        if self.size.is_square:
            return super().load_image(i, rect_mode, resize_short)
        view = copy(self)  # others load images of other shapes at the same time
        view.imgsz = fitted(self.labels[i]["shape"], self.size)
        return super(FittedImages, view).load_image(i, rect_mode=False)

    def build_transforms(self, hyp: Any) -> Compose:
        """As Ultralytics, cut to the size."""
        transforms = super().build_transforms(hyp)
        if not self.size.is_square:
            _cut(transforms, self.size)
        return transforms


def fitted(shape: tuple[int, int], size: ImageSize) -> tuple[int, int]:
    """Height and width at which an image is as large as fits into a size, its proportions kept.

    Args:
        shape: Height and width of the image.
        size: Where it is to fit.
    """
    height, width = shape
    if width * size.height >= height * size.width:
        return -(-height * size.width // width), size.width
    return size.height, -(-width * size.height // height)


def _cut(transform: Any, size: ImageSize) -> None:
    """Let what Ultralytics built for a square of the longer side give images of that size.

    A mosaic stays on its canvas, twice as wide and high as the square. Its four images meet in the middle of it, at
    most half the size off; what follows cuts the size out around the middle.
    """
    match transform:
        case Compose():
            for part in transform.transforms:
                _cut(part, size)
        case Mosaic():
            middle = transform.imgsz
            transform.border = (size.height // 2 - middle, size.width // 2 - middle)
        case RandomPerspective():
            transform.size = (size.width, size.height)
        case LetterBox():
            transform.new_shape = size.shape
        case BaseMixTransform(pre_transform=Compose() as before):  # done to the image that is mixed in
            _cut(before, size)

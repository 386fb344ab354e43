"""Images' labels as Ultralytics reads them, by its own code; and why it would leave some images out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from ultralytics.data import utils
from ultralytics.utils import NUM_THREADS
from ultralytics.utils.patches import imread

from evaluators import user_files
from evaluators.image_files import label_file

user_files.install()

CERTAIN = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # JPEG and PNG: whoever passes the check can be decoded
REPAIRED = "corrupt JPEG restored"  # as Ultralytics says it


@dataclass(frozen=True)
class ImageLabels:
    """One image and what is on it.

    Attributes:
        file: Its path.
        why: It cannot be used, for this reason; empty if it can.
        boxes: (N, 5) class, centre, width and height; rows that are given twice count once.
        polygons: Whether the rows are polygons, of which the boxes are taken.
        points: Number of rows with key points.
        labelled: Whether it has a label file.
        repeated: Rows that were given before.
        dented: Whether a JPEG does not end as it should; Ultralytics alone would write it anew.
    """

    file: str
    why: str = ""
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    polygons: bool = False
    points: int = 0
    labelled: bool = False
    repeated: int = 0
    dented: bool = False


def read_labels(
    files: Sequence[str], classes: int, kpt_shape: tuple[int, int] | None = None, single_cls: bool = False
) -> Iterator[ImageLabels]:
    """Read images' headers and labels, several at once; one result for each, in the order of the files.

    Args:
        files: Images.
        classes: Number of classes that labels may name.
        kpt_shape: As in `Dataset`.
        single_cls: Whether any class is allowed.
    """
    points, numbers = kpt_shape or (0, 0)

    def read(file: str) -> ImageLabels:
        labels = label_file(file)
        result = utils.verify_image_label((file, labels, "", False, classes, points, numbers, single_cls))
        image, boxes, _, segments, _, _, found, _, _, message = result
        if image is None:
            return ImageLabels(file, why=_reason(file, labels, str(message), classes, kpt_shape, single_cls))
        if not _decodes(file):
            return ImageLabels(file, why="cannot be decoded: the picture is damaged, or of a kind that OpenCV lacks")
        rows = _rows(labels) if found else []
        with_points = sum(len(row) == 5 + points * numbers for row in rows) if points else 0
        return ImageLabels(
            file,
            boxes=boxes,
            polygons=bool(segments),
            points=with_points,
            labelled=bool(found),
            repeated=len(rows) - len(boxes),
            dented=REPAIRED in message,
        )

    with ThreadPool(NUM_THREADS) as pool:
        yield from pool.imap(read, files, chunksize=8)


def _decodes(file: str) -> bool:
    with open(file, "rb") as content:
        start = content.read(8)
    return start.startswith(CERTAIN) or imread(file) is not None


def _rows(labels: str) -> list[list[str]]:
    with open(labels, encoding="utf-8-sig") as file:
        return [line.split() for line in file.read().strip().splitlines() if line.strip()]


def _reason(
    file: str, labels: str, message: str, classes: int, kpt_shape: tuple[int, int] | None, single_cls: bool
) -> str:
    """One line on why Ultralytics leaves an image out; with its line, if it is for a label."""
    if why := _image_reason(file):
        return why
    try:
        with open(labels, encoding="utf-8-sig") as text:
            lines = text.read().splitlines()
    except UnicodeDecodeError as error:
        return f"{labels} is not a text file: {error}"
    except OSError as error:
        return f"{labels} cannot be read: {error.strerror}"
    points = 5 + kpt_shape[0] * kpt_shape[1] if kpt_shape else 0
    rows = [(number, fields) for number, line in enumerate(lines, start=1) if (fields := line.split())]
    for number, fields in rows:
        if problem := _row_problem(fields, classes, points, single_cls):
            return f"{labels}:{number}: {problem}"
    kinds = {len(fields) in (5, points): number for number, fields in reversed(rows)}
    if len(kinds) == 2:
        return f"{labels}: line {kinds[True]} is a box and line {kinds[False]} a polygon; a file must have one kind"
    return f"{labels}: {' '.join(message.split('ignoring corrupt image/label: ', 1)[-1].split())}"


def _image_reason(file: str) -> str:
    """Why the picture itself cannot be used; empty if it can."""
    if not os.path.exists(file):
        return "does not exist"
    if os.path.isdir(file):
        return "is a folder"
    if not os.path.getsize(file):
        return "is empty"
    try:
        utils.check_image(file)
    except (UnidentifiedImageError, ImportError):  # what is no picture to others may be one to a package not here
        if file.lower().endswith((".heic", ".heif")):
            return "needs a package that is not installed: pip install pi-heif"
        with open(file, "rb") as content:
            return f"is no picture, it begins with {content.read(16)!r}"
    except AssertionError as error:
        return f"cannot be used: {' '.join(str(error).split('. ')[0].split())}"
    except Exception as error:  # whatever a damaged picture leads to
        return f"is damaged: {' '.join(str(error).split()) or type(error).__name__}"
    return ""


def _row_problem(fields: list[str], classes: int, points: int, single_cls: bool) -> str | None:
    """What is wrong with a row of labels by itself."""
    try:
        values = np.array([float(field) for field in fields])
    except ValueError:
        return "a label must be numbers: class x_center y_center width height"
    count = len(values)
    if count not in (5, points) and not (count >= 7 and count % 2):
        what = f", of {points} with key points (kpt_shape)," if points else ""
        return f"a label must be class x_center y_center width height{what} or a polygon, not {count} numbers"
    number = values[0]
    if not np.isfinite(number) or number != int(number) or number < 0 or (number >= classes and not single_cls):
        return f"class {fields[0]} is out of range: the data file lists {classes} classes, 0 to {classes - 1}"
    if not (values[1:5] if count == points else values[1:]).max() <= 1.01:
        return "a coordinate is above 1; divide by the image's width and height"
    coordinates = values[1:5] if count == points else values[1:]
    if not coordinates.min() >= -0.01 or (count in (5, points) and coordinates[2:4].min() < 0):
        return "a coordinate is below 0; boxes and polygons must lie in the image"
    return None

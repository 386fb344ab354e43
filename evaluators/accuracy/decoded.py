"""A data set's images, decoded and resized once per machine and image size, in a file that all workers map.

Beside the pixels lie the labels, and when each file was written: a data set that changed later is not trained on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import pickle
import shutil
import stat
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import ultralytics
from numpy.typing import NDArray
from ultralytics.utils import NUM_THREADS

from evaluators.accuracy.fitted import fitted
from evaluators.accuracy.read_images import ReadImages
from evaluators.data_file import SPLITS
from evaluators.dataset import Change, Dataset, DatasetError, find_change
from evaluators.errors import TrainingError
from evaluators.image_files import label_file
from search_spaces.image_size import ImageSize

Image = NDArray[np.uint8]
Stamp = tuple[int, int]  # bytes and nanoseconds of the last change
AT_ONCE = 256  # images in memory while they are decoded


@dataclass(frozen=True)
class Split:
    """The images of one split, in Ultralytics' order.

    Attributes:
        labels: As Ultralytics reads them; each with its `im_file`.
        places: Of an image by its file: offset into the pixels, height and width of the original, and resized.
    """

    labels: list[dict[str, Any]]
    places: dict[str, tuple[int, int, int, int, int]]


class Decoded:
    """A data set at one image size. Images are read from their files where they would not fit on this machine."""

    def __init__(self, folder: Path):
        self.folder = folder
        with open(folder / "index.pickle", "rb") as file:
            index = pickle.load(file)
        self.splits = {split: Split(*index["splits"][split]) for split in SPLITS}
        self._stamps: dict[str, Stamp | None] = index["stamps"]
        self._checksums: dict[str, int] = index["checksums"]
        pixels = folder / "pixels"
        self._pixels = np.memmap(pixels, np.uint8, "r") if pixels.exists() else None

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return open_decoded, (self.folder,)  # a loader's worker process maps the file itself

    def image(self, split: str, file: str) -> tuple[Image, tuple[int, int], tuple[int, int]] | None:
        """A copy of the resized image, the original height and width, and the resized; None: read it from its file."""
        if self._pixels is None:
            return None
        offset, *original, height, width = self.splits[split].places[file]
        view = self._pixels[offset : offset + height * width * 3]
        return np.array(view).reshape(height, width, 3), (original[0], original[1]), (height, width)

    def check(self, dataset: Dataset) -> None:
        """Compare the files with what they were; their content only where size or time of the last change differ.

        Raises:
            TrainingError: `data_changed`.
        """
        changed = {file: found for file, stamp in self._stamps.items() if (found := _stamp(file)) != stamp}
        if not changed:
            return
        if gone := [file for file, found in changed.items() if found is None]:
            raise _data_changed(Change(f"{gone[0]} is gone", gone=True))
        check_unchanged(dataset)
        for file in changed:
            if file in self._checksums and _checksum(Path(file)) != self._checksums[file]:
                raise _data_changed(Change(f"{file} is another"))


def check_unchanged(dataset: Dataset) -> None:
    """Compare the whole data set, except for pixels, with what the search began with.

    Raises:
        TrainingError: `data_changed`.
    """
    if change := find_change(dataset):
        raise _data_changed(change)


@lru_cache(maxsize=4)
def open_decoded(folder: Path) -> Decoded:
    """What `decode` wrote; read once per process."""
    return Decoded(folder)


def decode(dataset: Dataset, imgsz: ImageSize, folder: Path) -> Path:
    """Decode all images, unless that is done; the folder where they are. Other processes wait, and find it done.

    Args:
        dataset: What.
        imgsz: Into which they are to fit.
        folder: For all data sets and image sizes.

    Raises:
        TrainingError: `data_changed`.
    """
    home = folder / _key(dataset, imgsz)
    if home.exists():
        return home
    folder.mkdir(parents=True, exist_ok=True)
    with open(home.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            unfinished = home.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            _write(dataset, imgsz, unfinished)
            unfinished.rename(home)
    return home


def _write(dataset: Dataset, imgsz: ImageSize, folder: Path) -> None:
    check_unchanged(dataset)
    try:
        scans = {split: ReadImages(dataset, split, imgsz=imgsz, augment=False) for split in SPLITS}
    except (DatasetError, RuntimeError) as error:  # some cannot be used any more, or all
        raise _data_changed(Change(" ".join(str(error).split()))) from error
    images = {file for scan in scans.values() for file in scan.im_files}
    labels = {label_file(file) for file in images}
    folders = {os.path.dirname(file) for file in images | labels}
    given = {*dataset.train, *dataset.val}
    stamps = {file: _stamp(file) for file in sorted(images | labels | folders | given)}
    shapes = [label["shape"] for scan in scans.values() for label in scan.labels]
    size = sum(math.prod(fitted(shape, imgsz)) for shape in shapes) * 3
    free = min(psutil.virtual_memory().available, shutil.disk_usage(folder).free)
    index: dict[str, Any] = {"stamps": stamps, "splits": {}}
    with ThreadPoolExecutor(NUM_THREADS) as pool, open(folder / "pixels", "wb") as pixels:
        for split, scan in scans.items():
            places: dict[str, tuple[int, ...]] = {}
            if size < free / 2:
                for file, (image, original, resized) in zip(scan.im_files, _images(scan, pool), strict=True):
                    places[file] = (pixels.tell(), *original, *resized)
                    pixels.write(image.tobytes())
            index["splits"][split] = scan.labels, places
        files = sorted(images | {file for file in labels if stamps[file]})
        index["checksums"] = dict(zip(files, pool.map(_checksum, map(Path, files)), strict=True))
    if size >= free / 2:
        (folder / "pixels").unlink()
    with open(folder / "index.pickle", "wb") as file:
        pickle.dump(index, file)


def _images(scan: ReadImages, pool: ThreadPoolExecutor) -> Iterator[Any]:
    for start in range(0, scan.ni, AT_ONCE):
        yield from pool.map(scan.load_image, range(start, min(start + AT_ONCE, scan.ni)))


def _key(dataset: Dataset, imgsz: ImageSize) -> str:
    versions = [ultralytics.__version__, cv2.__version__]
    parts = [dataset.train, dataset.val, dataset.skipped, dataset.meaning, imgsz.plain, versions]
    return f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}-{imgsz}"


def _stamp(file: str) -> Stamp | None:
    """Size and time of the last change; a folder's size is 0, its time tells that files were added or removed."""
    try:
        found = os.stat(file)  # no Path: there are as many files as twice the images, looked at before every training
    except OSError:
        return None
    return (0 if stat.S_ISDIR(found.st_mode) else found.st_size), found.st_mtime_ns


def _checksum(file: Path) -> int:
    return zlib.crc32(file.read_bytes())


def _data_changed(change: Change) -> TrainingError:
    how = "are gone" if change.gone else "are not those that the search began with"
    return TrainingError("data_changed", f"images or labels {how}: {change.text}")

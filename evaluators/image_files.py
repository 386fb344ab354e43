"""Which images the places of a split hold, and where their labels are: exactly those that Ultralytics finds."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

IMAGE_SUFFIXES = {
    *(".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"),
}
QUIET = {".txt", ".npy", ".cache", ".json", ".xml", ".yaml", ".yml", ".csv", ".md", ".db", ".ini"}  # nobody misses them


@dataclass
class Found:
    """What is in some places.

    Attributes:
        images: Paths in Ultralytics' order; what a list names need not exist.
        problems: Lines of list files that would vanish in silence, a line each.
        other: Number of files by suffix that are no images to Ultralytics.
    """

    images: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)


def find_images(places: Iterable[str]) -> Found:
    """All images in folders, to any depth (links are followed, hidden files are not read), and of list files."""
    found = Found()
    for place in places:
        if os.path.isdir(place):
            for file in glob.glob(os.path.join(glob.escape(place), "**", "*.*"), recursive=True):
                _sort_in(file, found)
        else:
            _read_list(Path(place), found)
    found.images.sort()
    return found


def label_file(image: str | Path) -> str:
    """Where Ultralytics looks for an image's labels: the last `images` in its path becomes `labels`."""
    before, after = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    return after.join(os.fspath(image).rsplit(before, 1)).rsplit(".", 1)[0] + ".txt"


def _sort_in(file: str, found: Found) -> None:
    suffix = os.path.splitext(file)[1].lower()
    if f".{file.rpartition('.')[-1].lower()}" in IMAGE_SUFFIXES:
        found.images.append(file)
    elif suffix and suffix not in QUIET and os.path.isfile(file):
        found.other[suffix] += 1


def _read_list(file: Path, found: Found) -> None:
    """The images that a list file names, as Ultralytics reads it: `./` is the folder of the file."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found.problems.append(f"{file} is neither a folder nor a list of images: {error}")
        return
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip()
        if f".{name.rpartition('.')[-1].lower()}" not in IMAGE_SUFFIXES:
            if name:
                found.other[os.path.splitext(name)[1].lower() or "no suffix"] += 1
        elif name != line:
            found.problems.append(f"{file}:{number}: {name} has spaces around it, Ultralytics would not find it")
        elif name.startswith("./"):
            found.images.append(name.replace("./", f"{file.parent}{os.sep}", 1))
        elif os.path.isabs(name):
            found.images.append(name)
        else:
            text = f"{name} must be absolute or begin with ./ (the folder of this file)"
            found.problems.append(f"{file}:{number}: {text}")

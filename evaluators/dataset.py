"""A labelled data set in the Ultralytics layout, checked before anything is spent on it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import UserError

IMAGE_SUFFIXES = {
    *(".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"),
}


class DatasetError(UserError, ValueError):
    """A data set that cannot be trained on; one line that says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Where the images are and what is on them.

    Attributes:
        file: The data YAML, absolute.
        train: Training images: a folder or a list file, absolute; or several.
        val: Validation images.
        names: Class names by number, from 0.
        train_images: Number of training images.
        val_images: Number of validation images.
        fingerprint: Hash of the class names, the images' names and sizes and the labels' content: equal data, equal
            fingerprint, wherever it lies.
    """

    file: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    names: tuple[str, ...]
    train_images: int
    val_images: int
    fingerprint: str

    def document(self) -> dict[str, Any]:
        """Plain data for `from_document`."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Dataset:
        """Read back what `document` wrote."""
        lists = {key: tuple(document[key]) for key in ("train", "val", "names")}
        return cls(**{**document, **lists})


def load_dataset(file: str | Path) -> Dataset:
    """Read a data YAML and check all that a training relies on.

    Raises:
        DatasetError: File missing, not YAML, without classes; images or labels missing, empty or out of range.
    """
    path = Path(file)
    if not path.is_file():
        raise DatasetError(f"data file {file} does not exist; give the path of an Ultralytics data YAML")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"data file {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise DatasetError(f"data file {path} must be a mapping with train, val and names")
    names = _names(path, document)
    root = _root(path, document)
    content = hashlib.sha256("\n".join(names).encode())
    images = {}
    for split in ("train", "val"):
        places = _places(path, root, document, split)
        found = _images(path, split, places)
        _check_labels(split, found, len(names), content)
        images[split] = (tuple(str(place) for place in places), len(found))
    return Dataset(
        file=str(path.resolve()),
        train=images["train"][0],
        val=images["val"][0],
        names=names,
        train_images=images["train"][1],
        val_images=images["val"][1],
        fingerprint=content.hexdigest()[:16],
    )


def spread_images(dataset: Dataset, count: int) -> list[Path]:
    """Up to `count` training images, evenly spread over all in the order of their names."""
    images = _images(Path(dataset.file), "train", map(Path, dataset.train))
    count = min(count, len(images))
    return [images[number * len(images) // count] for number in range(count)]


def label_file(image: Path) -> Path:
    """Where Ultralytics looks for an image's labels: the last `images` in its path becomes `labels`."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _names(path: Path, document: dict[str, Any]) -> tuple[str, ...]:
    names, nc = document.get("names"), document.get("nc")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DatasetError(f"{path}: names must be numbered 0, 1, 2, ... without gaps, not {list(names)[:10]}")
        names = [names[number] for number in range(len(names))]
    if names is None and isinstance(nc, int):
        names = [f"class_{number}" for number in range(nc)]
    if not isinstance(names, list):
        raise DatasetError(f"{path}: names is missing; list the class names, e.g. names: {{0: cat, 1: dog}}")
    if not names:
        raise DatasetError(f"{path}: there are 0 classes; list at least one under names")
    if nc is not None and str(nc) != str(len(names)):
        raise DatasetError(f"{path}: nc is {nc} but names lists {len(names)} classes; make them agree")
    return tuple(str(name) for name in names)


def _root(path: Path, document: dict[str, Any]) -> Path:
    """`path:` as Ultralytics reads it: absolute, else relative to the working directory, else to the YAML's folder."""
    folder = path.resolve().parent
    given = document.get("path")
    if not given:
        return folder
    root = Path(str(given)).expanduser()
    if root.is_absolute() or root.is_dir():
        return root.resolve()
    return (folder / root).resolve()


def _places(path: Path, root: Path, document: dict[str, Any], split: str) -> list[Path]:
    given = document.get(split)
    if not given:
        raise DatasetError(f"{path}: {split} is missing; name the folder of the {split} images")
    places = []
    for item in given if isinstance(given, list) else [given]:
        place = (root / str(item)).resolve()
        if not place.exists() and str(item).startswith("../"):  # as Ultralytics reads it
            place = (root / str(item)[3:]).resolve()
        if not place.exists():
            raise DatasetError(f"{path}: {split} images {place} do not exist; correct '{split}' or 'path' in the file")
        places.append(place)
    return places


def _images(path: Path, split: str, places: Iterable[Path]) -> list[Path]:
    images: list[Path] = []
    for place in places:
        if place.is_dir():
            images += [p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES]
        else:
            images += _listed(place)
    if not images:
        raise DatasetError(f"{path}: no images in {', '.join(map(str, places))}; put the {split} images there")
    return sorted(images)


def _listed(file: Path) -> list[Path]:
    """The images of a list file, as Ultralytics reads it: `./` is the folder of the file."""
    images = []
    for number, line in enumerate(_text(file).splitlines(), start=1):
        name = line.strip()
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if not name.startswith("./") and not Path(name).is_absolute():
            raise DatasetError(f"{file}:{number}: {name} must be absolute or begin with ./ (the folder of this file)")
        images.append(file.parent / name)
    return images


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not a text file: {error}") from error


def _check_labels(split: str, images: list[Path], classes: int, content: hashlib._Hash) -> None:
    """Every label line is `class x y width height`, normalised (or a polygon); at least one image has one."""
    labelled = False
    for image in images:
        try:
            size = image.stat().st_size
        except FileNotFoundError as error:
            raise DatasetError(f"{split} image {image} does not exist; remove it from the list file") from error
        labels = label_file(image)
        text = _text(labels) if labels.is_file() else ""
        content.update(f"{split}/{image.name}:{size}\n{text}\n".encode())
        for number, line in enumerate(text.splitlines(), start=1):
            fields = line.split()
            if not fields:
                continue
            problem = _label_problem(fields, classes)
            if problem:
                raise DatasetError(f"{labels}:{number}: {problem}")
            labelled = True
    if not labelled:
        raise DatasetError(
            f"none of the {len(images)} {split} images has a label; expected e.g. {label_file(images[0])}"
        )


def _label_problem(fields: list[str], classes: int) -> str | None:
    try:
        values = [float(field) for field in fields]
    except ValueError:
        return "a label must be numbers: class x_center y_center width height"
    if len(values) != 5 and not (len(values) >= 7 and len(values) % 2):
        return f"a label must be class x_center y_center width height, not {len(values)} numbers"
    if not math.isfinite(values[0]) or values[0] != int(values[0]) or not 0 <= values[0] < classes:
        return f"class {fields[0]} is out of range: the data file lists {classes} classes, 0 to {classes - 1}"
    if any(not -0.01 <= value <= 1.01 for value in values[1:]):
        return "a coordinate is outside 0 to 1; divide by the image's width and height"
    return None

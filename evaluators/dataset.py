"""The one reading of the user's data: which images and labels are used, which are not, and why."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evaluators.data_file import SPLITS, DataFile, read_data_file
from evaluators.image_files import Found, find_images, label_file
from search_spaces.errors import UserError

Progress = Callable[[int, int], None]  # images read so far, and in all


class DatasetError(UserError, ValueError):
    """A data set that cannot be trained on; one line that says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Which images, and what labels on them mean. Nothing in it depends on the working directory.

    Attributes:
        file: The data YAML, absolute; for messages, it is not read again.
        train: Training images: a folder or a list file, absolute; or several.
        val: Validation images.
        names: Class names by number, from 0, as trained.
        train_images: Number of training images that are used.
        val_images: Number of validation images that are used.
        fingerprint: Hash of the class names, the used images' names and sizes and the labels' content: equal data,
            equal fingerprint, wherever it lies.
        kpt_shape: Number of key points and numbers of each that rows may have, which are not used; None: none.
        single_cls: Whether all boxes count as one class.
        classes: Numbers of the classes whose boxes are used; None: all.
        skipped: Images that are not used because they cannot be.
        label_files: How many there are; None: nobody counted.
    """

    file: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    names: tuple[str, ...]
    train_images: int
    val_images: int
    fingerprint: str
    kpt_shape: tuple[int, int] | None = None
    single_cls: bool = False
    classes: tuple[int, ...] | None = None
    skipped: tuple[str, ...] = ()
    label_files: int | None = None

    def document(self) -> dict[str, Any]:
        """Plain data for `from_document`."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Dataset:
        """Read back what `document` wrote."""
        lists = {key: tuple(value) for key, value in document.items() if isinstance(value, (list, tuple))}
        return cls(**{**document, **lists})

    @property
    def meaning(self) -> tuple[Any, ...]:
        """What accuracies depend on: equal for data that compare."""
        return self.fingerprint, self.kpt_shape, self.single_cls, self.classes

    def images(self, split: str) -> list[str]:
        """The images that are used, in Ultralytics' order."""
        found, skipped = find_images(getattr(self, split)), set(self.skipped)
        return [image for image in found.images if image not in skipped]


@dataclass
class SplitReading:
    """What was found in a split.

    Attributes:
        images: That are used.
        backgrounds: Of these, without a box.
        unlabelled: Of these, without a label file.
        unusable: Others, and why each is not used.
        boxes: Of each class, as trained.
        polygons: Boxes that are given as polygons, or as oriented boxes.
        points: Boxes whose rows have key points.
        repeated: Rows that were given before in their file; they count once.
        dented: JPEGs with something behind their end, or without one.
        other: Files by suffix that are no images.
    """

    images: list[str] = field(default_factory=list)
    backgrounds: int = 0
    unlabelled: int = 0
    unusable: dict[str, str] = field(default_factory=dict)
    boxes: list[int] = field(default_factory=list)
    polygons: int = 0
    points: int = 0
    repeated: int = 0
    dented: int = 0
    other: Counter[str] = field(default_factory=Counter)


@dataclass
class Reading:
    """All that there is to say of a data set.

    Attributes:
        file: The data YAML, absolute.
        names: Class names, as trained.
        splits: `train` and `val`, if their places are there.
        in_both: Pairs of a training image and a validation image that are the same picture.
        problems: Why it cannot be used, a line each.
        notes: What its user might not expect, a line each.
        dataset: To train on; None if there is a problem.
    """

    file: str
    names: tuple[str, ...]
    splits: dict[str, SplitReading] = field(default_factory=dict)
    in_both: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dataset: Dataset | None = None

    def checked(self, advice: str = "") -> Dataset:
        """The data set, if there is no problem.

        Args:
            advice: What else may be done about images that cannot be used.

        Raises:
            DatasetError: The first problem, and how many more there are.
        """
        if self.dataset is not None:
            return self.dataset
        text = self.problems[0]
        if any(split.unusable for split in self.splits.values()):
            text += advice
        if more := len(self.problems) - 1:
            text += f" (and {more} more problem{'s' * (more > 1)}; nas-yolo check-data {self.file} shows all)"
        raise DatasetError(text)


def load_dataset(
    file: str | Path, skip_bad: bool = False, single_cls: bool = False, classes: Sequence[int] | None = None
) -> Dataset:
    """Read a data set, which must be without a problem.

    Raises:
        DatasetError: The first problem, and how many more there are.
    """
    return read_dataset(file, skip_bad, single_cls, classes).checked()


def read_dataset(
    file: str | Path,
    skip_bad: bool = False,
    single_cls: bool = False,
    classes: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Read a data YAML, all images that it names and their labels; nothing is written.

    Args:
        file: The YAML.
        skip_bad: Whether images that cannot be used are left out, instead of being problems.
        single_cls: Take all boxes as one class, as Ultralytics' argument.
        classes: Numbers of the classes whose boxes are used, as Ultralytics' argument; None: all.
        progress: Is told how far it is.
    """
    said = read_data_file(file)
    reading = Reading(said.file, said.names, problems=said.problems, notes=said.notes)
    if classes is not None and (wrong := [number for number in classes if not 0 <= number < max(len(said.names), 1)]):
        reading.problems.append(f"{said.file}: classes={list(classes)}: there is no class {wrong[0]}")
    found = {split: find_images(places) for split, places in said.places.items()}
    total, done = sum(len(one.images) for one in found.values()), 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    if said.names:
        chosen = None if classes is None else set(classes)
        reading.splits = {split: _read_split(one, said, single_cls, chosen, tell) for split, one in found.items()}
    if single_cls and said.names:
        reading.names = ("item",)  # as Ultralytics calls it
        reading.notes.append("all boxes count as one class, 'item' (single_cls)")
    if classes is not None:
        reading.notes.append(f"only boxes of the classes {', '.join(map(str, classes))} are used (classes)")
    for split, one in found.items():
        _judge(split, one, said, reading, skip_bad)
    if len(reading.splits) == len(SPLITS):
        reading.in_both = _same_pictures(*(reading.splits[split].images for split in SPLITS))
        if reading.in_both:
            first, count = reading.in_both[0], len({image for _, image in reading.in_both})
            same = first[0] if first[0] == first[1] else f"{first[0]} is {first[1]}"
            text = f"{count} of {len(reading.splits['val'].images)} validation images are training images too ({same})"
            reading.notes.append(f"{text}: accuracies will look better than they are")
    if not reading.problems:
        reading.dataset = _dataset(said, reading, single_cls, classes)
    return reading


@dataclass(frozen=True)
class Change:
    """What is not as it was when a data set was read.

    Attributes:
        text: In words.
        gone: Whether something is not there any more, rather than another one.
    """

    text: str
    gone: bool = False


def find_change(dataset: Dataset) -> Change | None:
    """Compare a data set, except for pixels, with what it was when it was read; None: it is the same."""
    places = [*dataset.train, *dataset.val]
    if gone := [place for place in places if not os.path.exists(place)]:
        return Change(f"{gone[0]} is gone", gone=True)
    images = {split: dataset.images(split) for split in SPLITS}
    for split, count in (("train", dataset.train_images), ("val", dataset.val_images)):
        lost = count - sum(os.path.exists(image) for image in images[split])
        if lost > 0:
            return Change(f"{lost} of {count} {split} images are gone", gone=True)
        if lost < 0:
            return Change(f"there are {-lost} more {split} images")
    labelled = sum(os.path.isfile(label_file(image)) for split in SPLITS for image in images[split])
    if dataset.label_files and labelled < dataset.label_files:
        return Change(f"{dataset.label_files - labelled} of {dataset.label_files} label files are gone", gone=True)
    try:
        found = _fingerprint(dataset.names, images)
    except OSError as error:
        return Change(f"{error.filename} cannot be read: {error.strerror}")
    return None if found == dataset.fingerprint else Change("names or sizes of images, or labels, are others")


def spread_images(dataset: Dataset, count: int) -> list[Path]:
    """Up to `count` training images, evenly spread over all in the order of their names."""
    images = sorted(map(Path, dataset.images("train")))
    count = min(count, len(images))
    return [images[number * len(images) // count] for number in range(count)]


def write_data_file(dataset: Dataset, folder: Path) -> Path:
    """Write a data YAML that means the same to Ultralytics from any folder, and nothing more than what is used.

    Args:
        dataset: Which.
        folder: Of nas-yolo; lists of images are written beside it where some are skipped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {}
    for split in SPLITS:
        places: Sequence[str] = getattr(dataset, split)
        if dataset.skipped:
            listed = folder / f"{split}.txt"
            _write(listed, "".join(f"{image}\n" for image in dataset.images(split)))
            places = [str(listed.absolute())]
        document[split] = places[0] if len(places) == 1 else list(places)
    document["names"] = dict(enumerate(dataset.names))
    if dataset.kpt_shape:
        document["kpt_shape"] = list(dataset.kpt_shape)
    _write(folder / "data.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return folder / "data.yaml"


def _read_split(
    found: Found, said: DataFile, single_cls: bool, classes: set[int] | None, tell: Callable[[], None]
) -> SplitReading:
    from evaluators.labels import read_labels  # loads Ultralytics

    split = SplitReading(boxes=[0] * (1 if single_cls else len(said.names)), other=found.other)
    for image in read_labels(found.images, len(said.names), said.kpt_shape, single_cls):
        tell()
        if image.why:
            split.unusable[image.file] = image.why
            continue
        numbers = [int(number) for number in image.boxes[:, 0]]
        used = [number for number in numbers if classes is None or number in classes]
        for number in used:
            split.boxes[0 if single_cls else number] += 1
        split.images.append(image.file)
        split.backgrounds += not used
        split.unlabelled += not image.labelled
        split.polygons += len(numbers) if image.polygons else 0
        split.points += image.points
        split.repeated += image.repeated
        split.dented += image.dented
    return split


def _judge(name: str, found: Found, said: DataFile, reading: Reading, skip_bad: bool) -> None:
    """Add what is wrong with a split, and what is worth saying of it."""
    reading.problems += found.problems
    if not found.images and not found.problems:
        if said.places[name]:
            places = ", ".join(said.places[name])
            reading.problems.append(f"{said.file}: no images in {places}; put the {name} images there")
        return
    split = reading.splits.get(name)
    if split is None:
        return
    if not skip_bad:
        reading.problems += [_line(image, why) for image, why in split.unusable.items()]
    elif found.images and not split.images:
        reading.problems.append(f"{said.file}: none of the {len(found.images)} {name} images can be used")
    elif split.unusable:
        reading.notes.append(f"{name}: {len(split.unusable)} images that cannot be used are left out")
    if split.images and not sum(split.boxes):
        expected = label_file(split.images[0])
        text = f"none of the {len(split.images)} {name} images has a box; expected e.g. {expected}"
        reading.problems.append(text)
    for count, text in (
        (split.polygons, "polygons or oriented boxes, used as the upright boxes around them"),
        (split.points, "boxes with key points, which are not used"),
        (split.repeated, "rows that are given twice in their file, and count once"),
        (split.dented, "JPEGs that do not end as they should, read as they are (Ultralytics would rewrite them)"),
        (split.unlabelled, "images without a label file, which are backgrounds"),
    ):
        if count:
            reading.notes.append(f"{name}: {count} {text}")
    if name == "train" and (empty := [reading.names[number] for number, boxes in enumerate(split.boxes) if not boxes]):
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        reading.notes.append(f"train: no box of {', '.join(empty[:5])}{more}")
    if split.other:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in split.other.most_common(5))
        reading.notes.append(f"{name}: files that are not read, being no images to Ultralytics: {kinds}")


def _line(image: str, why: str) -> str:
    return why if why.startswith(label_file(image)) else f"{image} {why}"


def _same_pictures(train: Iterable[str], val: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of files with the same content; only those of equal size are read."""
    sizes: dict[int, list[str]] = {}
    for image in val:
        sizes.setdefault(os.path.getsize(image), []).append(image)
    pictures: dict[bytes, str] = {}
    among = set()
    for image in train:
        if (size := os.path.getsize(image)) in sizes:
            among.add(size)
            pictures.setdefault(_digest(image), image)
    alike = sorted(image for size in among for image in sizes[size])
    return [(pictures[digest], image) for image in alike if (digest := _digest(image)) in pictures]


def _digest(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()


def _dataset(said: DataFile, reading: Reading, single_cls: bool, classes: Sequence[int] | None) -> Dataset:
    splits = {name: reading.splits[name] for name in SPLITS}
    images = {name: split.images for name, split in splits.items()}
    return Dataset(
        file=said.file,
        train=said.places["train"],
        val=said.places["val"],
        names=reading.names,
        train_images=len(images["train"]),
        val_images=len(images["val"]),
        fingerprint=_fingerprint(reading.names, images),
        kpt_shape=said.kpt_shape,
        single_cls=single_cls,
        classes=None if classes is None else tuple(classes),
        skipped=tuple(image for split in splits.values() for image in split.unusable),
        label_files=sum(len(split.images) - split.unlabelled for split in splits.values()),
    )


def _fingerprint(names: Sequence[str], images: dict[str, list[str]]) -> str:
    content = hashlib.sha256("\n".join(names).encode())
    for split in SPLITS:
        for image in sorted(map(Path, images[split])):
            labels = Path(label_file(image))
            text = labels.read_text(encoding="utf-8-sig", errors="replace") if labels.is_file() else ""
            content.update(f"{split}/{image.name}:{image.stat().st_size}\n{text}\n".encode(errors="surrogateescape"))
    return content.hexdigest()[:16]


def _write(file: Path, text: str) -> None:
    """As a whole: another process may read it."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8", errors="surrogateescape")
    unfinished.replace(file)

"""What is used of a data set, for people and as a document."""

from __future__ import annotations

import os
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluators.dataset import Reading

FIRST = 10  # of the images that cannot be used, and of other problems
CLASSES = 20  # shown by name


def show_reading(screen: Console, reading: Reading) -> None:
    """Tables of images and of classes, what cannot be used, what is worth knowing."""
    screen.print(f"Data [bold]{escape(reading.file)}[/bold]", soft_wrap=True)
    if reading.splits:
        screen.print(_images(reading))
        screen.print(_classes(reading))
        if len(reading.names) > CLASSES:
            screen.print(f"  and {len(reading.names) - CLASSES} more classes (--json has all)")
    for name, split in reading.splits.items():
        if split.unusable:
            count = len(split.unusable)
            screen.print(f"{count} {name} image{'s' * (count > 1)} cannot be used:")
            for image, why in list(split.unusable.items())[:FIRST]:
                _item(screen, f"{_short(image, reading.file)}: {_short(why, reading.file)}")
            _more(screen, len(split.unusable))
    bad = {why for split in reading.splits.values() for image, why in split.unusable.items()}
    others = [text for text in reading.problems if not any(text.endswith(why) for why in bad)]
    for text in others[:FIRST]:
        screen.print(f"[red]Problem:[/red] {escape(text)}", soft_wrap=True)
    _more(screen, len(others))
    for text in reading.notes:
        screen.print(f"Note: {escape(_short(text, reading.file))}", soft_wrap=True)


def reading_document(reading: Reading) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "file": reading.file,
        "usable": reading.dataset is not None,
        "names": list(reading.names),
        "splits": {
            name: {
                "images": len(split.images),
                "with_boxes": len(split.images) - split.backgrounds,
                "backgrounds": split.backgrounds,
                "without_label_file": split.unlabelled,
                "unusable": [{"file": file, "why": why} for file, why in split.unusable.items()],
                "boxes": sum(split.boxes),
                "boxes_by_class": dict(zip(reading.names, split.boxes, strict=True)),
                "polygons": split.polygons,
                "with_key_points": split.points,
                "repeated_rows": split.repeated,
                "jpegs_with_a_wrong_end": split.dented,
                "other_files": dict(split.other),
            }
            for name, split in reading.splits.items()
        },
        "in_both": [{"train": one, "val": other} for one, other in reading.in_both],
        "problems": reading.problems,
        "notes": reading.notes,
        "fingerprint": reading.dataset.fingerprint if reading.dataset else None,
    }


def _images(reading: Reading) -> Table:
    table = Table("", box=SIMPLE_HEAD)
    for heading in ("images", "with boxes", "backgrounds", "unusable", "boxes"):
        table.add_column(heading, justify="right")
    for name, split in reading.splits.items():
        used = len(split.images)
        counts = (used, used - split.backgrounds, split.backgrounds, len(split.unusable), sum(split.boxes))
        table.add_row(name, *(f"{count:,}" for count in counts))
    return table


def _classes(reading: Reading) -> Table:
    table = Table("class", "", box=SIMPLE_HEAD)
    for name in reading.splits:
        table.add_column(f"{name} boxes", justify="right")
    for number, name in enumerate(reading.names[:CLASSES]):
        boxes = (split.boxes[number] for split in reading.splits.values())
        table.add_row(str(number), escape(name), *(f"{count:,}" for count in boxes))
    return table


def _short(text: str, file: str) -> str:
    """Without the folder that most paths have in common."""
    return text.replace(os.path.dirname(file) + os.sep, "")


def _item(screen: Console, text: str) -> None:
    screen.print(f"  {escape(text)}", soft_wrap=True)


def _more(screen: Console, count: int) -> None:
    if count > FIRST:
        screen.print(f"  and {count - FIRST} more (--json has all)")

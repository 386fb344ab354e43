"""A data YAML in the Ultralytics layout: what it says, with every place resolved once and for all."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SPLITS = ("train", "val")
# Ultralytics takes these as arguments and overlooks them in a data file, where they would seem to hold.
ARGUMENTS = ("single_cls", "classes", "rect", "imgsz")
USERS_CONFIG = "NAS_YOLO_USERS_YOLO_CONFIG_DIR"  # YOLO_CONFIG_DIR as it was before nas-yolo set its own


@dataclass
class DataFile:
    """What a data YAML says.

    Attributes:
        file: The YAML, absolute.
        names: Class names by number, from 0.
        places: Of each split: folders, list files or images, absolute.
        kpt_shape: Number of key points and numbers of each (2 or 3), if rows of labels have them.
        beside: Whether `path` was found beside the YAML only, where Ultralytics does not look.
        problems: Why it cannot be used, a line each.
        notes: What its user might not expect, a line each.
    """

    file: str
    names: tuple[str, ...] = ()
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kpt_shape: tuple[int, int] | None = None
    beside: bool = False
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_data_file(given: str | Path) -> DataFile:
    """Read a data YAML as Ultralytics does; all that is wrong with it is listed as its problems."""
    path = Path(os.path.abspath(given))  # the folder of a link, not of what it leads to: as Ultralytics has it
    found = DataFile(str(path))
    if path.is_dir():
        inside = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        hint = f"give its data file, {inside[0]}" if inside else "give the path of an Ultralytics data YAML"
        found.problems.append(f"{given} is a folder; {hint}")
        return found
    if not path.is_file():
        found.problems.append(f"data file {given} does not exist; give the path of an Ultralytics data YAML")
        return found
    try:
        text = path.read_bytes().decode("utf-8-sig")
        document, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found.problems.append(f"data file {path} is not valid YAML: {' '.join(str(error).split())}")
        return found
    if not isinstance(document, dict) or not isinstance(node, yaml.MappingNode):
        found.problems.append(f"data file {path} must be a mapping with train, val and names")
        return found
    _Reader(found, document, {key.value: key.start_mark.line + 1 for key, _ in node.value}).read()
    return found


class _Reader:
    """Fills a `DataFile` from a YAML's document and the lines of its keys."""

    def __init__(self, found: DataFile, document: dict[str, Any], lines: dict[str, int]):
        self.found, self.document, self.lines = found, document, lines

    def read(self) -> None:
        if "val" not in self.document and "validation" in self.document:
            self.document["val"] = self.document["validation"]  # as Ultralytics
            self.lines["val"] = self.lines["validation"]
        self.names()
        self.kpt_shape()
        self.refuse_keys()
        if (root := self.root()) is not None:
            for split in SPLITS:
                self.places(split, root)

    def problem(self, key: str, text: str) -> None:
        self.found.problems.append(f"{self.where(key)}: {text}")

    def where(self, key: str) -> str:
        return f"{self.found.file}:{self.lines[key]}" if key in self.lines else self.found.file

    def names(self) -> None:
        names, nc = self.document.get("names"), self.document.get("nc")
        count = None
        if "nc" in self.document:
            try:
                count = int(float(nc))  # type: ignore[arg-type]
                if float(nc) != count:  # type: ignore[arg-type]
                    raise ValueError
            except (TypeError, ValueError, OverflowError):
                self.problem("nc", f"nc must be the number of classes, not {nc!r}; it may be left out beside names")
                return
        if names is None and count is not None:
            names = [f"class_{number}" for number in range(count)]
        if not isinstance(names, (list, dict)):
            self.problem("names", "names is missing; list the class names, e.g. names: {0: cat, 1: dog}")
            return
        if not names:
            self.problem("names", "there are 0 classes; list at least one under names")
            return
        if count is not None and count != len(names):
            self.problem("nc", f"nc is {nc} but names lists {len(names)} classes; make them agree")
            return
        try:
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            numbered = {int(key): str(name) for key, name in pairs}
        except (TypeError, ValueError):
            numbered = {}
        if sorted(numbered) != list(range(len(names))):
            given = list(names)[:10]
            self.problem("names", f"names must be numbered 0, 1, 2, ... without gaps, not {given}")
            return
        if numbered[0].startswith("n0"):
            text = f"{numbered[0]!r} begins like a code of ImageNet, which Ultralytics replaces by words; rename it"
            self.problem("names", text)
            return
        self.found.names = tuple(numbered[number] for number in range(len(numbered)))

    def kpt_shape(self) -> None:
        match self.document.get("kpt_shape"):
            case None:
                return
            case [int(points), int(numbers)] if points > 0 and numbers in (2, 3):
                self.found.kpt_shape = (points, numbers)
                text = f"rows with {points} key points of {numbers} numbers are used as boxes, without the points"
                self.found.notes.append(f"{self.where('kpt_shape')}: {text}")
            case other:
                text = f"kpt_shape must be [number of key points, 2 or 3], not {other}"
                self.problem("kpt_shape", text)

    def refuse_keys(self) -> None:
        channels = self.document.get("channels", 3)
        if channels != 3:
            self.problem(
                "channels",
                f"channels is {channels}, and nas-yolo builds networks for color images (3); leave channels out: gray "
                "images are then read as color",
            )
        for key in ARGUMENTS:
            if key in self.document:
                advice = "--imgsz" if key == "imgsz" else f"--train {key}=..." if key != "rect" else "nas-yolo train"
                self.problem(key, f"{key} does not belong in a data file, Ultralytics overlooks it; see {advice}")

    def root(self) -> Path | None:
        """`path:` as Ultralytics reads it: absolute, in the working directory, in its datasets folder.

        Where it finds nothing, one beside the YAML is taken, and said.
        """
        given, folder = self.document.get("path"), Path(self.found.file).parent
        if not given:
            return folder
        if not isinstance(given, str):
            self.problem("path", f"path must be a folder, not {given!r}")
            return None
        path, datasets = Path(given), datasets_folder()
        if path.exists() or path.is_absolute():
            if not path.is_absolute() and path.resolve() != folder.resolve():
                text = f"path {given} is taken from the folder that you are in: {path.resolve()}"
                self.found.notes.append(f"{self.where('path')}: {text}")
            return path.absolute()
        if datasets and (datasets / path).exists():
            return datasets / path
        beside = folder / path.expanduser()
        if beside.exists():
            text = f"path {given} is taken as {beside.resolve()}; Ultralytics alone would not find it from here"
            self.found.notes.append(f"{self.where('path')}: {text}")
            self.found.beside = True
            return beside
        tried = [str(Path.cwd()), *([str(datasets)] if datasets else []), str(folder)]
        text = f"path {given} is a folder neither in {', nor in '.join(tried)}; correct it, or leave it out where the"
        self.problem("path", f"{text} images are beside this file")
        return None

    def places(self, split: str, root: Path) -> None:
        given = self.document.get(split)
        if not given or not isinstance(given, (str, list)):
            hint = " (Ultralytics does not read 'valid')" if split == "val" and "valid" in self.document else ""
            self.problem(split, f"{split} is missing{hint}; name the folder of the {split} images")
            return
        places = []
        for item in given if isinstance(given, list) else [given]:
            if not isinstance(item, str):
                self.problem(split, f"{split} must be folders or list files, not {item!r}")
                continue
            place = (root / item).resolve()
            if not place.exists() and item.startswith("../") and isinstance(given, str):  # as Ultralytics reads it
                place = (root / item[3:]).resolve()
            if not place.exists():
                text = f"{split} images {place} do not exist; correct {split!r} or 'path' in the file"
                if self.document.get("path") and (Path(self.found.file).parent / item).exists():
                    text += ": without 'path', they are looked for beside it"
                self.problem(split, text)
                continue
            places.append(str(place))
        self.found.places[split] = tuple(places)


def users_settings() -> Path:
    """The file of Ultralytics' settings that is the user's own; it need not exist."""
    if given := os.environ.get(USERS_CONFIG):
        return Path(given).expanduser() / "Ultralytics" / "settings.json"
    if sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    else:
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "Ultralytics" / "settings.json"


def datasets_folder() -> Path | None:
    """Where the user's Ultralytics looks for data sets; None where it was never set up."""
    try:
        folder = json.loads(users_settings().read_text(encoding="utf-8"))["datasets_dir"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(folder) if isinstance(folder, str) and folder else None

"""A search space: the values that each choice of an architecture may take, read from a small YAML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from search_spaces.architecture import Architecture, Neck, Stage, Stem
from search_spaces.errors import UserError
from search_spaces.registry import get_family, list_blocks, list_families, unknown

LIBRARY = Path(__file__).parent / "library"
STAGES = ("P2", "P3", "P4", "P5")
DOWNSAMPLES = ("Conv", "GhostConv")
WIDTH_STEP = 8  # what Ultralytics rounds channels to
MAX_WIDTH = 2048
MAX_DEPTH = 12

Value = str | int
Choices = dict[str, Value]


class SpaceError(UserError, ValueError):
    """A space that cannot be used: `file:line: what is wrong; what to do`."""


@dataclass(frozen=True)
class SearchSpace:
    """All architectures that choose, for each name in `choices`, one of its values.

    Attributes:
        name: Library name, or the file's path.
        family: The base detector.
        choices: Allowed values by choice: `P1.downsample`, `P1.width`, then `downsample`, `block`, `width` and
            `depth` of `P2` to `P5`, then `neck.block` and `neck.depth`. The neck is as wide as the backbone is at
            each level, as in the stock models.
    """

    name: str
    family: str
    choices: Mapping[str, tuple[Value, ...]]

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(values) for values in self.choices.values())

    def sample(self, rng: np.random.Generator) -> Choices:
        """Every choice uniformly and independently."""
        return {name: values[int(rng.integers(len(values)))] for name, values in self.choices.items()}

    def architecture(self, choices: Choices) -> Architecture:
        """The architecture with these values.

        Raises:
            KeyError: If a choice is missing.
        """
        stages = [
            Stage(
                str(choices[f"{level}.downsample"]),
                str(choices[f"{level}.block"]),
                int(choices[f"{level}.width"]),
                int(choices[f"{level}.depth"]),
            )
            for level in STAGES
        ]
        p2, p3, p4, p5 = stages
        stem = Stem(str(choices["P1.downsample"]), int(choices["P1.width"]))
        neck = Neck(str(choices["neck.block"]), int(choices["neck.depth"]), (p3.width, p4.width, p5.width))
        return Architecture(self.family, stem, (p2, p3, p4, p5), neck)

    def choices_of(self, architecture: Architecture) -> Choices | None:
        """The values that make this architecture, or None if it lies outside the space."""
        choices: Choices = {
            "P1.downsample": architecture.stem.downsample,
            "P1.width": architecture.stem.width,
            "neck.block": architecture.neck.block,
            "neck.depth": architecture.neck.depth,
        }
        for level, stage in zip(STAGES, architecture.stages, strict=True):
            choices[f"{level}.downsample"] = stage.downsample
            choices[f"{level}.block"] = stage.block
            choices[f"{level}.width"] = stage.width
            choices[f"{level}.depth"] = stage.depth
        inside = all(choices[name] in values for name, values in self.choices.items())
        if not inside or self.architecture(choices) != architecture:
            return None
        return {name: choices[name] for name in self.choices}

    def document(self) -> dict[str, Any]:
        """Plain data for `from_document`."""
        return {"name": self.name, "family": self.family, "choices": {k: list(v) for k, v in self.choices.items()}}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> SearchSpace:
        """Read back what `document` wrote."""
        return cls(document["name"], document["family"], {k: tuple(v) for k, v in document["choices"].items()})

    @classmethod
    def load(cls, name_or_path: str) -> SearchSpace:
        """Read a space of the library by name, or any file.

        Raises:
            SpaceError: If there is none, or it holds an unknown key or an impossible value.
        """
        library = list_spaces()
        if name_or_path in library:
            return read_space(name_or_path, LIBRARY / "spaces" / f"{name_or_path}.yaml")
        path = Path(name_or_path)
        if not path.is_file():
            raise SpaceError(
                f"{unknown('space', name_or_path, library)}; or give a YAML file (copy one: nas-yolo spaces)"
            )
        return read_space(name_or_path, path)


def list_spaces() -> tuple[str, ...]:
    """Names of the spaces in the library."""
    return tuple(sorted(path.stem for path in (LIBRARY / "spaces").glob("*.yaml")))


def list_presets() -> tuple[str, ...]:
    """Names of the known designs in the library: stock models and the swaps people make by hand."""
    return tuple(sorted(path.stem for path in (LIBRARY / "presets").glob("*.yaml")))


def load_preset(name: str) -> Architecture:
    """A known design; its file is a space with a single architecture.

    Raises:
        SpaceError: If there is none of that name.
    """
    if name not in list_presets():
        raise SpaceError(unknown("model", name, list_presets()))
    space = read_space(name, LIBRARY / "presets" / f"{name}.yaml")
    return space.architecture({choice: values[0] for choice, values in space.choices.items()})


def read_space(name: str, path: Path) -> SearchSpace:
    """Read a space file and check every key and value.

    Raises:
        SpaceError: With file, line and the nearest valid word.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SpaceError(f"{path}:{line}: not valid YAML: {problem}") from error
    reader = _Reader(path)
    sections = reader.mapping(root, "a space", ("family", "stem", "stages", "neck"))
    family = reader.words(sections["family"], "family", list_families())[0]
    neck_blocks = get_family(family).neck_blocks

    choices: dict[str, tuple[Value, ...]] = {}
    stem = reader.mapping(sections["stem"], "stem", ("downsample", "width"))
    choices["P1.downsample"] = reader.words(stem["downsample"], "downsample", DOWNSAMPLES)
    choices["P1.width"] = reader.widths(stem["width"])
    stages = reader.mapping(sections["stages"], "stages", STAGES)
    for level in STAGES:
        stage = reader.mapping(stages[level], level, ("downsample", "block", "width", "depth"))
        choices[f"{level}.downsample"] = reader.words(stage["downsample"], "downsample", DOWNSAMPLES)
        choices[f"{level}.block"] = reader.words(stage["block"], "block", list_blocks())
        choices[f"{level}.width"] = reader.widths(stage["width"])
        choices[f"{level}.depth"] = reader.integers(stage["depth"], "depth", 1, MAX_DEPTH, 1)
    neck = reader.mapping(sections["neck"], "neck", ("block", "depth"))
    choices["neck.block"] = reader.words(neck["block"], "neck block", neck_blocks)
    choices["neck.depth"] = reader.integers(neck["depth"], "depth", 1, MAX_DEPTH, 1)
    return SearchSpace(name, family, choices)


class _Reader:
    """Turns YAML nodes into values; every refusal names the file and the line."""

    def __init__(self, path: Path):
        self.path = path

    def fail(self, node: yaml.Node | None, message: str) -> SpaceError:
        line = node.start_mark.line + 1 if node else 1
        return SpaceError(f"{self.path}:{line}: {message}")

    def mapping(self, node: yaml.Node | None, what: str, keys: tuple[str, ...]) -> dict[str, yaml.Node]:
        """The node's values by key: exactly these keys, each once."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{what} must be a mapping with the keys {', '.join(keys)}")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value not in keys:
                raise self.fail(key, unknown(f"key in {what}:", key.value, keys))
            if key.value in found:
                raise self.fail(key, f"{key.value!r} is given twice in {what}")
            found[key.value] = value
        missing = [key for key in keys if key not in found]
        if missing:
            raise self.fail(node, f"{what} lacks {', '.join(missing)}")
        return found

    def scalars(self, node: yaml.Node, what: str) -> Iterator[tuple[yaml.ScalarNode, str]]:
        """The values of a list, or of a single value that stands for a list of one."""
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not items:
            raise self.fail(node, f"{what} has no values to choose from")
        seen = set()
        for item in items:
            if not isinstance(item, yaml.ScalarNode):
                raise self.fail(item, f"{what} must be a value or a list of values")
            if item.value in seen:
                raise self.fail(item, f"{what} {item.value!r} is given twice")
            seen.add(item.value)
            yield item, item.value

    def words(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> tuple[str, ...]:
        words = []
        for item, word in self.scalars(node, what):
            if word not in known:
                raise self.fail(item, unknown(what, word, known))
            words.append(word)
        return tuple(words)

    def integers(self, node: yaml.Node, what: str, low: int, high: int, step: int) -> tuple[int, ...]:
        numbers: list[int] = []
        for item, text in self.scalars(node, what):
            plain = text.isdecimal() and text == str(int(text))  # not 016, nor digits of other scripts
            if not plain or not low <= int(text) <= high or int(text) % step:
                multiple = f"a multiple of {step}" if step > 1 else "a whole number"
                raise self.fail(item, f"{what} {text!r} must be {multiple} from {low} to {high}")
            numbers.append(int(text))
        return tuple(sorted(numbers))

    def widths(self, node: yaml.Node) -> tuple[int, ...]:
        return self.integers(node, "width", WIDTH_STEP, MAX_WIDTH, WIDTH_STEP)

"""The files of spaces and presets: small YAMLs, checked key by key and value by value."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from search_spaces.activation import ACTIVATIONS
from search_spaces.architecture import IMGSZ_STEP, MAX_DEPTH, MAX_WIDTH, WIDTH_STEP, Architecture
from search_spaces.image_size import ImageSize
from search_spaces.registry import get_family, list_blocks, list_families, unknown
from search_spaces.space import LEVELS, STAGES, Choices, SearchSpace, SpaceError, Value

LIBRARY = Path(__file__).parent / "library"
VERSION = 1  # of the file format
REQUIRED_SECTIONS = ("family", "stem", "stages", "neck")
OPTIONAL_SECTIONS = ("version", "attention", "imgsz", "activation")
MAX_IMGSZ = 4096

log = logging.getLogger(__name__)


def load_space(name_or_path: str) -> SearchSpace:
    """Read a space of the library by name, or any file.

    Raises:
        SpaceError: If there is none, or it holds an unknown key or an impossible value.
    """
    library = list_spaces()
    if name_or_path in library:
        return read_space(name_or_path, LIBRARY / "spaces" / f"{name_or_path}.yaml")
    path = Path(name_or_path)
    if not path.is_file():
        raise SpaceError(f"{unknown('space', name_or_path, library)}; or give a YAML file (copy one: nas-yolo spaces)")
    return read_space(name_or_path, path)


def list_spaces() -> tuple[str, ...]:
    """Names of the spaces in the library."""
    return tuple(sorted(path.stem for path in (LIBRARY / "spaces").glob("*.yaml")))


@dataclass(frozen=True)
class Preset:
    """A known design: a stock model, or a swap that people make by hand.

    Attributes:
        name: E.g. `yolov8n-ghost`.
        description: The first line of its file.
        architecture: The design.
    """

    name: str
    description: str
    architecture: Architecture


@cache
def presets() -> Mapping[str, Preset]:
    """All known designs of the library, by file and growing size."""
    files = sorted((LIBRARY / "presets").glob("*.yaml"), key=lambda path: path.stem)
    return {preset.name: preset for path in files for preset in _read_presets(path)}


def load_preset(name: str) -> Architecture:
    """A known design.

    Raises:
        SpaceError: If there is none of that name.
    """
    if name not in presets():
        raise SpaceError(unknown("model", name, presets()))
    return presets()[name].architecture


def known_designs(space: SearchSpace, baseline: str, imgsz: ImageSize) -> dict[str, Architecture]:
    """What a search of this space should try first.

    The stock model to beat; then the other stock models that lie in the space; then the swaps of the first that do.
    What would, but for its activation, is taken with the first that the space names, under a name that says so.

    Args:
        space: What is searched.
        baseline: Preset of the stock model; it is among them in any case.
        imgsz: The image size of the stock models, if the space chooses it.
    """
    size = imgsz.width if imgsz.plain in space.choices.get("imgsz", ()) else None  # those of a space are square
    others = {
        name: replace(preset.architecture, imgsz=size)
        for name, preset in sorted(presets().items(), key=lambda item: "-" in item[0])  # stock models have no dash
        if "-" not in name or name.startswith(f"{baseline}-")
    }
    inside = {}
    for name, design in others.items():
        if space.choices_of(design) is None and "activation" in space.choices:
            first = str(space.choices["activation"][0])
            name, design = f"{name}-{first.lower()}", replace(design, activation=first)
        if space.choices_of(design) is not None:
            inside[name] = design
    return {baseline: replace(load_preset(baseline), imgsz=size)} | inside


def read_space(name: str, path: Path) -> SearchSpace:
    """Read a space file and check every key and value.

    Raises:
        SpaceError: With file, line and the nearest valid word.
    """
    reader = _Reader(path)
    family, sections = reader.sections(REQUIRED_SECTIONS, OPTIONAL_SECTIONS)
    return SearchSpace(name, family, reader.choices(family, sections))


def _read_presets(path: Path) -> Iterator[Preset]:
    """The designs of a preset file: a space of single values at full size, and a scale for each name.

    A scale is Ultralytics' triple: what to multiply depths and widths with, and the greatest width before that.
    """
    reader = _Reader(path)
    family, sections = reader.sections((*REQUIRED_SECTIONS, "presets"), OPTIONAL_SECTIONS)
    space = SearchSpace(path.stem, family, reader.choices(family, sections))
    scales: dict[str, tuple[float, float, int]] = yaml.safe_load(path.read_text(encoding="utf-8"))["presets"]
    description = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    for name, (depth_multiple, width_multiple, max_width) in scales.items():
        scaled: Choices = {}
        for choice, (value,) in space.choices.items():
            if isinstance(value, int) and choice.endswith(".width"):
                value = math.ceil(min(value, max_width) * width_multiple / WIDTH_STEP) * WIDTH_STEP
            elif isinstance(value, int) and choice.endswith(".depth") and value > 1:
                value = max(round(value * depth_multiple), 1)
            scaled[choice] = value
        yield Preset(name, description, space.architecture(scaled))


class _Reader:
    """Turns the YAML nodes of a file into values; every refusal names the file and the line."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            problem = " ".join(str(getattr(error, "problem", None) or error).split())
            raise SpaceError(f"{path}:{line}: not valid YAML: {problem}") from error

    def sections(self, required: Iterable[str], optional: Iterable[str]) -> tuple[str, dict[str, yaml.Node]]:
        """The family, and the parts of the file."""
        if isinstance(self.root, yaml.MappingNode):
            keys = {key.value: (key, value) for key, value in self.root.value if isinstance(key, yaml.ScalarNode)}
            version = self.one(keys["version"][1], "version") if "version" in keys else str(VERSION)
            if version != str(VERSION):
                raise self.fail(
                    keys["version"][0],
                    f"this space has format version {version!r}, and this nas-yolo reads version {VERSION}; "
                    "install a newer nas-yolo",
                )
            if {"backbone", "head"} <= keys.keys():
                raise self.fail(self.root, "this is a model file, not a search space; measure it with nas-yolo profile")
        sections = self.mapping(self.root, "a space", tuple(required), tuple(optional))
        family = self.one(sections["family"], "family")
        if family not in list_families():
            raise self.fail(sections["family"], unknown("family", family, list_families()))
        return family, sections

    def choices(self, family: str, sections: dict[str, yaml.Node]) -> dict[str, tuple[Value, ...]]:
        """All choices of the file."""
        found: dict[str, tuple[Value, ...]] = {}
        downsamples = list_blocks("downsample")
        blocks = list_blocks("stage")

        def words(node: yaml.Node, what: str, place: str, known: tuple[str, ...]) -> None:
            found[place] = self.words(node, what, known)
            for item, word in self.scalars(node, what):
                if word != "none" and (refusal := get_family(family).refusal(place, word)):
                    raise self.fail(item, refusal)

        stem = self.mapping(sections["stem"], "stem", ("downsample", "width"))
        words(stem["downsample"], "downsample", "P1.downsample", downsamples)
        found["P1.width"] = self.widths(stem["width"])
        stages = self.mapping(sections["stages"], "stages", STAGES)
        for level in STAGES:
            stage = self.mapping(stages[level], level, ("downsample", "block", "width", "depth"), ("widen",))
            words(stage["downsample"], "downsample", f"{level}.downsample", downsamples)
            words(stage["block"], "block", f"{level}.block", blocks)
            widen = self.integers(stage["widen"], "widen", 1, 2, 1) if "widen" in stage else (1,)
            found[f"{level}.width"] = self.widths(stage["width"], max(widen))
            found[f"{level}.depth"] = self.depths(stage["depth"])
            found[f"{level}.widen"] = widen
        if "attention" in sections:
            words(sections["attention"], "attention", "attention", ("none", *list_blocks("attention")))
        else:
            found["attention"] = ("none",)
        neck = self.mapping(sections["neck"], "neck", ("downsample", *LEVELS))
        words(neck["downsample"], "downsample", "neck.downsample", downsamples)
        for level in LEVELS:
            part = self.mapping(neck[level], f"neck {level}", ("block", "depth"), ("width",))
            words(part["block"], "block", f"neck.{level}.block", blocks)
            found[f"neck.{level}.depth"] = self.depths(part["depth"])
            if "width" in part:
                found[f"neck.{level}.width"] = self.widths(part["width"])
        if "imgsz" in sections:
            found["imgsz"] = self.integers(sections["imgsz"], "imgsz", IMGSZ_STEP, MAX_IMGSZ, IMGSZ_STEP)
        if "activation" in sections:
            found["activation"] = self.words(sections["activation"], "activation", tuple(ACTIVATIONS))
        return found

    def fail(self, node: yaml.Node | None, message: str) -> SpaceError:
        line = node.start_mark.line + 1 if node else 1
        return SpaceError(f"{self.path}:{line}: {message}")

    def mapping(
        self, node: yaml.Node | None, what: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        """The node's values by key: each of these keys once, the optional ones at most once."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{what} must be a mapping with the keys {', '.join(keys)}")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value not in (*keys, *optional):
                raise self.fail(key, unknown(f"key in {what}:", key.value, (*keys, *optional)))
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

    def one(self, node: yaml.Node, what: str) -> str:
        """A single value."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.fail(node, f"{what} must be a single value")
        return str(node.value)

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

    def depths(self, node: yaml.Node) -> tuple[int, ...]:
        return self.integers(node, "depth", 1, MAX_DEPTH, 1)

    def widths(self, node: yaml.Node, widen: int = 1) -> tuple[int, ...]:
        """Rounded up here, and said so, rather than silently by Ultralytics while it builds."""
        step = WIDTH_STEP * widen
        found = []
        for item, text in self.scalars(node, "width"):
            (width,) = self.integers(item, "width", 1, MAX_WIDTH, 1)
            found.append(-(-width // step) * step)
            if found[-1] != width:
                line = item.start_mark.line + 1
                log.warning(
                    "%s:%d: width %s is rounded up to %d, a multiple of %d", self.path, line, text, found[-1], step
                )
        return tuple(sorted(set(found)))

"""Reads the small YAMLs of spaces and presets, key by key and value by value."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from search_spaces.activation import ACTIVATIONS
from search_spaces.architecture import IMGSZ_STEP, MAX_DEPTH, MAX_WIDTH, WIDTH_STEP
from search_spaces.blocks import list_blocks
from search_spaces.families import get_family, list_families
from search_spaces.names import unknown
from search_spaces.space import LEVELS, STAGES, SearchSpace, SpaceError, Value

LIBRARY = Path(__file__).parent / "library"
VERSION = 1  # of the file format
REQUIRED_SECTIONS = ("family", "stem", "stages", "neck")
OPTIONAL_SECTIONS = ("version", "attention", "imgsz", "activation")
MAX_IMGSZ = 4096

log = logging.getLogger(__name__)


def read_space(name: str, path: Path) -> SearchSpace:
    """Read a space file and check every key and value.

    Raises:
        SpaceError: With file, line and the nearest valid word.
    """
    reader = SpaceReader(path)
    family, sections = reader.sections(REQUIRED_SECTIONS, OPTIONAL_SECTIONS)
    return SearchSpace(name, family, reader.choices(family, sections))


def list_spaces() -> tuple[str, ...]:
    """Names of the spaces in the library."""
    return tuple(sorted(path.stem for path in (LIBRARY / "spaces").glob("*.yaml")))


def library_space(name: str) -> SearchSpace:
    """The space of that name, one of `list_spaces`."""
    return read_space(name, LIBRARY / "spaces" / f"{name}.yaml")


class SpaceReader:
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

    @property
    def is_model(self) -> bool:
        """Whether it is a model file rather than a space."""
        pairs = self.root.value if isinstance(self.root, yaml.MappingNode) else []
        return {"backbone", "head"} <= {key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)}

    def sections(self, required: Iterable[str], optional: Iterable[str]) -> tuple[str, dict[str, yaml.Node]]:
        """The family, and the parts of the file."""
        if isinstance(self.root, yaml.MappingNode):
            keys = {key.value: (key, value) for key, value in self.root.value if isinstance(key, yaml.ScalarNode)}
            version = self._one(keys["version"][1], "version") if "version" in keys else str(VERSION)
            if version != str(VERSION):
                raise self._fail(
                    keys["version"][0],
                    f"this space has format version {version!r}, and this nas-yolo reads version {VERSION}; "
                    "install a newer nas-yolo",
                )
        sections = self._mapping(self.root, "a space", tuple(required), tuple(optional))
        family = self._one(sections["family"], "family")
        if family not in list_families():
            raise self._fail(sections["family"], unknown("family", family, list_families()))
        return family, sections

    def choices(self, family: str, sections: dict[str, yaml.Node]) -> dict[str, tuple[Value, ...]]:
        """All choices of the file."""
        found: dict[str, tuple[Value, ...]] = {}
        downsamples = list_blocks("downsample")
        blocks = list_blocks("stage")

        def words(node: yaml.Node, what: str, place: str, known: tuple[str, ...]) -> None:
            found[place] = self._words(node, what, known)
            for item, word in self._scalars(node, what):
                if word != "none" and (refusal := get_family(family).refusal(place, word)):
                    raise self._fail(item, refusal)

        stem = self._mapping(sections["stem"], "stem", ("downsample", "width"))
        words(stem["downsample"], "downsample", "P1.downsample", downsamples)
        found["P1.width"] = self._widths(stem["width"])
        stages = self._mapping(sections["stages"], "stages", STAGES)
        for level in STAGES:
            stage = self._mapping(stages[level], level, ("downsample", "block", "width", "depth"), ("widen",))
            words(stage["downsample"], "downsample", f"{level}.downsample", downsamples)
            words(stage["block"], "block", f"{level}.block", blocks)
            widen = self._integers(stage["widen"], "widen", 1, 2, 1) if "widen" in stage else (1,)
            found[f"{level}.width"] = self._widths(stage["width"], max(widen))
            found[f"{level}.depth"] = self._depths(stage["depth"])
            found[f"{level}.widen"] = widen
        if "attention" in sections:
            words(sections["attention"], "attention", "attention", ("none", *list_blocks("attention")))
        else:
            found["attention"] = ("none",)
        neck = self._mapping(sections["neck"], "neck", ("downsample", *LEVELS))
        words(neck["downsample"], "downsample", "neck.downsample", downsamples)
        for level in LEVELS:
            part = self._mapping(neck[level], f"neck {level}", ("block", "depth"), ("width",))
            words(part["block"], "block", f"neck.{level}.block", blocks)
            found[f"neck.{level}.depth"] = self._depths(part["depth"])
            if "width" in part:
                found[f"neck.{level}.width"] = self._widths(part["width"])
        if "imgsz" in sections:
            found["imgsz"] = self._integers(sections["imgsz"], "imgsz", IMGSZ_STEP, MAX_IMGSZ, IMGSZ_STEP)
        if "activation" in sections:
            found["activation"] = self._words(sections["activation"], "activation", tuple(ACTIVATIONS))
        return found

    def _fail(self, node: yaml.Node | None, message: str) -> SpaceError:
        line = node.start_mark.line + 1 if node else 1
        return SpaceError(f"{self.path}:{line}: {message}")

    def _mapping(
        self, node: yaml.Node | None, what: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        """The node's values by key: each of these keys once, the optional ones at most once."""
        if not isinstance(node, yaml.MappingNode):
            raise self._fail(node, f"{what} must be a mapping with the keys {', '.join(keys)}")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value not in (*keys, *optional):
                raise self._fail(key, unknown(f"key in {what}:", key.value, (*keys, *optional)))
            if key.value in found:
                raise self._fail(key, f"{key.value!r} is given twice in {what}")
            found[key.value] = value
        missing = [key for key in keys if key not in found]
        if missing:
            raise self._fail(node, f"{what} lacks {', '.join(missing)}")
        return found

    def _scalars(self, node: yaml.Node, what: str) -> Iterator[tuple[yaml.ScalarNode, str]]:
        """The values of a list, or of a single value that stands for a list of one."""
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not items:
            raise self._fail(node, f"{what} has no values to choose from")
        seen = set()
        for item in items:
            if not isinstance(item, yaml.ScalarNode):
                raise self._fail(item, f"{what} must be a value or a list of values")
            if item.value in seen:
                raise self._fail(item, f"{what} {item.value!r} is given twice")
            seen.add(item.value)
            yield item, item.value

    def _one(self, node: yaml.Node, what: str) -> str:
        """A single value."""
        if not isinstance(node, yaml.ScalarNode):
            raise self._fail(node, f"{what} must be a single value")
        return str(node.value)

    def _words(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> tuple[str, ...]:
        words = []
        for item, word in self._scalars(node, what):
            if word not in known:
                raise self._fail(item, unknown(what, word, known))
            words.append(word)
        return tuple(words)

    def _integers(self, node: yaml.Node, what: str, low: int, high: int, step: int) -> tuple[int, ...]:
        numbers: list[int] = []
        for item, text in self._scalars(node, what):
            plain = text.isdecimal() and text == str(int(text))  # not 016, nor digits of other scripts
            if not plain or not low <= int(text) <= high or int(text) % step:
                multiple = f"a multiple of {step}" if step > 1 else "a whole number"
                raise self._fail(item, f"{what} {text!r} must be {multiple} from {low} to {high}")
            numbers.append(int(text))
        return tuple(sorted(numbers))

    def _depths(self, node: yaml.Node) -> tuple[int, ...]:
        return self._integers(node, "depth", 1, MAX_DEPTH, 1)

    def _widths(self, node: yaml.Node, widen: int = 1) -> tuple[int, ...]:
        """Rounded up here, and said so, rather than silently by Ultralytics while it builds."""
        step = WIDTH_STEP * widen
        found = []
        for item, text in self._scalars(node, "width"):
            (width,) = self._integers(item, "width", 1, MAX_WIDTH, 1)
            found.append(-(-width // step) * step)
            if found[-1] != width:
                line = item.start_mark.line + 1
                log.warning(
                    "%s:%d: width %s is rounded up to %d, a multiple of %d", self.path, line, text, found[-1], step
                )
        return tuple(sorted(set(found)))

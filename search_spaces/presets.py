"""Known designs: stock models, and swaps that people make by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from search_spaces.architecture import WIDTH_STEP, Architecture
from search_spaces.families import get_family
from search_spaces.image_size import ImageSize
from search_spaces.names import unknown
from search_spaces.space import Choices, SearchSpace, SpaceError
from search_spaces.space_reader import LIBRARY, OPTIONAL_SECTIONS, REQUIRED_SECTIONS, SpaceReader


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
    """What a search of this space should try, whatever its sampler proposes.

    The model to beat, the user's own or a stock model; then the other stock models that lie in the space; then the
    swaps of the family's that do.
    What would, but for its activation, is taken with the first that the space names, under a name that says so.

    Args:
        space: What is searched.
        baseline: Preset of the stock model, or `space.baseline`; it is among them in any case.
        imgsz: The image size of the stock models, if the space chooses it.
    """
    swapped = get_family(space.family).baseline if space.model else baseline
    size = imgsz.width if imgsz.plain in space.choices.get("imgsz", ()) else None  # those of a space are square
    others = {
        name: replace(preset.architecture, imgsz=size)
        for name, preset in sorted(presets().items(), key=lambda item: "-" in item[0])  # stock models have no dash
        if "-" not in name or name.startswith(f"{swapped}-")
    }
    inside = {}
    for name, design in others.items():
        if space.choices_of(design) is None and "activation" in space.choices:
            first = str(space.choices["activation"][0])
            name, design = f"{name}-{first.lower()}", replace(design, activation=first)
        if space.choices_of(design) is not None:
            inside[name] = design
    return {baseline: replace(space.model or load_preset(baseline), imgsz=size)} | inside


def _read_presets(path: Path) -> Iterator[Preset]:
    """The designs of a preset file: a space of single values at full size, and a scale for each name.

    A scale is Ultralytics' triple: what to multiply depths and widths with, and the greatest width before that.
    """
    reader = SpaceReader(path)
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

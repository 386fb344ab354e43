"""A search space: the values that each choice of an architecture may take, and the moves within it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.activation import DEFAULT
from search_spaces.architecture import Architecture, Level, Neck, Stage, Stem
from search_spaces.block_activation import canonical, ultralytics_gives
from search_spaces.blocks import get_block
from search_spaces.errors import UserError
from search_spaces.families import get_family
from search_spaces.names import unknown

STAGES = ("P2", "P3", "P4", "P5")
LEVELS = ("P3", "P4", "P5")

Value = str | int
Choices = dict[str, Value]


class SpaceError(UserError, ValueError):
    """A space that cannot be used; from a file: `file:line: what is wrong; what to do`."""


@dataclass(frozen=True)
class SearchSpace:
    """All architectures that choose, for each name in `choices`, one of its values.

    Attributes:
        name: Library name, or the file's path.
        family: The base detector.
        choices: Allowed values by choice: `P1.downsample`, `P1.width`; `downsample`, `block`, `width`, `depth` and
            `widen` of `P2` to `P5`; `attention`; `neck.downsample`; `block` and `depth` of `neck.P3` to `neck.P5`, and
            their `width`, without which the neck is as wide as the backbone's downsampling at each level, as in the
            stock models; `imgsz` and `activation`, if the space chooses them.
        model: The user's own model that the space was made around, if it was.
    """

    name: str
    family: str
    choices: Mapping[str, tuple[Value, ...]]
    model: Architecture | None = None

    @property
    def baseline(self) -> str:
        """The design to beat, which is tried first: `model:FILE`, the user's own, or else the family's stock model."""
        return get_family(self.family).baseline if self.model is None else f"model:{Path(self.name).name}"

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(values) for values in self.choices.values())

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        return np.array([len(values) for values in self.choices.values()])

    @cached_property
    def _free_parts(self) -> tuple[tuple[str, ...], ...]:
        """The choices of each part (a stage, a level of the neck) that has more than one value to choose from."""
        parts: dict[str, list[str]] = {}
        for name in self.choices:
            parts.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return tuple(tuple(names) for names in parts.values() if any(len(self.choices[name]) > 1 for name in names))

    # Moves ----------------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Choices:
        """Every choice uniformly and independently: uniform over the space."""
        drawn = rng.integers(self._counts)
        return {name: values[i] for (name, values), i in zip(self.choices.items(), drawn.tolist(), strict=True)}

    def mutate(self, choices: Choices, rng: np.random.Generator) -> Choices:
        """Another architecture that differs in one part, e.g. a stage, a level of the neck, the image size.

        The part is drawn uniformly among those with a choice, its new values uniformly among all its others.

        Raises:
            SpaceError: If the space holds a single architecture.
        """
        if not self._free_parts:
            raise SpaceError(f"space {self.name} holds a single architecture: nothing can be mutated")
        part = self._free_parts[int(rng.integers(len(self._free_parts)))]
        while True:
            drawn = {name: self.choices[name][int(rng.integers(len(self.choices[name])))] for name in part}
            if any(choices[name] != value for name, value in drawn.items()):
                return {**choices, **drawn}

    def crossover(self, one: Choices, other: Choices, rng: np.random.Generator) -> Choices:
        """Every part as a whole from one parent or the other, with equal probability."""
        child = dict(one)
        for part, from_other in zip(self._free_parts, rng.integers(2, size=len(self._free_parts)), strict=True):
            if from_other:
                child |= {name: other[name] for name in part}
        return child

    def neighbours(self, choices: Choices) -> Iterator[Choices]:
        """All architectures that differ in exactly one choice, in a fixed order."""
        for name, values in self.choices.items():
            for value in values:
                if value != choices[name]:
                    yield {**choices, name: value}

    # Views ----------------------------------------------------------------------------------------------------------

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """What the columns of `encode` mean: `name` for numbers, `name=value` for words."""
        return tuple(feature for name, (features, _) in self._encoders.items() for feature in features or (name,))

    @cached_property
    def _encoders(self) -> dict[str, tuple[tuple[str, ...], dict[Value, tuple[float, ...]]]]:
        """For each choice that is one, the features of each value."""
        encoders: dict[str, tuple[tuple[str, ...], dict[Value, tuple[float, ...]]]] = {}
        for name, values in self.choices.items():
            if len(values) == 1:
                continue
            if all(isinstance(value, int) for value in values):
                logs = [math.log2(value) for value in values if isinstance(value, int)]
                low, span = min(logs), max(logs) - min(logs)
                encoders[name] = ((name,), {v: ((x - low) / span,) for v, x in zip(values, logs, strict=True)})
            else:
                rows = np.eye(len(values)).tolist()
                features = tuple(f"{name}={value}" for value in values)
                encoders[name] = (features, {v: tuple(row) for v, row in zip(values, rows, strict=True)})
        return encoders

    def encode(self, choices: Sequence[Choices]) -> NDArray[np.float64]:
        """Features for a model of accuracy or latency, all in [0, 1]: (N, len(feature_names)).

        Numbers by their logarithm, words one-hot; choices with a single value are left out.
        """
        rows = [
            [feature for name, (_, values) in self._encoders.items() for feature in values[one[name]]]
            for one in choices
        ]
        return np.array(rows, dtype=np.float64).reshape(len(choices), len(self.feature_names))

    def validate(self, choices: Mapping[str, Value]) -> None:
        """Refuse choices that are not a point of the space.

        Raises:
            SpaceError: Naming what is missing, unknown or outside.
        """
        for name in choices:
            if name not in self.choices:
                raise SpaceError(f"space {self.name}: {unknown('choice', name, self.choices)}")
        for name, values in self.choices.items():
            if name not in choices:
                raise SpaceError(f"space {self.name}: choice {name!r} is missing")
            if choices[name] not in values:
                allowed = ", ".join(map(str, values))
                raise SpaceError(f"space {self.name}: {name} is {choices[name]!r}, not one of {allowed}")

    def restricted_to_stock(self) -> SearchSpace:
        """The part of the space whose detectors stock Ultralytics loads without nas-yolo.

        Raises:
            SpaceError: If nothing is left to choose from somewhere.
        """
        activations = [str(value) for value in self.choices.get("activation", ())]

        def loads(value: Value) -> bool:
            if not isinstance(value, str) or value == "none":
                return True
            return get_block(value).loads_in_stock and all(ultralytics_gives(value, name) for name in activations)

        kept: dict[str, tuple[Value, ...]] = {}
        for name, values in self.choices.items():
            kept[name] = values if name == "activation" else tuple(filter(loads, values))
            if not kept[name]:
                knows = "knows, with every activation of the space" if activations else "knows"
                raise SpaceError(
                    f"space {self.name}: {name} has no block that stock Ultralytics {knows}; add one, e.g. Conv or C2f"
                )
        return replace(self, choices=kept)

    def architecture(self, choices: Mapping[str, Value]) -> Architecture:
        """The architecture with these values; two that differ are two networks.

        Raises:
            KeyError: If a choice is missing.
        """
        stages = [
            Stage(
                str(choices[f"{level}.downsample"]),
                str(choices[f"{level}.block"]),
                int(choices[f"{level}.width"]),
                int(choices[f"{level}.depth"]),
                int(choices[f"{level}.widen"]),
            )
            for level in STAGES
        ]
        p2, p3, p4, p5 = stages
        levels = [
            Level(
                str(choices[f"neck.{level}.block"]),
                int(choices.get(f"neck.{level}.width", stage.downsample_width)),
                int(choices[f"neck.{level}.depth"]),
            )
            for level, stage in zip(LEVELS, (p3, p4, p5), strict=True)
        ]
        n3, n4, n5 = levels
        architecture = Architecture(
            family=self.family,
            stem=Stem(str(choices["P1.downsample"]), int(choices["P1.width"])),
            stages=(p2, p3, p4, p5),
            neck=Neck(str(choices["neck.downsample"]), (n3, n4, n5)),
            attention=str(choices["attention"]),
            imgsz=int(choices["imgsz"]) if "imgsz" in choices else None,
            activation=str(choices["activation"]) if "activation" in choices else None,
        )
        return canonical(architecture)

    def choices_of(self, architecture: Architecture) -> Choices | None:
        """The values that make this architecture, or None if it lies outside the space."""
        known = values_of(architecture)
        if any(name not in known or known[name] not in values for name, values in self.choices.items()):
            return None
        choices = {name: known[name] for name in self.choices}
        return choices if self.architecture(choices) == architecture else None

    def document(self) -> dict[str, Any]:
        """Plain data for `from_document`."""
        document = {"name": self.name, "family": self.family, "choices": {k: list(v) for k, v in self.choices.items()}}
        return document if self.model is None else document | {"model": json.loads(self.model.document)}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> SearchSpace:
        """Read back what `document` wrote."""
        model = Architecture.from_document(document["model"]) if "model" in document else None
        choices = {name: tuple(values) for name, values in document["choices"].items()}
        return cls(document["name"], document["family"], choices, model)


def values_of(architecture: Architecture) -> Choices:
    """The value of every choice that a space may have, at an architecture."""
    known: Choices = {"P1.downsample": architecture.stem.downsample, "P1.width": architecture.stem.width}
    for name, stage in zip(STAGES, architecture.stages, strict=True):
        known |= {f"{name}.{key}": value for key, value in vars(stage).items()}
    known |= {"attention": architecture.attention, "neck.downsample": architecture.neck.downsample}
    for name, level in zip(LEVELS, architecture.neck.levels, strict=True):
        known |= {f"neck.{name}.{key}": value for key, value in vars(level).items()}
    known["activation"] = architecture.activation or DEFAULT
    return known if architecture.imgsz is None else known | {"imgsz": architecture.imgsz}

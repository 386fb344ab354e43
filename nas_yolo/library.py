"""What a search makes of its library next, and what its scores say: pure functions of what is known.

A library has what a search can use: blocks that imitate the trained stock model, so that designs can be put together
and scored at once. What a change costs alone and what it saves, added up, say which designs are best at every latency;
these are scored, too, and are what the engine proposes first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from evaluators.complexity import Size, predict_size
from evaluators.evaluation import AssembledScore
from nas_yolo.additive import Additive, AdditiveModel, Names, Values, fit
from nas_yolo.config import SearchConfig
from nas_yolo.exact import pareto_designs
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind, kinds_of, nearest_choices
from search_spaces.parts import parts_of
from search_spaces.space import Choices, Value

Array = NDArray[np.float64]

LOWEST = 0.02  # of the stock model's score: what is left below that tells nothing
CANDIDATES = 8  # designs found exactly, at as many latencies
GUESS = 0.2
MIN_RESIDUALS = 8  # measured designs, from which on what size does not tell of latency is learned, too
STEPS_SHARE, MIN_STEPS, MAX_STEPS = 0.1, 16, 200
BATCH = 16


def steps_of(images: int, epochs: int) -> int:
    """Steps of an entry's training: the images of a tenth of a full training, within bounds.

    All entries together then take about as long as a few full trainings, and no more than they need.
    """
    return int(np.clip(STEPS_SHARE * images * epochs / BATCH, MIN_STEPS, MAX_STEPS))


def library_key(config: SearchConfig) -> str:
    """The same for all searches that share a library: they train the same stock model on the same images alike."""
    follows_from = (
        config.dataset.fingerprint,
        str(config.imgsz),
        config.epochs,
        sorted(config.training.items()),
        config.seed,
        config.pretrained_sha256,
        config.known_designs[config.space.baseline].key,
        [fidelity.name for fidelity in config.fidelities],
    )
    return hashlib.sha256(repr(follows_from).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Changes:
    """The stock model in a space, and all designs that differ from it in one choice.

    Attributes:
        config: Of the search.
    """

    config: SearchConfig
    _known: dict[str, Choices | None] = field(default_factory=dict, repr=False)

    @property
    def stock(self) -> Architecture:
        """The stock model itself, which may lie outside the space."""
        return self.config.known_designs[self.config.space.baseline]

    @cached_property
    def start(self) -> Choices:
        """The stock model, or the point nearest to it."""
        return nearest_choices(self.config.space, self.stock)

    @cached_property
    def single(self) -> dict[tuple[str, Value], Choices]:
        """By choice and value."""
        return {
            (name, value): {**self.start, name: value}
            for name, values in self.config.space.choices.items()
            for value in values
            if value != self.start[name]
        }

    @cached_property
    def pairs(self) -> dict[tuple[str, str], dict[tuple[Value, Value], Choices]]:
        """Block and depth of a place, which say together how large it is: all values of both, by their names."""
        space = self.config.space.choices
        places = [name.removesuffix(".block") for name in space if name.endswith(".block")]
        return {
            (f"{place}.block", f"{place}.depth"): {
                (block, depth): {**self.start, f"{place}.block": block, f"{place}.depth": depth}
                for block in space[f"{place}.block"]
                for depth in space[f"{place}.depth"]
            }
            for place in places
        }

    @cached_property
    def swaps(self) -> list[Choices]:
        """Designs with another block at one place, or another width or depth; the block also as shallow as may be."""
        shallow = [
            {**choices, depth: min(map(int, self.config.space.choices[depth]))}
            for (_, depth), known in self.pairs.items()
            for (_, value), choices in known.items()
            if value == self.start[depth] and choices != self.start
        ]
        found = [*self.single.values(), *shallow]
        return [choices for number, choices in enumerate(found) if choices not in found[:number]]

    @cached_property
    def own(self) -> list[Kind]:
        """What the stock model itself has: in other widths it is part of every design."""
        start = self.config.space.architecture(self.start)
        return [Kind.of(place, start) for place in parts_of(start)]

    @cached_property
    def others(self) -> list[Kind]:
        """All other blocks."""
        own = set(self.own)
        return [kind for kind in kinds_of(self.config.space, self.start) if kind not in own]

    def needed(self, choices: Choices) -> set[Kind]:
        """What a design takes from the library: all that the stock model does not have just so."""
        return _needed(self.config.space.architecture(choices), self.stock)

    def choices_of(self, architecture: Architecture) -> Choices | None:
        """The point of the space that an architecture is; None: it is none."""
        if architecture.key not in self._known:
            self._known[architecture.key] = self.config.space.choices_of(architecture)
        return self._known[architecture.key]

    def size(self, choices: Choices) -> Array:
        """What latency follows from, (4,), each as a share of the stock model's: 1, operations, steps, values moved."""
        found, stock = self._count(choices), self._stock
        return np.array(
            [1.0, found.gflops / stock.gflops, found.operators / stock.operators, found.moved / stock.moved]
        )

    @cached_property
    def _stock(self) -> Size:
        return self._count(self.start)

    def _count(self, choices: Choices) -> Size:
        architecture = self.config.space.architecture(choices)
        return predict_size(architecture, len(self.config.dataset.names), self.config.imgsz_of(architecture))


@lru_cache(maxsize=65536)
def _needed(design: Architecture, stock: Architecture) -> set[Kind]:
    has = parts_of(stock)
    return {
        Kind.of(place, design)
        for place, part in parts_of(design).items()
        if place not in has or has[place].shape != part.shape or Kind.of(place, design) != Kind.of(place, stock)
    }


def predict_latency(changes: Changes, measured: Sequence[tuple[Choices, float]]) -> Additive:
    """What each change adds to the logarithm of the latency in ms: by size, at the pace of what was measured.

    Logarithms, since what a narrower place saves is a share of what its block takes. Once enough was measured, what
    size does not tell is learned by choice. Before anything was measured, the stock model counts as 1 ms.

    Args:
        changes: Of the space.
        measured: Designs of the space and their latencies, ms.
    """
    pace = _pace([changes.size(choices) for choices, _ in measured], [latency for _, latency in measured])

    def of_size(choices: Choices) -> float:
        return math.log(float(pace @ changes.size(choices)))

    start, constant = changes.start, of_size(changes.start)
    effects: dict[Names, dict[Values, float]] = {(name,): {(value,): 0.0} for name, value in start.items()}
    for (name, value), choices in changes.single.items():
        effects[(name,)][(value,)] = of_size(choices) - constant
    for (block, depth), together in changes.pairs.items():
        effects[(block, depth)] = {
            (b, d): of_size(choices) - constant - effects[(block,)][(b,)] - effects[(depth,)][(d,)]
            for (b, d), choices in together.items()
        }
    if len(measured) < MIN_RESIDUALS:
        return Additive(constant, effects)
    model = Additive(constant, effects)
    left = fit(start, [one for one, _ in measured], [math.log(ms) - model.predict(one) for one, ms in measured])
    for names, known in left.effects.items():
        effects[names] |= {values: effects[names].get(values, 0.0) + added for values, added in known.items()}
    return Additive(constant + left.constant, effects)


def _pace(sizes: Sequence[Array], latencies_ms: Sequence[float]) -> Array:
    """Ms for each part of size, (4,), none of them negative.

    Each part counts as a quarter of the stock model's latency as far as nothing else is known: so much as a fifth of a
    sighting says.
    """
    guess = np.full(4, 0.25) * (float(np.median(latencies_ms)) if latencies_ms else 1.0)
    if not latencies_ms:
        return guess
    rows = np.vstack([*sizes, GUESS * np.eye(4)])
    pace: Array = nnls(rows, np.concatenate([latencies_ms, GUESS * guess]))[0]
    return pace


def predict_scores(changes: Changes, scored: Sequence[tuple[Choices, float]]) -> AdditiveModel | None:
    """What each change leaves of the stock model's score, as logarithms that are added up; None until that is known.

    Args:
        changes: Of the space.
        scored: Designs of the space and their scores.
    """
    own = next((score for choices, score in scored if choices == changes.start), 0.0)
    if own <= 0 or len(scored) < 3:
        return None
    return fit(changes.start, [choices for choices, _ in scored], [share_left(score, own) for _, score in scored])


def share_left(score: float, own: float) -> float:
    """Logarithm of what is left of a score, at most what still means something."""
    return math.log(max(score / own, LOWEST))


def kinds_due(changes: Changes, latency: Additive, known: Collection[Kind]) -> list[Kind]:
    """The entries to make once the stock model's own are there, the fastest swap first.

    What is not faster than the stock model's own, even as shallow as may be, is not made: it would imitate what is
    there, slower.

    Args:
        changes: Of the space.
        latency: Predicted.
        known: Entries that are there, are being made, or cannot be made.
    """
    saved = {kind: _added(changes, latency, kind) for kind in changes.others if kind not in known}
    return sorted((kind for kind, added in saved.items() if added < 0), key=lambda kind: saved[kind])


def _added(changes: Changes, latency: Additive, kind: Kind) -> float:
    """What the fastest design with such a block adds to the stock model's latency, as far as depth is concerned."""
    swap = {**changes.start, **kind.choices}
    as_is = latency.predict(swap) - latency.constant
    if (
        depth := f"{kind.place.removesuffix('.block').replace('.up', '')}.depth"
    ) not in swap or "block" not in kind.place:
        return as_is
    least = {depth: min(map(int, changes.config.space.choices[depth]))}
    return min(as_is, latency.predict({**swap, **least}) - latency.predict({**changes.start, **least}))


def swaps_due(changes: Changes, latency: Additive) -> list[Choices]:
    """The stock model, then the designs that differ from it at one place, most time saved first.

    Those that save none are left out: a score cannot show more than what is imitated.
    """
    swaps = sorted(changes.swaps, key=latency.predict)
    return [changes.start, *(choices for choices in swaps if latency.predict(choices) < latency.constant)]


def exact_designs(changes: Changes, latency: Additive, score: AdditiveModel) -> list[Choices]:
    """The designs that are best at every latency by what is predicted, fastest first."""
    seen = {name: score.seen.get(name, (changes.start[name],)) for name in changes.config.space.choices}
    return pareto_designs(seen, score, latency, CANDIDATES)


def scores_of(changes: Changes, assemblies: Iterable[AssembledScore]) -> list[tuple[Choices, float]]:
    """Designs of the space that were put together, and what they found."""
    found = []
    for one in assemblies:
        choices = changes.choices_of(one.architecture)
        if choices is not None and one.map50_95 is not None:
            found.append((choices, one.map50_95))
    return found


def is_ready(changes: Changes, choices: Choices, made: Mapping[Kind, bool]) -> bool:
    """Whether all that a design needs is there.

    Args:
        changes: Of the space.
        choices: The design.
        made: Entries, and whether each is of use.
    """
    return all(made.get(kind, False) for kind in changes.needed(choices))

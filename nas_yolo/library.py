"""What a search makes of its library next, and what its scores say: pure functions of what is known.

A library has what a search can use: blocks that imitate the trained stock model, so that designs can be put together
and scored at once. What a change costs alone and what it saves, added up, say which designs are best at every latency;
these are scored, too, and are what the engine proposes first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.optimize import nnls

from evaluators.complexity import predict_size
from evaluators.evaluation import AssembledScore
from nas_yolo.additive import Additive, AdditiveModel, fit
from nas_yolo.config import SearchConfig
from nas_yolo.exact import pareto_designs
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind, kinds_of, nearest_choices
from search_spaces.parts import parts_of
from search_spaces.space import Choices, Value

LOWEST = 0.02  # of the stock model's score: what is left below that tells nothing
CANDIDATES = 12  # designs found exactly, at as many latencies
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

    @cached_property
    def start(self) -> Choices:
        """The stock model, or the point nearest to it."""
        return nearest_choices(self.config.space, self.config.known_designs[self.config.space.baseline])

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
    def own(self) -> list[Kind]:
        """What the stock model itself has: in other widths it is part of every design."""
        stock = self.config.space.architecture(self.start)
        return [Kind.of(place, stock) for place in parts_of(stock)]

    @cached_property
    def others(self) -> list[Kind]:
        """All other blocks."""
        own = set(self.own)
        return [kind for kind in kinds_of(self.config.space, self.start) if kind not in own]

    def needed(self, choices: Choices) -> set[Kind]:
        """What a design takes from the library: all that the stock model does not have just so."""
        return _needed(self.config.space.architecture(choices), self.config.space.architecture(self.start))

    def size(self, choices: Choices) -> tuple[float, float]:
        """Billions of operations, and millions of weights."""
        architecture = self.config.space.architecture(choices)
        found = predict_size(architecture, len(self.config.dataset.names), self.config.imgsz_of(architecture))
        return found.gflops, found.params / 1e6


@lru_cache(maxsize=65536)
def _needed(design: Architecture, stock: Architecture) -> set[Kind]:
    has = parts_of(stock)
    return {
        Kind.of(place, design)
        for place, part in parts_of(design).items()
        if place not in has or has[place].shape != part.shape or Kind.of(place, design) != Kind.of(place, stock)
    }


def predict_latency(changes: Changes, measured: Sequence[tuple[Choices, float]]) -> Additive:
    """What each change adds to the latency, in ms: by size, at the pace of what was measured; then by what is left.

    Before anything was measured, in units of the stock model's latency.

    Args:
        changes: Of the space.
        measured: Designs of the space and their latencies, ms.
    """
    designs, values = [choices for choices, _ in measured], np.array([latency for _, latency in measured])
    stock = np.array([1.0, *changes.size(changes.start)])
    weights = np.array([0.5, 0.5 / stock[1], 0.0])  # half of it does not depend on size, as on most devices
    if measured:
        features = np.array([[1.0, *changes.size(choices)] for choices in designs])
        # A fifth of a sighting of what is true of most devices, so that few designs do not say too much.
        guess = 0.2 * np.diag(weights / np.maximum(weights, 1e-12)) * stock
        typical = float(np.median(values))
        rows = np.vstack([features, guess[:2]])
        weights = nnls(rows, np.concatenate([values, 0.2 * typical * weights[:2] * stock[:2]]))[0]

    def of_size(choices: Choices) -> float:
        return float(weights @ np.array([1.0, *changes.size(choices)]))

    constant = of_size(changes.start)
    effects: dict[tuple[str, ...], dict[tuple[Value, ...], float]] = {
        (n,): {(v,): 0.0} for n, v in changes.start.items()
    }
    for (name, value), choices in changes.single.items():
        effects[(name,)][(value,)] = of_size(choices) - constant
    if len(measured) >= MIN_RESIDUALS:
        model = Additive(constant, effects)
        left = fit(changes.start, designs, [v - model.predict(c) for c, v in zip(designs, values, strict=True)])
        constant += left.constant
        for names, known in left.effects.items():
            for values_, added in known.items():
                effects[names][values_] = effects[names].get(values_, 0.0) + added
    return Additive(constant, effects)


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


def kinds_due(
    changes: Changes, latency: Additive, made: Iterable[Kind], running: Iterable[Kind], group: int
) -> list[Kind]:
    """The entries to make next: the stock model's own first, then others, the fastest swap first.

    What is not faster than the stock model's own is not made: it would imitate what is there, slower.

    Args:
        changes: Of the space.
        latency: Predicted.
        made: Entries that are there, or cannot be made.
        running: That are being made.
        group: At most so many.
    """
    known = {*made, *running}
    if own := [kind for kind in changes.own if kind not in known]:
        return own[:group]
    saved = {kind: _added(changes, latency, kind) for kind in changes.others if kind not in known}
    return sorted((kind for kind, added in saved.items() if added < 0), key=lambda kind: saved[kind])[:group]


def _added(changes: Changes, latency: Additive, kind: Kind) -> float:
    return latency.predict({**changes.start, **kind.choices}) - latency.constant


def swaps_due(changes: Changes, latency: Additive) -> list[Choices]:
    """The stock model, then the designs that differ from it in one choice, most time saved first.

    Those that save none are left out: a score cannot show more than what is imitated.
    """
    single = sorted(changes.single.values(), key=latency.predict)
    return [changes.start, *(choices for choices in single if latency.predict(choices) < latency.constant)]


def exact_designs(changes: Changes, latency: Additive, score: AdditiveModel) -> list[Choices]:
    """The designs that are best at every latency by what is predicted, fastest first."""
    seen = {name: score.seen.get(name, (changes.start[name],)) for name in changes.config.space.choices}
    return pareto_designs(seen, score, latency, CANDIDATES)


def scores_of(changes: Changes, assemblies: Iterable[AssembledScore]) -> list[tuple[Choices, float]]:
    """Designs of the space that were put together, and what they found."""
    found = []
    for one in assemblies:
        choices = changes.config.space.choices_of(one.architecture)
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

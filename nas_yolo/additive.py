"""What each choice of a design adds to a quantity, e.g. its score or latency, from whole designs that were observed."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from search_spaces.space import Value

Array = NDArray[np.float64]
Names = tuple[str, ...]
Values = tuple[Value, ...]

RIDGES = np.geomspace(1e-9, 1e3, 49)
RATIOS = (1.0, 4.0, 16.0)  # what several choices add together is mostly less than what each adds alone
MIN_DESIGNS = 3  # to leave one out and see others differ


@dataclass(frozen=True)
class Additive:
    """A quantity of a design as a sum.

    Attributes:
        constant: To which all effects are added, in the unit of the quantity, as they are.
        effects: By the name of one choice, or by the names of several that belong together, what each combination of
            their values adds; what is not listed adds nothing.
    """

    constant: float
    effects: Mapping[Names, Mapping[Values, float]]

    def predict(self, choices: Mapping[str, Value]) -> float:
        """The sum for a design.

        Raises:
            KeyError: If a choice is missing.
        """
        added = (known.get(tuple(choices[name] for name in names), 0.0) for names, known in self.effects.items())
        return math.fsum((self.constant, *added))


@dataclass(frozen=True)
class Penalty:
    """How strongly effects are drawn to 0, each in sightings: one that is seen that often is halved, or about that.

    Attributes:
        single: Of the values of one choice; more than 0.
        together: Of what the values of several choices add together; likewise.
    """

    single: float
    together: float


@dataclass(frozen=True)
class Error:
    """How well a design is predicted by a model that has seen all the others.

    Only those count whose every value others have too: of a value that is left out with the design nothing can be
    known. The penalty is chosen for this error and then held, which makes it a little too small.

    Attributes:
        rmse: Root mean squared error, in the unit of the quantity; 0 is best; nan if fewer than three designs count.
        tau: Kendall's rank correlation of what is predicted with what was observed, -1 to 1, which is best; nan
            likewise, and if all are equal in one of the two.
        designs: How many count.
    """

    rmse: float
    tau: float
    designs: int


@dataclass(frozen=True)
class AdditiveModel(Additive):
    """Effects relative to a start design, as `fit` found them.

    A value that was never seen adds nothing: it is predicted as the start's. An optimiser would take it for free, and
    should choose among `seen`.

    Attributes:
        error: As measured.
        penalty: As chosen.
    """

    error: Error
    penalty: Penalty
    _posterior: _Posterior = field(repr=False)

    @property
    def seen(self) -> dict[str, tuple[Value, ...]]:
        """The values of each choice that were observed, the start's first."""
        return {names[0]: tuple(v for (v,) in known) for names, known in self.effects.items() if len(names) == 1}

    def uncertainty(self, choices: Mapping[str, Value]) -> float:
        """Standard deviation, about what is predicted of a design, of what would be observed; nan if `error` is.

        Raises:
            KeyError: If a choice is missing.
        """
        return self._posterior.deviation(choices)


def fit(
    start: Mapping[str, Value],
    designs: Sequence[Mapping[str, Value]],
    observed: Sequence[float],
    groups: Sequence[Sequence[str]] = (),
    penalty: Penalty | None = None,
) -> AdditiveModel:
    """A model by ridge regression on what differs from the start; the constant is free.

    Args:
        start: The design whose values have no effects; its choices are those of the model.
        designs: At least three.
        observed: The quantity, of each.
        groups: Names of choices that belong together, as block, width and depth of one place do for latency: what
            they add beyond the sum of their effects is found too, for those combinations that were seen.
        penalty: By default the one that leaves the least error, or next to none if that is nan: what each of some
            swaps adds alone is then taken as it was observed.

    Raises:
        KeyError: If a design lacks a choice, or a group names none.
        ValueError: If designs are too few or not as many as values, or a value is not finite.
    """
    targets = np.asarray(observed, dtype=float)
    if len(designs) != len(targets) or len(designs) < MIN_DESIGNS:
        raise ValueError(f"{len(designs)} designs and {len(targets)} values: {MIN_DESIGNS} or more of both are needed")
    if not np.isfinite(targets).all():
        raise ValueError("values must be finite")
    terms = [*((name,) for name in start), *(tuple(group) for group in groups if len(group) > 1)]
    columns: dict[tuple[Names, Values], int] = {}
    for design in designs:
        for term in _differences(start, design, terms):
            columns.setdefault(term, len(columns))
    several = any(len(names) > 1 for names, _ in columns)
    ratios = [penalty.together / penalty.single] if penalty else RATIOS if several else RATIOS[:1]
    ridges = [penalty.single] if penalty else RIDGES.tolist()
    candidates = []
    for ratio in ratios:
        regression = _Regression(_Features(start, terms, columns, ratio), designs, targets)
        candidates += [(regression.error(ridge), ridge, regression) for ridge in ridges]
    error, ridge, regression = min(candidates, key=lambda candidate: candidate[0].rmse)  # the first, if all are nan
    weights = regression.weights(ridge)
    constant = regression.mean - float(weights @ regression.centre)
    effects: dict[Names, dict[Values, float]] = {
        names: {(start[names[0]],): 0.0} if len(names) == 1 else {} for names in terms
    }
    for (names, values), column in columns.items():
        effects[names][values] = float(weights[column] * regression.features.size(names))
    return AdditiveModel(
        constant,
        effects,
        error,
        Penalty(ridge, ridge * regression.features.ratio),
        _Posterior(regression, ridge),
    )


def _differences(
    start: Mapping[str, Value], design: Mapping[str, Value], terms: Sequence[Names]
) -> list[tuple[Names, Values]]:
    """Where a design differs from the start: in a choice, or in two or more of several that belong together."""
    found = []
    for names in terms:
        values = tuple(design[name] for name in names)
        if sum(value != start[name] for name, value in zip(names, values, strict=True)) >= min(len(names), 2):
            found.append((names, values))
    return found


@dataclass(frozen=True)
class _Features:
    """One feature for each difference that was seen: 1 for a value, less for values together, so that one ridge does.

    Attributes:
        start: The design with no differences.
        terms: Choices, single and together.
        columns: Of the differences that were seen.
        ratio: Of the penalties of together and single.
    """

    start: Mapping[str, Value]
    terms: Sequence[Names]
    columns: Mapping[tuple[Names, Values], int]
    ratio: float

    def size(self, names: Names) -> float:
        return 1.0 if len(names) == 1 else self.ratio**-0.5

    def row(self, design: Mapping[str, Value]) -> tuple[Array, float]:
        """The features, (columns,), and the sum of squares of those that were never seen."""
        features, unseen = np.zeros(len(self.columns)), 0.0
        for names, values in _differences(self.start, design, self.terms):
            if (column := self.columns.get((names, values))) is None:
                unseen += self.size(names) ** 2
            else:
                features[column] = self.size(names)
        return features, unseen


class _Regression:
    """Ridge regression for any ridge, by one singular value decomposition of the centred features."""

    def __init__(self, features: _Features, designs: Sequence[Mapping[str, Value]], targets: Array):
        self.features = features
        rows = np.array([features.row(design)[0] for design in designs]).reshape(len(designs), -1)
        self.centre, self.mean = rows.mean(axis=0), float(targets.mean())
        left, singular, right = np.linalg.svd(rows - self.centre, full_matrices=False)
        kept = singular > 1e-10 * max(float(singular.max(initial=0.0)), 1.0)
        self.left, self.singular, self.axes = left[:, kept], singular[kept], right[kept]
        self.along = self.left.T @ (targets - self.mean)
        self.outside = targets - self.mean - self.left @ self.along  # what no effects explain
        self.free = np.maximum(1 - 1 / len(targets) - (self.left**2).sum(axis=1), 0.0)
        values = [[(name, design[name]) for name in features.start] for design in designs]
        having = Counter(itertools.chain.from_iterable(values))
        self.counts = np.array([all(having[one] > 1 for one in some) for some in values])
        self.targets = targets

    def error(self, ridge: float) -> Error:
        designs = int(self.counts.sum())
        if designs < MIN_DESIGNS:
            return Error(math.nan, math.nan, designs)
        residuals, targets = self.left_out(ridge)[self.counts], self.targets[self.counts]
        tau = float(kendalltau(targets - residuals, targets).statistic)
        return Error(math.sqrt(float(np.mean(residuals**2))), tau, designs)

    def noise(self, ridge: float) -> float:
        """Variance of what no effects explain, such that errors of designs left out are as large as they should be."""
        if self.counts.sum() < MIN_DESIGNS:
            return math.nan
        return float(np.mean((self.left_out(ridge) ** 2 * self.unexplained(ridge))[self.counts]))

    def left_out(self, ridge: float) -> Array:
        """Each value less its prediction by a fit to all the others, (N,), in closed form."""
        kept = ridge / (self.singular**2 + ridge)
        residuals: Array = (self.outside + self.left @ (kept * self.along)) / self.unexplained(ridge)
        return residuals

    def unexplained(self, ridge: float) -> Array:
        """Which share of itself each value does not predict, (N,): 1 less the diagonal of the hat matrix."""
        shares: Array = self.free + self.left**2 @ (ridge / (self.singular**2 + ridge))
        return shares

    def weights(self, ridge: float) -> Array:
        """Of the features, (columns,)."""
        weights: Array = (self.singular / (self.singular**2 + ridge) * self.along) @ self.axes
        return weights


class _Posterior:
    """What is believed after a regression.

    What was never seen varies as the effects found do: a ridge that was chosen for its error does not say how much.
    """

    def __init__(self, regression: _Regression, ridge: float):
        self._features, self._centre, self._axes = regression.features, regression.centre, regression.axes
        self._precisions = regression.singular**2 + ridge
        self._designs = len(regression.outside)
        self._noise = regression.noise(ridge)
        self._effects = float((regression.weights(ridge) ** 2).sum()) / max(len(self._precisions), 1)

    def deviation(self, choices: Mapping[str, Value]) -> float:
        features, unseen = self._features.row(choices)
        features -= self._centre
        along = self._axes @ features
        across = max(float(features @ features - along @ along), 0.0) + unseen
        known = 1 + 1 / self._designs + float(along**2 @ (1 / self._precisions))
        return math.sqrt(self._noise * known + self._effects * across)

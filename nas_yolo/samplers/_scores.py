"""Which zero-cost scores a search should believe: those that would have made predictions of its own trials better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_yolo.samplers import Observation
from nas_yolo.samplers._grid import Codes, Grid
from nas_yolo.samplers._quantity import Fits, Quantity, spread_out, step_below
from nas_yolo.samplers._scale import normal_ranks
from nas_yolo.samplers._surrogate import Surrogate
from nas_yolo.trust import MIN_PAIRS, iso_latency_pairs, iso_latency_tau

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MIN_TRIALS = 12  # trained and scored, under which nothing is judged
MOST = 60  # trials that are looked at, so that a judgement takes no longer than a second
FOLDS = 6
GAIN = 0.05  # in tau, under which a score is not worth its place
SHUFFLES = 39  # a score must gain more than all of them: one in 40 does so by chance


@dataclass(frozen=True)
class ScoreVerdict:
    """Whether a score helps to predict accuracy, by cross-validation over the trials of a search.

    Attributes:
        name: The name of the score.
        kept: Whether the engine uses it.
        tau: Between accuracies and predictions without it, among trials of about equal latency; with those kept before
            it.
        tau_with: With it.
        trials: Number of trials that were predicted.
    """

    name: str
    kept: bool
    tau: float
    tau_with: float
    trials: int


def judge_scores(grid: Grid, seen: Sequence[Observation], levels: int, fits: Fits) -> tuple[ScoreVerdict, ...]:
    """Judge each score by the highest fidelity that enough trials have reached; none where there are not enough.

    The score that gains most is kept if it gains enough, and more than when its values are shuffled among the trials;
    then the next, if it adds to that. Looked at are the trials that there were at the last step of growth, so that the
    answer, which takes a second, changes rarely.

    Args:
        grid: The space.
        seen: All trials, by number.
        levels: Number of fidelities.
        fits: Kept between calls.
    """
    scored = [one for one in seen if one.latencies_ms and one.scores]
    reached = [[one for one in scored if len(one.accuracies) > level] for level in range(levels)]
    enough = [(level, here) for level, here in enumerate(reached) if len(here) >= MIN_TRIALS]
    if not enough:
        return ()
    level, trained = enough[-1]
    early = trained[: step_below(len(trained))]
    trials = [early[i] for i in spread_out(len(early), MOST).tolist()]
    key = repr([(one.codes, one.latencies_ms, one.accuracies[level], sorted(one.scores.items())) for one in trials])
    return fits.remembered("scores", key.encode(), lambda: _judge(grid, trials, level))


def _judge(grid: Grid, trials: Sequence[Observation], level: int) -> tuple[ScoreVerdict, ...]:
    latencies = [one.latencies_ms[0] for one in trials]
    if len(iso_latency_pairs(latencies)[0]) < MIN_PAIRS:
        return ()
    accuracies = np.array([one.accuracies[level] for one in trials])
    base = list(grid.features(np.array([one.codes for one in trials])))
    logarithms = np.log([one.latencies_ms for one in trials])
    speed = _standard(logarithms) / math.sqrt(logarithms.shape[1])

    def tau(names: Sequence[str], shuffle: slice | Indices = slice(None)) -> float:
        """How well predictions with these scores, the last of them shuffled, order the trials."""
        groups = [columns[name] for name in names]
        groups[-1:] = [group[shuffle] for group in groups[-1:]]
        predicted = _cross_validated([*base, *groups, speed], normal_ranks(accuracies))
        return iso_latency_tau(latencies, predicted, accuracies)

    rng = np.random.default_rng(0)
    shuffles = [rng.permutation(len(trials)) for _ in range(SHUFFLES)]
    columns = {}
    for name in sorted({name for one in trials for name in one.scores}):
        values = np.array([one.scores.get(name, math.nan) for one in trials])
        if np.isfinite(values).sum() >= MIN_TRIALS:
            columns[name] = _standard(np.where(np.isfinite(values), values, np.nanmean(values))[:, None])
    kept: list[str] = []
    verdicts: list[ScoreVerdict] = []
    before = tau([])
    while left := [name for name in columns if name not in kept]:
        after = {name: tau([*kept, name]) for name in left}
        best = max(left, key=lambda name: after[name])
        if after[best] - before < GAIN or any(tau([*kept, best], shuffle) >= after[best] for shuffle in shuffles):
            return (*verdicts, *(ScoreVerdict(name, False, before, after[name], len(trials)) for name in left))
        kept.append(best)
        verdicts.append(ScoreVerdict(best, True, before, after[best], len(trials)))
        before = after[best]
    return tuple(verdicts)


def _cross_validated(features: Sequence[Array], values: Array) -> Array:
    """What a model that has not seen a trial predicts for it, (n,)."""
    fold = np.arange(len(values)) % FOLDS
    predictions = np.empty_like(values)
    for left_out in range(FOLDS):
        known, here = fold != left_out, fold == left_out
        rest = [group[known] for group in features]
        fidelity = np.zeros(int(known.sum()), dtype=np.int64)
        model = Surrogate(len(features))
        model.fit(rest, fidelity, values[known])
        predictions[here] = model.condition(rest, fidelity, values[known]).expect([group[here] for group in features])[
            0
        ]
    return predictions


class ScoreFeature:
    """A score as a feature: what it is of trials that have it, what is to be expected of it elsewhere.

    Args:
        name: The name of the score.
        grid: The space.
        seen: Trials, at least one of which has it.
        fits: Kept between calls.
    """

    def __init__(self, name: str, grid: Grid, seen: Sequence[Observation], fits: Fits):
        self._name = name
        scored = [one for one in seen if name in one.scores]
        values = np.array([[one.scores[name]] for one in scored])
        self._quantity = Quantity(f"score {name}", grid, np.array([one.codes for one in scored]), values, fits)

    def of(self, codes: Codes, seen: Sequence[Observation] = ()) -> Array:
        """With a mean squared distance of 1 between trials, (N, 1).

        Args:
            codes: The points.
            seen: The first of these, as far as they are trials.
        """
        values = self._quantity.predict(codes)[0]
        for i, one in enumerate(seen):
            values[i] = one.scores.get(self._name, values[i])
        standard: Array = (values - self._quantity.centre) / (self._quantity.spread * math.sqrt(2))
        return standard[:, None]


def _standard(values: Array) -> Array:
    """With a mean squared distance of 1 between rows in each column."""
    standard: Array = (values - values.mean(axis=0)) / (np.maximum(values.std(axis=0), 1e-12) * math.sqrt(2))
    return standard

"""What the frontier engine believes at one moment, and what it would do next: the same trials, the same answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_yolo.pareto import front, regrets
from nas_yolo.samplers import Assembled, Earlier, Observation
from nas_yolo.samplers._acquisition import Front, acquisition, expected_improvement, step_front
from nas_yolo.samplers._assembled import front_of
from nas_yolo.samplers._grid import Codes, Features, Grid
from nas_yolo.samplers._quantity import MIN_MEASURED, Fits, Quantity, spread_out, step_below
from nas_yolo.samplers._scale import REFERENCE_ACCURACY, final_scale, standard
from nas_yolo.samplers._scores import ScoreFeature, judge_scores
from nas_yolo.samplers._surrogate import Belief

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Predict = Callable[[Sequence[Array]], Belief]

FIRST_COST, MAX_FIRST = 1.5, 24  # full trainings that the first designs cost at the first fidelity; how many at most
POOL = 600  # points drawn, and as many children of the best
SAMPLE = 256  # points that stand for the whole space
FIT_MAX, MAX_OBSERVATIONS = 160, 480  # accuracies for lengths and noise, and in all
MAX_RUNNING = 128  # trainings that run of which the model is told
DRAWS = 3  # pairs of plausible lengths and noise that accuracies are believed by
MAX_EARLIER = 1000  # designs of earlier searches on the same images, and as many on others
MAX_SCREENED = 2000  # trials that are looked at in each decision
MAX_COMPARED = 100  # new points, and trials whose worth is computed exactly
REFERENCE_LATENCY = 0.99  # quantile of the space beyond which nothing counts


def first_designs(costs: Array) -> int:
    """How many designs are trained to the first fidelity before a model is asked.

    As many as cost one and a half full trainings, 24 at most; at least as many as it takes to predict latency.
    """
    return int(np.clip(math.ceil(FIRST_COST / costs[0]), MIN_MEASURED, MAX_FIRST))


def enough(seen: Sequence[Observation], costs: Array) -> bool:
    """Whether a model has something to learn from."""
    return sum(bool(one.accuracies) for one in seen) >= first_designs(costs)


class Outlook:
    """Beliefs about all points of a space, from trials.

    Args:
        grid: The space.
        seen: All trials, by number.
        costs: What it costs to train from nothing to each fidelity, ascending, in full trainings.
        seed: Settles everything random.
        limit_ms: Latency beyond which a design is of no use.
        fits: Kept between outlooks, to save time; changes nothing.
        earlier: Designs of earlier searches: a fidelity more, below all others, that costs nothing. How much it tells
            of this search follows from the trials that there are.
        tie: Relative difference of latencies up to which none is faster.
        assembled: Designs that were put together from a library: the fidelity next below a training's first. They are
            among the candidates, and so are children of the best of them.

    Raises:
        ValueError: If no trial was measured and trained.
    """

    def __init__(
        self,
        grid: Grid,
        seen: Sequence[Observation],
        costs: Array,
        seed: int,
        limit_ms: float = math.inf,
        fits: Fits | None = None,
        earlier: Sequence[Earlier] = (),
        tie: float = 0.0,
        assembled: Sequence[Assembled] = (),
    ):
        self._assembled = list(assembled)
        self._grid, self._costs, self._seed, self._count = grid, costs, seed, len(seen)
        self._worth: dict[tuple[Any, ...], float] = {}
        self._tie = tie
        fits = fits or Fits()
        self._seen = [one for one in seen if one.latencies_ms]
        if not any(one.accuracies for one in self._seen):
            raise ValueError("nothing was measured and trained yet")
        self._codes = np.array([one.codes for one in self._seen])
        measured = np.log([one.latencies_ms for one in self._seen])
        self.latencies = Quantity("latency", grid, self._codes, measured, fits)
        timed = [i for i, one in enumerate(self._seen) if one.epoch_s]
        seconds = np.log([[self._seen[i].epoch_s or 1.0] for i in timed])
        self._epoch = Quantity("epoch", grid, self._codes[timed], seconds, fits) if timed else None
        self._scores = [
            ScoreFeature(score.name, grid, self._seen, fits)
            for score in judge_scores(grid, self._seen, len(costs), fits)
            if score.kept
        ]
        self._measured = self.latencies.measured
        sample = grid.draw(SAMPLE, np.random.default_rng(seed))
        sample_latency = self.latencies.predict(sample)
        self._learn_accuracy(earlier, fits)
        typical = self.believe(sample, sample_latency, self._accuracy.sketch)
        self._typical_deviation = float(np.sqrt(np.maximum(typical.covariance[-1, -1], 0.0)).mean()) + 1e-12
        floor = float(np.quantile(typical.mean[-1], REFERENCE_ACCURACY))
        edges = np.minimum(np.quantile(sample_latency, REFERENCE_LATENCY, axis=1), math.log(limit_ms))
        self.references = [(float(edge), floor) for edge in edges]
        self.fronts = [self._front(target) for target in range(len(self._measured))]

    # Beliefs --------------------------------------------------------------------------------------------------------

    def believe(
        self,
        codes: Codes,
        log_latencies: Array,
        predict: Predict | None = None,
        trials: Sequence[Observation] = (),
        features: Features | None = None,
    ) -> Belief:
        """About accuracy at each fidelity; the last one in its own unit.

        Args:
            codes: The points.
            log_latencies: On each target, (targets, N).
            predict: How, if not in full.
            trials: What the points are, if known.
            features: Of the points alone, if known.
        """
        belief = (predict or self._accuracy.predict)(self._features(codes, log_latencies, trials, features))
        unit = np.ones(len(self._costs))
        unit[-1] = self._scale.deviation
        mean = belief.mean[self._below :] * unit[:, None]
        mean[-1] += self._scale.centre
        covariance = belief.covariance[self._below :, self._below :] * unit[:, None, None] * unit[:, None]
        return Belief(mean, covariance, belief.noise[self._below :] * unit**2)

    def _features(
        self,
        codes: Codes,
        log_latencies: Array,
        trials: Sequence[Observation] = (),
        features: Features | None = None,
    ) -> tuple[Array, ...]:
        standard = ((log_latencies.T - self.latencies.centre) / self.latencies.spread) / math.sqrt(
            2 * len(log_latencies)
        )
        features = features or self._grid.features(codes)
        return (*features, *(score.of(codes, trials) for score in self._scores), standard)

    def _learn_accuracy(self, earlier: Sequence[Earlier], fits: Fits) -> None:
        own = [
            np.array([i for i, one in enumerate(self._seen) if len(one.accuracies) > level], dtype=np.int64)
            for level in range(len(self._costs))
        ]
        raw = [np.array([self._seen[i].accuracies[level] for i in here]) for level, here in enumerate(own)]
        self._scale = final_scale(raw)
        # Other data tell less than the same: first, so that what they tell passes through what the same data show.
        codes, latencies, reached, standings = [self._codes], [self._measured], [], []
        for same_data in (False, True):
            if here := [one for one in earlier if one.same_data == same_data]:
                reached.append(np.arange(len(here)) + sum(map(len, codes)))
                standings.append(np.array([one.standing for one in here]))
                codes.append(np.array([one.codes for one in here]))
                latencies.append(self.latencies.predict(codes[-1]))
        if len(self._assembled) >= MIN_MEASURED and np.ptp(left := np.array([one.left for one in self._assembled])):
            reached.append(np.arange(len(left)) + sum(map(len, codes)))
            standings.append((left - left.mean()) / left.std())
            codes.append(np.array([one.codes for one in self._assembled]))
            latencies.append(self.latencies.predict(codes[-1]))
        self._below = len(reached)
        reached += own
        all_latencies = np.concatenate(latencies, axis=1)
        self._known_features = features = self._features(np.concatenate(codes), all_latencies, self._seen)
        levels = len(reached)
        # Fits and noise are found for things as they were at the last step of growth.
        early = [values[: step_below(len(values))] for values in raw]
        base = [spread_out(len(values), FIT_MAX // levels) for values in (*standings, *early)]
        surrogate = fits.fitted(
            "accuracy",
            [
                group[np.concatenate([here[chosen] for here, chosen in zip(reached, base, strict=True)])]
                for group in features
            ],
            _repeated([len(chosen) for chosen in base]),
            _picked([*standings, *standard(early, final_scale(early))], base),
            levels,
            DRAWS,
        )
        kept = [
            _kept(all_latencies[0, here], values, MAX_OBSERVATIONS // levels)
            for here, values in zip(reached, (*standings, *raw), strict=True)
        ]
        known = np.concatenate([here[chosen] for here, chosen in zip(reached, kept, strict=True)])
        fidelity = _repeated([len(chosen) for chosen in kept])
        values = _picked([*standings, *standard(raw, self._scale)], kept)
        coming = np.array([i for i, one in enumerate(self._seen) if one.coming_fidelity is not None], dtype=np.int64)
        if len(coming):
            # Results that are on their way: as expected, so that nothing is learned from them but that they come.
            chosen = [group[known] for group in features]
            before = fits.conditioned("before", surrogate, chosen, fidelity, values, averaged=False)
            expected = before.expect([group[coming] for group in features])
            most = _kept(self._measured[0, coming], expected[-1], MAX_RUNNING)
            at = np.array([self._seen[i].coming_fidelity for i in coming[most].tolist()], dtype=np.int64) + self._below
            known = np.concatenate([known, coming[most]])
            fidelity = np.concatenate([fidelity, at])
            values = np.concatenate([values, expected[at, most]])
        chosen = [group[known] for group in features]
        self._accuracy = fits.conditioned("accuracy", surrogate, chosen, fidelity, values)

    def _expected_end(self, which: Sequence[int]) -> Array:
        """Final accuracy to be expected of known trials."""
        means = self._accuracy.expect([group[which] for group in self._known_features])[-1]
        end: Array = means * self._scale.deviation + self._scale.centre
        return end

    def _front(self, target: int) -> Front:
        """The front of complete trials, and of those on their way to completion as expected."""
        last = len(self._costs) - 1
        done = [i for i, one in enumerate(self._seen) if len(one.accuracies) > last]
        coming = [i for i, one in enumerate(self._seen) if one.coming_fidelity == last]
        accuracy = np.array([self._seen[i].accuracies[last] for i in done])
        if coming:
            expected = self._expected_end(coming)
            accuracy = np.concatenate([accuracy, expected])
        # A new design that is as fast, as far as can be told, must be more accurate to add anything.
        latency = self._measured[target, done + coming] - math.log1p(self._tie)
        return step_front(latency, accuracy, self.references[target])

    # Decisions ------------------------------------------------------------------------------------------------------

    def acquisition_of(self, seen: Sequence[Observation]) -> list[float]:
        """What it is worth to train each of these measured trials on; comparable to each other and to `candidates`."""
        compared = _promising(seen)
        if len(compared) > MAX_COMPARED:
            compared, left_out = self._sketched(seen, compared)
        else:
            left_out = np.array([], dtype=np.int64)
        result = np.full(len(seen), -float(len(seen)))  # those that are not even screened come last
        result[left_out] = -np.arange(len(left_out), dtype=float) - MAX_COMPARED
        # Within one outlook the same trials are asked about several times.
        keys = {i: _identity(seen[i]) for i in compared.tolist()}
        unknown = np.array([i for i, key in keys.items() if key not in self._worth], dtype=np.int64)
        reached = np.array([len(seen[i].accuracies) - 1 for i in unknown.tolist()], dtype=np.int64)
        for level in np.unique(reached).tolist():
            here = unknown[reached == level].tolist()
            trials = [seen[i] for i in here]
            codes, latencies = _points(trials)
            taken = self._seconds(codes, known=[one.epoch_s for one in trials])
            values = self._acquisition(codes, latencies, level, trials=trials) / taken
            self._worth.update(zip((keys[i] for i in here), values.tolist(), strict=True))
        for i, key in keys.items():
            result[i] = self._worth[key]
        return [float(value) for value in result]

    def _sketched(self, seen: Sequence[Observation], which: Indices) -> tuple[Indices, Indices]:
        """The `MAX_COMPARED` that seem to be worth most, and the others; best first.

        The others only come after these: by what they would add if all were equally uncertain.
        """
        trials = [seen[i] for i in which.tolist()]
        codes, latencies = _points(trials)
        means = self._accuracy.expect(self._features(codes, latencies, trials))[-1]
        means = means * self._scale.deviation + self._scale.centre
        rough = np.sum(
            [
                expected_improvement(front, latency, means, np.full_like(means, self._typical_deviation))
                for front, latency in zip(self.fronts, latencies, strict=True)
            ],
            axis=0,
        )
        best = which[np.argsort(-rough, kind="stable")]
        return best[:MAX_COMPARED], best[MAX_COMPARED:]

    @cached_property
    def candidates(self) -> list[tuple[tuple[int, ...], float]]:
        """New points and what they are worth, best first; their latencies are predicted."""
        rng = np.random.default_rng((self._seed, self._count))
        drawn = np.concatenate([self._grid.draw(POOL, rng), self._grid.vary(self._parents, POOL, rng)])
        if self._assembled:
            best = np.array([one.codes for one in front_of(self._assembled)])
            known = np.array([one.codes for one in self._assembled])
            drawn = np.concatenate([drawn, known, self._grid.vary(best, POOL, rng)])
        rows = {tuple(point): row for row, point in enumerate(drawn.tolist())}
        for one in self._seen:
            rows.pop(one.codes, None)
        if not rows:
            return []
        points = sorted(rows)
        pool = drawn[[rows[point] for point in points]]
        features = self._grid.features(pool)
        latencies = self.latencies.predict(pool, features)
        taken = self._seconds(pool, features)
        rough = self._acquisition(pool, latencies, -1, self._accuracy.sketch, features=features) / taken
        chosen = np.argsort(-rough, kind="stable")[:MAX_COMPARED]
        values = self._acquisition(pool[chosen], latencies[:, chosen], -1) / taken[chosen]
        order = np.argsort(-values, kind="stable")
        return [(points[i], value) for i, value in zip(chosen[order].tolist(), values[order].tolist(), strict=True)]

    def _acquisition(
        self,
        codes: Codes,
        log_latencies: Array,
        reached: int,
        predict: Predict | None = None,
        trials: Sequence[Observation] = (),
        features: Features | None = None,
    ) -> Array:
        belief = self.believe(codes, log_latencies, predict, trials, features)
        return acquisition(self.fronts, log_latencies, belief, reached, self._costs)

    def _seconds(self, codes: Codes, features: Features | None = None, known: Sequence[float | None] = ()) -> Array:
        """Seconds that an epoch takes, as far as known, else predicted, (N,); 1 where nothing was timed."""
        if self._epoch is None:
            return np.ones(len(codes))
        if known and all(known):
            return np.array(known)
        seconds: Array = np.exp(self._epoch.predict(codes, features)[0])
        for i, value in enumerate(known):
            seconds[i] = value or seconds[i]
        return seconds

    @cached_property
    def _parents(self) -> Codes:
        """The fronts of what is complete, and of what may be expected of everything trained."""
        trained = [int(i) for i in _promising(self._seen) if self._seen[i].accuracies]
        expected = self._expected_end(trained)
        chosen = set()
        for latency in self._measured:
            chosen |= {trained[i] for i in front(latency[trained].tolist(), expected.tolist())}
            done = [i for i in trained if len(self._seen[i].accuracies) == len(self._costs)]
            final = [self._seen[i].accuracies[-1] for i in done]
            chosen |= {done[i] for i in front(latency[done].tolist(), final)}
        return self._codes[sorted(chosen)]


def _points(trials: Sequence[Observation]) -> tuple[Codes, Array]:
    """Their codes, (N, D), and log-latencies, (targets, N)."""
    return np.array([one.codes for one in trials]), np.log([one.latencies_ms for one in trials]).T


def _identity(trial: Observation) -> tuple[Any, ...]:
    """All that the worth of training it on follows from."""
    return trial.codes, trial.latencies_ms, len(trial.accuracies), trial.epoch_s, tuple(sorted(trial.scores.items()))


def _promising(seen: Sequence[Observation]) -> Indices:
    """Positions of up to `MAX_SCREENED` trials, ascending: at each fidelity those nearest to its front."""
    if len(seen) <= MAX_SCREENED:
        return np.arange(len(seen))
    reached = np.array([len(one.accuracies) for one in seen])
    levels, counts = np.unique(reached, return_counts=True)
    left = MAX_SCREENED
    chosen: list[Indices] = []
    for place, level in enumerate(levels[np.argsort(counts, kind="stable")]):
        here = np.flatnonzero(reached == level)
        if level:
            there = [seen[i] for i in here.tolist()]
            far = regrets([one.latencies_ms[0] for one in there], [one.accuracies[-1] for one in there])
            here = here[np.argsort(far, kind="stable")]
        chosen.append(here[: left // (len(levels) - place)])  # what rarer fidelities leave goes to the others
        left -= len(chosen[-1])
    return np.sort(np.concatenate(chosen))


def bounded(earlier: Sequence[Earlier]) -> list[Earlier]:
    """Up to `MAX_EARLIER` on the same images and as many on others: the best of their searches, and others spread."""
    chosen = []
    for same_data in (True, False):
        here = sorted((one for one in earlier if one.same_data == same_data), key=lambda one: one.regret)
        best, rest = here[: MAX_EARLIER // 2], here[MAX_EARLIER // 2 :]
        chosen += best + [rest[i] for i in spread_out(len(rest), MAX_EARLIER - len(best)).tolist()]
    return chosen


def _kept(log_latency: Array, accuracy: Array, most: int) -> Indices:
    """Which observations of a fidelity to keep: the best at their latency, and others spread over time."""
    if len(accuracy) <= most:
        return np.arange(len(accuracy))
    best = np.argsort(regrets(log_latency.tolist(), accuracy.tolist()), kind="stable")[: most // 2]
    others = np.setdiff1d(np.arange(len(accuracy)), best)
    return np.sort(np.concatenate([best, others[spread_out(len(others), most - len(best))]]))


def spread_design(
    grid: Grid, seen: Sequence[Observation], rng: np.random.Generator, fits: Fits
) -> list[tuple[int, ...]]:
    """Points for the first trainings, best first: as far as possible, in latency, from all that were measured.

    Random ones until latency can be predicted.
    """
    points = grid.draw(SAMPLE, rng)
    measured = [one for one in seen if one.latencies_ms]
    if len(measured) >= MIN_MEASURED:
        codes, times = np.array([one.codes for one in measured]), [one.latencies_ms for one in measured]
        latencies = Quantity("latency", grid, codes, np.log(times), fits)
        predicted = latencies.predict(points)[0]
        gaps = np.abs(predicted[:, None] - latencies.measured[0]).min(axis=1)
        inside = (predicted >= np.quantile(predicted, 0.02)) & (predicted <= np.quantile(predicted, 0.98))
        points = points[np.argsort(-gaps * inside, kind="stable")]
    return [tuple(point) for point in points.tolist()]


def _picked(values: Sequence[Array], chosen: Sequence[Indices]) -> Array:
    """The chosen of each, one after the other."""
    return np.concatenate([here[which] for here, which in zip(values, chosen, strict=True)])


def _repeated(counts: Sequence[int]) -> Indices:
    return np.repeat(np.arange(len(counts)), counts)

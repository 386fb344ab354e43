"""A Gaussian process over points and fidelities.

Each fidelity is a multiple of the one below plus something of its own (Kennedy and O'Hagan, Predicting the output from
a complex computer code when fast approximations are available, Biometrika 87, 2000). Lengths, ratios and noise have
weak priors. It is its own code because what the search asks of it is not to be had elsewhere: joint
beliefs in several ordered fidelities, conditioned anew on a thousand observations, running ones among them, in
milliseconds, with the same result in every process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from nas_yolo.samplers._processes import JITTER, Parameters, Processes, condition, linear_in, squared_distances

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Means and deviations of the normal priors. Groups of features are scaled to a mean squared distance of 1, values to a
# deviation of 1.
LOG_LENGTH = (0.3, 0.8)
RATIO = (0.75, 0.25)
LOG_OWN = (math.log(0.6), 0.5)
LOG_NOISE = (math.log(0.15), 0.6)
BOUND = 4.0  # deviations from a prior's mean, beyond which nothing is looked for
ITERATIONS = 30
STEP = 1e-3  # in deviations of the prior, for curvatures


@dataclass(frozen=True)
class Belief:
    """What is believed of N points at F fidelities, in the units of the values that were given.

    Attributes:
        mean: (F, N).
        covariance: Between fidelities of the same point, (F, F, N).
        noise: Variance of an observation at each fidelity, (F,).
    """

    mean: Array
    covariance: Array
    noise: Array


class Surrogate:
    """Beliefs about a function, given noisy values of it.

    At each fidelity the function has a mean, linear in the last group of features, whose weights are a multiple of
    those below plus something of their own: what is trained further is no average part of the space, and an early
    model that took it for one would be sure of what it has not seen; but where low fidelities are poor, high ones
    hardly shine. For the same reason beliefs are averaged over lengths, ratios and noise drawn from what is plausible,
    not taken at the most probable ones alone.

    Args:
        groups: Number of groups of features; each has a length of its own.
        fidelities: Number of fidelities.
        draws: Pairs of plausible lengths, ratios and noise to average over; 0 for the most probable alone.

    Attributes:
        plausible: These, the most probable first, in deviations of their priors.
    """

    def __init__(self, groups: int, fidelities: int = 1, draws: int = 0):
        self._groups, self._fidelities = groups, fidelities
        pairs = fidelities - 1
        priors = [LOG_LENGTH] * groups + [RATIO] * pairs + [LOG_OWN] * pairs + [LOG_NOISE] * fidelities
        self._prior_mean, self._prior_deviation = np.array(priors).T
        self._draws = draws
        self.plausible = np.zeros((1 + 2 * draws, len(priors)))
        shares = _shares(np.full(pairs, RATIO[0]), np.ones(pairs))
        self._trend = shares @ shares.T

    def fit(self, features: Sequence[Array], fidelity: Indices, values: Array) -> None:
        """Find the most probable lengths, ratios and noise, and how far from them is plausible.

        Starts and draws are always the same: what is found depends on the data alone.

        Args:
            features: One array for each group, (n, d).
            fidelity: At which each value was seen, from 0, (n,).
            values: (n,), about standard normal at each fidelity.
        """
        distances = np.stack([squared_distances(group, group) for group in features])
        member = np.eye(self._fidelities)[fidelity]
        linear = linear_in(features)
        trend = (linear @ linear.T) * self._trend[fidelity][:, fidelity]
        n, deviation = len(values), self._prior_deviation

        def cost(z: Array) -> tuple[float, Array]:
            parameters = self._read(z)
            scaled = distances / (parameters.lengths**2)[:, None, None]
            root = np.sqrt(5 * scaled.sum(axis=0))
            decay = np.exp(-root)
            kernel = (1 + root + root**2 / 3) * decay
            mixed = parameters.mix[fidelity][:, fidelity]
            covariance = kernel * mixed + trend
            covariance[np.diag_indices(n)] += parameters.noise[fidelity] + JITTER
            try:
                factor = np.linalg.cholesky(covariance)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(z)
            whitener = solve_triangular(factor, np.eye(n), lower=True, check_finite=False)
            inverse = whitener.T @ whitener
            weights = inverse @ values
            slack = inverse - np.outer(weights, weights)
            by_length = slack * mixed * (5 / 3) * (1 + root) * decay
            by_mix = member.T @ (slack * kernel) @ member
            gradient = np.concatenate(
                [
                    0.5 * np.tensordot(scaled, by_length, axes=2),
                    [0.5 * float(np.sum(by_mix * change)) for change in self._mix_changes(z)],
                    (np.diag(slack) @ member) * parameters.noise,
                ]
            )
            value = 0.5 * values @ weights + np.log(np.diag(factor)).sum() + 0.5 * z @ z
            return float(value), gradient * deviation + z

        best = self.plausible[0]
        options = {"maxiter": ITERATIONS}
        found = minimize(cost, best, jac=True, method="L-BFGS-B", bounds=[(-BOUND, BOUND)] * len(best), options=options)
        if np.isfinite(found.fun):
            best = found.x
        self.plausible = np.stack([best, *self._drawn(best, lambda z: cost(z)[1])]) if self._draws else best[None]

    def _drawn(self, best: Array, gradient: Callable[[Array], Array]) -> Array:
        """Plausible values, in pairs around the most probable: as if their distribution were normal (Laplace)."""
        steps = STEP * np.eye(len(best))
        curvature = np.stack([(gradient(best + step) - gradient(best - step)) / (2 * STEP) for step in steps])
        # Data can only add to what the prior knows; a smaller curvature is one of the wrong sign, or of rounding.
        values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
        normal = np.random.default_rng(0).normal(size=(self._draws, len(best)))
        away = (normal / np.sqrt(np.maximum(values, 1.0))) @ vectors.T
        drawn: Array = np.clip(best + np.concatenate([away, -away]), -BOUND, BOUND)
        return drawn

    def condition(
        self, features: Sequence[Array], fidelity: Indices, values: Array, averaged: bool = True
    ) -> Posterior:
        """Beliefs, given these values; arguments as for `fit`. With `averaged` False, by the most probable alone."""
        plausible = self.plausible if averaged else self.plausible[:1]
        return Posterior(condition([self._read(z) for z in plausible], features, fidelity, values))

    def _read(self, z: Array) -> Parameters:
        lengths, _, _, noise = self._split(z)
        return Parameters(np.exp(lengths), self._mix(z), self._trend, np.exp(2 * noise))

    def _mix(self, z: Array) -> Array:
        _, ratios, own, _ = self._split(z)
        shares = _shares(ratios, np.exp(own))
        mix: Array = shares @ shares.T
        return mix

    def _split(self, z: Array) -> list[Array]:
        values, pairs = self._prior_mean + z * self._prior_deviation, self._fidelities - 1
        ends = [0, *np.cumsum([self._groups, pairs, pairs, self._fidelities]).tolist()]
        return [values[start:end] for start, end in pairwise(ends)]

    def _mix_changes(self, z: Array) -> list[Array]:
        """Derivatives of the covariances between fidelities by each ratio and own part; central differences."""
        changes = []
        for index in range(self._groups, self._groups + 2 * (self._fidelities - 1)):
            step = np.zeros_like(z)
            step[index] = 1e-5 / self._prior_deviation[index]
            changes.append((self._mix(z + step) - self._mix(z - step)) / 2e-5)
        return changes


class Posterior:
    """Beliefs about other points, given some values.

    Args:
        processes: With the most probable parameters first, then those to average over.
    """

    def __init__(self, processes: Processes):
        self._likely, self._plausible = processes.part(slice(1)), processes.part(slice(1, None))
        self._sketch = self._likely.single()

    def expect(self, features: Sequence[Array]) -> Array:
        """Means with the most probable parameters, (F, N): many times faster than `predict`."""
        means: Array = self._likely.expect(features)[0]
        return means

    def sketch(self, features: Sequence[Array]) -> Belief:
        """Beliefs with the most probable parameters, in single precision: faster than `predict`, and too sure."""
        return _averaged(self._sketch, features)

    def predict(self, features: Sequence[Array]) -> Belief:
        """Beliefs averaged over all plausible parameters."""
        return _averaged(self._plausible if len(self._plausible.noise) else self._likely, features)


def _averaged(processes: Processes, features: Sequence[Array]) -> Belief:
    means, covariances = processes.predict(features)
    mean = means.mean(axis=0)
    apart = means - mean
    covariance = covariances.mean(axis=0) + np.einsum("kin,kjn->ijn", apart, apart) / len(means)
    return Belief(mean.astype(np.float64), covariance.astype(np.float64), processes.noise.mean(axis=0))


def _shares(ratios: Array, own: Array) -> Array:
    """The share of each fidelity's own part, the lowest one's being 1, in each fidelity, (F, F)."""
    shares = np.diag(np.concatenate([[1.0], own]))
    for i in range(1, len(shares)):
        shares[i, :i] = ratios[i - 1] * shares[i - 1, :i]
    return shares

"""A Gaussian process over points and fidelities.

Each fidelity is a multiple of the one below plus something of its own (Kennedy and O'Hagan, Predicting the output from
a complex computer code when fast approximations are available, Biometrika 87, 2000). Lengths, ratios and noise are the
most probable under weak priors. It is its own code because what the search asks of it is not to be had elsewhere: joint
beliefs in several ordered fidelities, conditioned anew on a thousand observations, running ones among them, in
milliseconds, with the same result in every process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Means and deviations of the normal priors. Groups of features are scaled to a mean squared distance of 1, values to a
# deviation of 1.
LOG_LENGTH = (0.3, 0.8)
RATIO = (0.75, 0.25)
LOG_OWN = (math.log(0.6), 0.5)
LOG_NOISE = (math.log(0.15), 0.6)
JITTER = 1e-6
BOUND = 4.0  # deviations from a prior's mean, beyond which nothing is looked for
ITERATIONS = 30


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

    Args:
        groups: Number of groups of features; each has a length of its own.
        fidelities: Number of fidelities.
    """

    def __init__(self, groups: int, fidelities: int = 1):
        self._groups, self._fidelities = groups, fidelities
        pairs = fidelities - 1
        priors = [LOG_LENGTH] * groups + [RATIO] * pairs + [LOG_OWN] * pairs + [LOG_NOISE] * fidelities
        self._prior_mean, self._prior_deviation = np.array(priors).T
        self._theta = self._prior_mean.copy()

    def fit(self, features: Sequence[Array], fidelity: Indices, values: Array) -> None:
        """Find the most probable lengths, ratios and noise.

        The start is always the same: what is found depends on the data alone.

        Args:
            features: Of each group, (n, d).
            fidelity: Of each value, from 0, (n,).
            values: (n,), about standard normal at each fidelity.
        """
        distances = np.stack([_squared_distances(group, group) for group in features])
        member = np.eye(self._fidelities)[fidelity]
        n = len(values)

        def cost(theta: Array) -> tuple[float, Array]:
            lengths, own, noise = self._read(theta)
            scaled = distances / (lengths**2)[:, None, None]
            root = np.sqrt(5 * scaled.sum(axis=0))
            decay = np.exp(-root)
            kernel = (1 + root + root**2 / 3) * decay
            mix = own @ own.T
            mixed = mix[fidelity][:, fidelity]
            covariance = kernel * mixed
            covariance[np.diag_indices(n)] += noise[fidelity] + JITTER
            try:
                factor = np.linalg.cholesky(covariance)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(theta)
            whitener = solve_triangular(factor, np.eye(n), lower=True, check_finite=False)
            inverse = whitener.T @ whitener
            weights = inverse @ values
            slack = inverse - np.outer(weights, weights)
            by_length = slack * mixed * (5 / 3) * (1 + root) * decay
            by_mix = member.T @ (slack * kernel) @ member
            gradient = np.concatenate(
                [
                    0.5 * np.tensordot(scaled, by_length, axes=2),
                    [0.5 * float(np.sum(by_mix * change)) for change in self._mix_changes(theta)],
                    (np.diag(slack) @ member) * noise,
                ]
            )
            z = (theta - self._prior_mean) / self._prior_deviation
            value = 0.5 * values @ weights + np.log(np.diag(factor)).sum() + 0.5 * z @ z
            return float(value), gradient + z / self._prior_deviation

        reach = BOUND * self._prior_deviation
        bounds = list(zip(self._prior_mean - reach, self._prior_mean + reach, strict=True))
        found = minimize(
            cost, self._prior_mean, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS}
        )
        if np.isfinite(found.fun):
            self._theta = found.x

    def condition(self, features: Sequence[Array], fidelity: Indices, values: Array) -> None:
        """Take these values as known; arguments as for `fit`."""
        lengths, own, noise = self._read(self._theta)
        self._points, self._fidelity = self._scaled(features, lengths), fidelity
        covariance = _matern(self._points, self._points) * (own @ own.T)[fidelity][:, fidelity]
        covariance[np.diag_indices(len(values))] += noise[fidelity] + JITTER
        self._factor = np.linalg.cholesky(covariance)
        self._white = solve_triangular(self._factor, values, lower=True, check_finite=False)

    def expect(self, features: Sequence[Array]) -> Array:
        """Means alone, (F, N): many times faster than `predict`."""
        lengths, own, _ = self._read(self._theta)
        mix = own @ own.T
        weights = solve_triangular(self._factor, self._white, lower=True, trans="T", check_finite=False)
        kernel = _matern(self._scaled(features, lengths), self._points)
        means: Array = (kernel @ (mix[self._fidelity] * weights[:, None])).T
        return means

    def predict(self, features: Sequence[Array]) -> Belief:
        """Beliefs about other points, given what was conditioned on."""
        lengths, own, noise = self._read(self._theta)
        mix = own @ own.T
        kernel = _matern(self._points, self._scaled(features, lengths))
        explained = [
            solve_triangular(self._factor, kernel * column[self._fidelity][:, None], lower=True, check_finite=False)
            for column in mix
        ]
        mean = np.stack([part.T @ self._white for part in explained])
        covariance = np.array(
            [
                [mix[i, j] - np.einsum("kn,kn->n", one, other) for j, other in enumerate(explained)]
                for i, one in enumerate(explained)
            ]
        )
        return Belief(mean, covariance, noise)

    def _read(self, theta: Array) -> tuple[Array, Array, Array]:
        """Lengths, the share of each fidelity's own part in each fidelity (F, F), and variances of the noise."""
        pairs = self._fidelities - 1
        lengths, ratios, own, noise = np.split(theta, np.cumsum([self._groups, pairs, pairs]))
        shares = np.diag(np.exp(np.concatenate([[0.0], own])))
        for i in range(1, self._fidelities):
            shares[i, :i] = ratios[i - 1] * shares[i - 1, :i]
        return np.exp(lengths), shares, np.exp(2 * noise)

    def _mix_changes(self, theta: Array) -> list[Array]:
        """Derivatives of the covariances between fidelities by each ratio and own part; central differences."""
        changes = []
        for index in range(self._groups, self._groups + 2 * (self._fidelities - 1)):
            step = np.zeros_like(theta)
            step[index] = 1e-5
            above, below = self._read(theta + step)[1], self._read(theta - step)[1]
            changes.append((above @ above.T - below @ below.T) / 2e-5)
        return changes

    @staticmethod
    def _scaled(features: Sequence[Array], lengths: Array) -> Array:
        return np.concatenate([group / length for group, length in zip(features, lengths, strict=True)], axis=1)


def _squared_distances(one: Array, other: Array) -> Array:
    squares: Array = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    np.maximum(squares, 0.0, out=squares)
    return squares


def _matern(one: Array, other: Array) -> Array:
    """Matern 5/2."""
    root = np.sqrt(5 * _squared_distances(one, other))
    kernel: Array = (1 + root + root**2 / 3) * np.exp(-root)
    return kernel

"""Gaussian processes with known parameters, given the same observations: many at once, as one alone is mostly calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm, strsm

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

JITTER = 1e-6


@dataclass(frozen=True)
class Parameters:
    """What settles one Gaussian process.

    Attributes:
        lengths: One for each group of features.
        mix: Covariances between fidelities, (F, F).
        trend: Covariances between the weights of their means, (F, F).
        noise: Variances, (F,).
    """

    lengths: Array
    mix: Array
    trend: Array
    noise: Array


@dataclass(frozen=True)
class Processes:
    """K processes, given n observations sorted by fidelity.

    Attributes:
        lengths: Of K processes, likewise all others, (K, groups).
        mix: (K, F, F).
        trend: (K, F, F).
        noise: (K, F).
        points: Features of the observations, divided by lengths, (K, n, d).
        weights: Of the observations in means, (K, n).
        slopes: Of the linear part in means, (K, F, p).
        factors: Cholesky factors of the covariances of the observations, (K, n, n).
        white: What they make of the values, (K, n).
        explained: What they make of the linear part of each fidelity alone, (K, F, n, p).
        starts: First observation of each fidelity, and their number, (K, F + 1), always the same.
    """

    lengths: Array
    mix: Array
    trend: Array
    noise: Array
    points: Array
    weights: Array
    slopes: Array
    factors: Array
    white: Array
    explained: Array
    starts: Indices

    def part(self, which: slice) -> Processes:
        """Some of the processes."""
        return Processes(*(getattr(self, field.name)[which] for field in fields(self)))

    def single(self) -> Processes:
        """In single precision: half the time."""
        values = (getattr(self, field.name) for field in fields(self))
        return Processes(*(value if value.dtype == np.int64 else value.astype(np.float32) for value in values))

    def expect(self, features: Sequence[Array]) -> Array:
        """Means at other points, (K, F, N)."""
        kernel = matern(_scaled(features, self.lengths), self.points)
        means = np.stack(
            [kernel[:, :, here] @ self.weights[:, here, None] for here in self._fidelities], axis=1
        )  # (K, F, N, 1): what each fidelity adds, but for its share
        mixed: Array = self.mix @ means[..., 0] + self.slopes @ linear_in(features).T
        return mixed

    def predict(self, features: Sequence[Array]) -> tuple[Array, Array]:
        """Means, (K, F, N), and covariances between fidelities of the same point, (K, F, F, N)."""
        features = [group.astype(self.points.dtype, copy=False) for group in features]
        linear = linear_in(features)
        kernel = matern(_scaled(features, self.lengths), self.points)
        beliefs = [self._believe(k, kernel[k], linear) for k in range(len(kernel))]
        return np.stack([mean for mean, _ in beliefs]), np.stack([covariance for _, covariance in beliefs])

    def _believe(self, k: int, kernel: Array, linear: Array) -> tuple[Array, Array]:
        """Of one process, from its kernel between points and observations, (N, n)."""
        mix, trend = self.mix[k], self.trend[k]
        # Shares of fidelities are all that differs between the covariances with each: what the factor makes of each
        # fidelity's observations is found once, and only from its first one on is there anything.
        solve = dtrsm if kernel.dtype == np.float64 else strsm
        lines = np.tensordot(trend, self.explained[k], axes=1)  # (F, n, p)
        white = linear @ lines.transpose(0, 2, 1)  # (F, N, n)
        for fidelity, here in enumerate(self._fidelities):
            if here.stop > here.start:
                part = np.zeros((len(kernel), kernel.shape[1] - here.start), kernel.dtype)
                part[:, : here.stop - here.start] = kernel[:, here]
                factor = self.factors[k, here.start :, here.start :]
                solved = solve(1.0, factor.T, part.T, lower=0, trans_a=1, overwrite_b=1).T
                for other in range(len(mix)):
                    white[other, :, here.start :] += mix[other, fidelity] * solved
        size = np.square(linear).sum(axis=1)
        covariance = np.empty((*mix.shape, len(kernel)), kernel.dtype)
        for i, j in zip(*np.tril_indices(len(mix)), strict=True):
            shared = np.einsum("nk,nk->n", white[i], white[j])
            covariance[i, j] = covariance[j, i] = mix[i, j] + trend[i, j] * size - shared
        return white @ self.white[k], covariance

    @property
    def _fidelities(self) -> list[slice]:
        return _slices(self.starts[0])


def condition(
    parameters: Sequence[Parameters], features: Sequence[Array], fidelity: Indices, values: Array
) -> Processes:
    """Processes with these parameters, given observations.

    Args:
        parameters: Of each process.
        features: One array for each group, (n, d).
        fidelity: At which each value was seen, from 0, (n,).
        values: (n,).
    """
    order = np.argsort(fidelity, kind="stable")
    features, fidelity, values = [group[order] for group in features], fidelity[order], values[order]
    lengths, mix, trend, noise = (
        np.stack([getattr(one, field.name) for one in parameters]) for field in fields(Parameters)
    )
    levels = mix.shape[1]
    starts = np.searchsorted(fidelity, np.arange(levels + 1))
    points, linear = _scaled(features, lengths), linear_in(features)
    factors = np.empty((len(parameters), len(values), len(values)))
    lines, diagonal = linear @ linear.T, np.diag_indices(len(values))
    for k, own in enumerate(points):  # one after the other: all at once would not fit into a cache
        covariance = matern(own, own)
        for i, here in enumerate(_slices(starts)):
            for j, there in enumerate(_slices(starts)):
                block = covariance[here, there]
                block *= mix[k, i, j]
                block += trend[k, i, j] * lines[here, there]
        covariance[diagonal] += noise[k][fidelity] + JITTER
        factors[k] = np.linalg.cholesky(covariance)
    parts = np.eye(levels)[fidelity][:, :, None] * linear[:, None, :]  # (n, F, p), of each fidelity alone
    right = np.concatenate([values[:, None], parts.reshape(len(values), -1)], axis=1)
    solved = np.stack([dtrsm(1.0, factor.T, right, lower=0, trans_a=1) for factor in factors])
    white = solved[:, :, 0]
    weights = np.stack([dtrsm(1.0, f.T, w[:, None], lower=0)[:, 0] for f, w in zip(factors, white, strict=True)])
    explained = solved[:, :, 1:].reshape(len(factors), len(values), levels, -1).transpose(0, 2, 1, 3)
    slopes = (trend[:, :, fidelity] * weights[:, None, :]) @ linear
    repeated = np.repeat(starts[None], len(factors), axis=0)
    return Processes(
        lengths, mix, trend, noise, points, weights, slopes, factors, white, np.ascontiguousarray(explained), repeated
    )


def _slices(starts: Indices) -> list[slice]:
    return [slice(*pair) for pair in pairwise(starts.tolist())]


def linear_in(features: Sequence[Array]) -> Array:
    """What the means are linear in, with weights that are standard normal beforehand: 1 and the last group, (N, p).

    Groups have a mean squared distance of 1 between points, that is half of it from their centre.
    """
    linear: Array = np.concatenate(
        [np.ones((len(features[-1]), 1), features[-1].dtype), math.sqrt(2) * features[-1]], axis=1
    )
    return linear


def squared_distances(one: Array, other: Array) -> Array:
    """Between rows, (.., N, n)."""
    squares: Array = one @ (-2 * other.swapaxes(-1, -2))
    squares += np.square(one).sum(axis=-1)[..., :, None]
    squares += np.square(other).sum(axis=-1)[..., None, :]
    return np.maximum(squares, 0.0, out=squares)


def matern(one: Array, other: Array) -> Array:
    """Matern 5/2 between rows; in place, since the time goes into passing over large arrays."""
    root = squared_distances(one, other)
    root *= 5
    np.sqrt(root, out=root)
    kernel = root / 3
    kernel += 1
    kernel *= root
    kernel += 1
    np.negative(root, out=root)
    kernel *= np.exp(root, out=root)
    return kernel


def _scaled(features: Sequence[Array], lengths: Array) -> Array:
    """Each group divided by its length, (K, N, d)."""
    sizes = [group.shape[1] for group in features]
    scaled: Array = np.concatenate(features, axis=1) / np.repeat(lengths, sizes, axis=1)[:, None, :]
    return scaled

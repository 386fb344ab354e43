"""Quantities that are measured of some points and predicted for others; and fits that are kept between decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas_yolo.samplers._grid import Codes, Grid
from nas_yolo.samplers._surrogate import Posterior, Surrogate

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MIN_MEASURED = 4  # from which a quantity is modelled
FIT, KNOWN = 100, 300  # measurements for lengths and noise, and in all
GROWTH = 1.2  # how much more must be known before lengths and noise are found anew


class Fits:
    """Surrogates and beliefs by what they follow from, so that nothing is computed twice in a row."""

    def __init__(self) -> None:
        self._fitted: dict[str, tuple[bytes, Surrogate]] = {}
        self._conditioned: dict[str, tuple[bytes, Posterior]] = {}

    def fitted(
        self, name: str, groups: Sequence[Array], fidelity: Indices, values: Array, count: int, draws: int = 0
    ) -> Surrogate:
        """A surrogate fitted to these values; arguments as for `Surrogate`."""
        key = _bytes(*groups, fidelity, values)
        if name not in self._fitted or self._fitted[name][0] != key:
            surrogate = Surrogate(len(groups), count, draws)
            surrogate.fit(groups, fidelity, values)
            self._fitted[name] = key, surrogate
        return self._fitted[name][1]

    def conditioned(
        self,
        name: str,
        surrogate: Surrogate,
        groups: Sequence[Array],
        fidelity: Indices,
        values: Array,
        averaged: bool = True,
    ) -> Posterior:
        """Beliefs, given these values; arguments as for `Surrogate.condition`."""
        key = _bytes(surrogate.plausible, *groups, fidelity, values)
        if name not in self._conditioned or self._conditioned[name][0] != key:
            self._conditioned[name] = key, surrogate.condition(groups, fidelity, values, averaged)
        return self._conditioned[name][1]


def _bytes(*arrays: Array | Indices) -> bytes:
    return b"".join(array.tobytes() for array in arrays)


class Quantity:
    """A positive quantity of points that were not measured, from those that were: latency, or what an epoch takes.

    Args:
        name: Under which its lengths are kept.
        grid: The space.
        codes: Of measured points, at least one.
        values: Measured, positive, (points, devices).
        fits: Kept between calls.
    """

    def __init__(self, name: str, grid: Grid, codes: Codes, values: Sequence[Sequence[float]], fits: Fits):
        self._grid = grid
        self.measured = np.log(values).T  # (devices, n)
        # As they were at the last step of growth, so that features and lengths change rarely.
        early = self.measured[:, : step_below(len(codes))]
        self.centre, self.spread = early.mean(axis=1), np.maximum(early.std(axis=1), 1e-6)
        self._models = []
        if len(codes) >= MIN_MEASURED:
            known, base = spread_out(len(codes), KNOWN), spread_out(early.shape[1], FIT)
            features = grid.features(codes)
            for device, standard in enumerate((self.measured - self.centre[:, None]) / self.spread[:, None]):
                zeros = np.zeros(len(codes), dtype=np.int64)
                model = fits.fitted(
                    f"{name} {device}", [group[base] for group in features], zeros[base], standard[base], 1
                )
                chosen = [group[known] for group in features]
                self._models.append(fits.conditioned(f"{name} {device}", model, chosen, zeros[known], standard[known]))

    def predict(self, codes: Codes) -> Array:
        """Logarithm on each device, (devices, N)."""
        if not self._models:
            return np.repeat(self.centre[:, None], len(codes), axis=1)
        features = self._grid.features(codes)
        standard = np.stack([model.expect(features)[0] for model in self._models])
        logarithms: Array = standard * self.spread[:, None] + self.centre[:, None]
        return logarithms


def step_below(count: int) -> int:
    """The largest step of a geometric ladder that is not above `count`; all of the first ten."""
    step = min(count, 10)
    while math.ceil(step * GROWTH) <= count and step:
        step = math.ceil(step * GROWTH)
    return step


def spread_out(count: int, most: int) -> Indices:
    """Up to `most` indices below `count`, evenly spread."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)

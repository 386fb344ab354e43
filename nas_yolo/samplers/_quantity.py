"""Quantities that are measured of some points and predicted for others; and fits that are kept between decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas_yolo.samplers._grid import Codes, Features, Grid
from nas_yolo.samplers._surrogate import Posterior, Surrogate

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
T = TypeVar("T")

MIN_MEASURED = 4  # from which a quantity is modelled
FIT, KNOWN = 100, 300  # measurements for lengths and noise, and in all
GROWTH = 1.2  # how much more must be known before lengths and noise are found anew


class Fits:
    """Surrogates, beliefs and verdicts by what they follow from, so that nothing is computed twice in a row."""

    def __init__(self) -> None:
        self._remembered: dict[str, tuple[bytes, Any]] = {}

    def remembered(self, name: str, key: bytes, find: Callable[[], T]) -> T:
        """What was found under this name, found anew if the key, all that it follows from, is another."""
        if name not in self._remembered or self._remembered[name][0] != key:
            self._remembered[name] = key, find()
        found: T = self._remembered[name][1]
        return found

    def fitted(
        self, name: str, groups: Sequence[Array], fidelity: Indices, values: Array, count: int, draws: int = 0
    ) -> Surrogate:
        """A surrogate fitted to these values; arguments as for `Surrogate`."""

        def find() -> Surrogate:
            surrogate = Surrogate(len(groups), count, draws)
            surrogate.fit(groups, fidelity, values)
            return surrogate

        return self.remembered(f"{name} fitted", _bytes(*groups, fidelity, values), find)

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
        return self.remembered(
            f"{name} conditioned", key, lambda: surrogate.condition(groups, fidelity, values, averaged)
        )


def _bytes(*arrays: Array | Indices) -> bytes:
    return b"".join(array.tobytes() for array in arrays)


class Quantity:
    """A quantity of points that were not measured, from those that were: log-latency, what an epoch takes, a score.

    Args:
        name: Under which its lengths are kept.
        grid: The space.
        codes: Measured points, at least one.
        values: Measured, (points, devices).
        fits: Kept between calls.
    """

    def __init__(self, name: str, grid: Grid, codes: Codes, values: Array, fits: Fits):
        self._grid = grid
        self.measured = values.T  # (devices, n)
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

    def predict(self, codes: Codes, features: Features | None = None) -> Array:
        """On each device, (devices, N). `features`: of these points, where they are known."""
        if not self._models:
            return np.repeat(self.centre[:, None], len(codes), axis=1)
        features = features or self._grid.features(codes)
        standard = np.stack([model.expect(features)[0] for model in self._models])
        predicted: Array = standard * self.spread[:, None] + self.centre[:, None]
        return predicted


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

"""Accuracies as a model should see them: about standard normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]

REFERENCE_ACCURACY = 0.25  # quantile of the space below which nothing counts
MIN_FINAL = 4  # complete trials from which their spread is known


@dataclass(frozen=True)
class Scale:
    """From an accuracy to about a standard normal value, and back."""

    centre: float
    deviation: float
    floor: float


def final_scale(raw: Sequence[Array]) -> Scale:
    """The scale of the final accuracies known so far; guessed from the early ones while there are few."""
    final, early = raw[-1], raw[0]
    if len(final) < MIN_FINAL:
        deviation = max(0.5 * float(early.std()), float(final.std()) if len(final) else 0.0, 1e-6)
        return Scale(float(final.mean()) if len(final) else 0.0, deviation, -math.inf)
    # What lies far below the reference counts for nothing and would only widen the scale.
    low, high = np.quantile(final, [REFERENCE_ACCURACY, 0.9])
    floor = float(2 * low - high)
    clipped = np.maximum(final, floor)
    return Scale(float(clipped.mean()), float(clipped.std()) + 1e-6, floor)


def standard(raw: Sequence[Array], scale: Scale) -> list[Array]:
    """Accuracies of each fidelity as about standard normal values.

    Early accuracies crowd at the bottom: what counts is their order. Final ones keep their distances, in which
    improvements are counted.
    """
    return [*map(normal_ranks, raw[:-1]), (np.maximum(raw[-1], scale.floor) - scale.centre) / scale.deviation]


def normal_ranks(values: Array) -> Array:
    """Each value's rank as a quantile of the standard normal distribution; equal values share one."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    quantiles: Array = ndtri(middle[inverse] / max(len(values), 1))
    return quantiles

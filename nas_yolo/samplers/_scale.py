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
    """From a final accuracy to about a standard normal value: linear above the knee, logarithmic or constant below it.

    Attributes:
        centre: What becomes 0; an accuracy, if it lies above the knee.
        deviation: By how much accuracies above the knee differ whose values differ by 1.
        knee: Accuracy.
        bend: How far below the knee the scale is half as steep; 0: what lies below is cut off.
    """

    centre: float
    deviation: float
    knee: float = -math.inf
    bend: float = 0.0

    def standard(self, accuracy: Array) -> Array:
        """About standard normal values."""
        return (_bent(accuracy, self.knee, self.bend) - self.centre) / self.deviation


def final_scale(raw: Sequence[Array]) -> Scale:
    """The scale of the final accuracies known so far; guessed from the early ones while there are few.

    What lies far below the reference counts for nothing and, if kept as it is, widens the scale until good designs look
    alike.
    """
    final, early = raw[-1], raw[0]
    if len(final) < MIN_FINAL:
        deviation = max(0.5 * float(early.std()), float(final.std()) if len(final) else 0.0, 1e-6)
        return Scale(float(final.mean()) if len(final) else 0.0, deviation)
    low, high = np.quantile(final, [REFERENCE_ACCURACY, 0.9]).tolist()
    if len(raw) == 1:
        # All that was tried is among these: their quantile is about the reference, and that a design is broken, not
        # only mediocre, is seen nowhere else.
        knee, bend = low, high - low
    else:
        knee, bend = 2 * low - high, 0.0  # what was chosen to be trained to the end is rarely that poor
    bent = _bent(final, knee, bend)
    return Scale(float(bent.mean()), float(bent.std()) + 1e-6, knee, bend)


def _bent(accuracy: Array, knee: float, bend: float) -> Array:
    bent: Array = np.maximum(accuracy, knee)
    if bend:
        bent = bent - bend * np.log1p((bent - accuracy) / bend)
    return bent


def standard(raw: Sequence[Array], scale: Scale) -> list[Array]:
    """Accuracies of each fidelity as about standard normal values.

    Early accuracies crowd at the bottom: what counts is their order. Final ones keep their distances, in which
    improvements are counted.
    """
    return [*map(normal_ranks, raw[:-1]), scale.standard(raw[-1])]


def normal_ranks(values: Array) -> Array:
    """Each value's rank as a quantile of the standard normal distribution; equal values share one."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    quantiles: Array = ndtri(middle[inverse] / max(len(values), 1))
    return quantiles

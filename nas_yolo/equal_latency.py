"""How much more accurate a design is than others at equal latency, and how much faster at equal accuracy, with errors.

The others are a curve: lines between measured points, straight in the logarithm of latency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluators.evaluation import TIE
from nas_yolo.pareto import front
from nas_yolo.trust import Noise

Relation = Literal["beats", "not told apart", "worse", "no opponent", "not known"]
"""At equal latency. `no opponent`: none is that fast, and the fastest is not less accurate; `not known`: what chance
does is not."""


@dataclass(frozen=True)
class Point:
    """A design that was trained to the end.

    Attributes:
        latency_ms: On a target.
        latency_error: Half of its 95 % interval, as a share of it.
        accuracy: mAP50-95, the mean over its trainings.
        trainings: How many there were.
    """

    latency_ms: float
    latency_error: float
    accuracy: float
    trainings: int = 1


@dataclass(frozen=True)
class Comparison:
    """A design and a curve. Errors are halves of 95 % intervals; None where the noise between seeds is not known.

    Attributes:
        shares: What each point of the curve contributes at the design's latency; they add up to 1.
        gain: How much more accurate it is than the curve at its latency, in mAP50-95; than the fastest point, if none
            is as fast, or the slowest, if all are faster.
        gain_error: Of that, from the noise between seeds and from the latencies, by the slope of the curve.
        is_fastest: Whether it is faster than all of the curve: then nothing compares at equal latency.
        latency_saved: How much less time it takes than the curve at its accuracy, as a share of what that takes; None
            where the curve does not reach as high, or begins above.
        latency_saved_error: Of that, likewise.
    """

    shares: tuple[float, ...]
    gain: float
    gain_error: float | None
    is_fastest: bool
    latency_saved: float | None = None
    latency_saved_error: float | None = None

    @property
    def relation(self) -> Relation:
        """What can be said: a difference counts where it exceeds its error."""
        if self.gain_error is None:
            return "not known"
        if self.gain > self.gain_error:
            return "beats"
        if self.is_fastest:
            return "no opponent"
        return "worse" if self.gain < -self.gain_error else "not told apart"


def envelope(points: Sequence[Point]) -> list[int]:
    """Positions of the points that make the curve, fastest first: each is more accurate than all that are as fast."""
    return front([point.latency_ms for point in points], [point.accuracy for point in points], TIE)


def compare(design: Point, curve: Sequence[Point], noise: Noise | None) -> Comparison:
    """Compare a design with a curve.

    Args:
        design: The design.
        curve: At least one point, fastest first, each more accurate than the one before.
        noise: Between seeds, for all the same.
    """
    here, at = math.log(design.latency_ms), [math.log(point.latency_ms) for point in curve]
    accuracies = [point.accuracy for point in curve]
    shares = _shares(here, at)
    gain = design.accuracy - _mean(shares, accuracies)
    error = None
    if noise is not None:
        by_latency = _slope(here, at, accuracies) * _latency_error(design, curve, shares)
        error = math.hypot(_accuracy_error(design, curve, shares, noise), by_latency)
    saved, saved_error = _latency_saved(design, curve, noise)
    return Comparison(shares, gain, error, here + math.log1p(TIE) < at[0], saved, saved_error)


def _latency_saved(design: Point, curve: Sequence[Point], noise: Noise | None) -> tuple[float | None, float | None]:
    accuracies = [point.accuracy for point in curve]
    if not accuracies[0] <= design.accuracy <= accuracies[-1]:
        return None, None
    at, shares = [math.log(point.latency_ms) for point in curve], _shares(design.accuracy, accuracies)
    left = design.latency_ms / math.exp(_mean(shares, at))
    if noise is None:
        return 1 - left, None
    inverse = _slope(design.accuracy, accuracies, at)
    by_accuracy = inverse * _accuracy_error(design, curve, shares, noise)
    return 1 - left, left * math.hypot(by_accuracy, _latency_error(design, curve, shares))


def _shares(value: float, of: Sequence[float]) -> tuple[float, ...]:
    """What each of some ascending values contributes to one: of its neighbours, the nearer more; at the ends, all."""
    shares = [0.0] * len(of)
    above = next((i for i, other in enumerate(of) if other >= value), len(of) - 1)
    below = above - 1
    if above == 0 or value >= of[above]:
        shares[above] = 1.0
    else:
        shares[above] = (value - of[below]) / (of[above] - of[below])
        shares[below] = 1 - shares[above]
    return tuple(shares)


def _mean(shares: Sequence[float], values: Sequence[float]) -> float:
    return sum(share * value for share, value in zip(shares, values, strict=True))


def _slope(at: float, along: Sequence[float], values: Sequence[float]) -> float:
    """Of the line at a place; the steeper at a corner, 0 beyond the ends."""
    slopes = [
        (values[i + 1] - values[i]) / (along[i + 1] - along[i])
        for i in range(len(along) - 1)
        if along[i] <= at <= along[i + 1]
    ]
    return max(slopes, default=0.0)


def _accuracy_error(design: Point, curve: Sequence[Point], shares: Sequence[float], noise: Noise) -> float:
    variance = sum(share**2 / point.trainings for share, point in zip(shares, curve, strict=True))
    return noise.difference(design.trainings, 1 / variance)


def _latency_error(design: Point, curve: Sequence[Point], shares: Sequence[float]) -> float:
    """Of the difference of two logarithms of latency."""
    others = (share * point.latency_error for share, point in zip(shares, curve, strict=True))
    return math.hypot(design.latency_error, *others)

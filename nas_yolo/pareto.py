"""Fronts of latency against accuracy, on plain numbers. Lower latency and higher accuracy are better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def front(latencies_ms: Sequence[float], accuracies: Sequence[float], tie: float = 0.0) -> list[int]:
    """Indices of the points that no other point beats, fastest first.

    A point is beaten by one that is at least as fast and as accurate and better in one of the two. Of equal points the
    first counts.

    Args:
        latencies_ms: Of the points.
        accuracies: Likewise.
        tie: Relative difference of latencies up to which none is faster: then the more accurate one beats the other.

    Raises:
        ValueError: If a value is not finite, or the lengths differ.
    """
    if len(latencies_ms) != len(accuracies):
        raise ValueError(f"{len(latencies_ms)} latencies but {len(accuracies)} accuracies")
    if not all(map(math.isfinite, [*latencies_ms, *accuracies])):
        raise ValueError("latencies and accuracies must be finite")
    behind = regrets(latencies_ms, accuracies, tie)
    members: list[int] = []
    best = -math.inf
    for index in sorted(range(len(latencies_ms)), key=lambda i: (latencies_ms[i], -accuracies[i], i)):
        if behind[index] <= 0 and accuracies[index] > best:
            members.append(index)
            best = accuracies[index]
    return members


def regrets(latencies_ms: Sequence[float], accuracies: Sequence[float], tie: float = 0.0) -> list[float]:
    """For each point, how much more accurate the best point is that is no slower: 0 or more, 0 on the front.

    A slower point never counts against a faster one.

    Args:
        latencies_ms: Of the points.
        accuracies: Likewise.
        tie: Relative difference of latencies up to which none is slower.
    """
    order = sorted(range(len(latencies_ms)), key=lambda i: latencies_ms[i])
    result = [0.0] * len(order)
    best, seen = -math.inf, 0
    for index in order:
        # Points of equal latency see one another.
        while seen < len(order) and latencies_ms[order[seen]] <= latencies_ms[index] * (1 + tie):
            best = max(best, accuracies[order[seen]])
            seen += 1
        result[index] = best - accuracies[index]
    return result


def hypervolume(
    latencies_ms: ArrayLike, accuracies: ArrayLike, reference_latency_ms: float, reference_accuracy: float
) -> float:
    """Area that points dominate between them and a reference, log-latency on one axis: 0 or more, higher is better.

    Exact. Points that are no faster, or no more accurate, than the reference add nothing. One unit is a factor of e in
    latency times one unit of accuracy.

    Raises:
        ValueError: If a value is not finite, a latency not positive, or the lengths differ.
    """
    latency, accuracy = np.asarray(latencies_ms, dtype=float), np.asarray(accuracies, dtype=float)
    if latency.ndim != 1 or latency.shape != accuracy.shape:
        raise ValueError(f"latencies {latency.shape} and accuracies {accuracy.shape} must be equally many")
    if not (np.isfinite(latency).all() and np.isfinite(accuracy).all() and math.isfinite(reference_accuracy)):
        raise ValueError("latencies, accuracies and the reference must be finite")
    if (latency <= 0).any() or not 0 < reference_latency_ms < math.inf:
        raise ValueError("latencies must be positive")
    order = np.argsort(latency)
    edges = np.log(np.append(np.minimum(latency[order], reference_latency_ms), reference_latency_ms))
    best = np.maximum.accumulate(np.append(reference_accuracy, accuracy[order]))[1:]
    return float(np.sum(np.diff(edges) * (best - reference_accuracy)))

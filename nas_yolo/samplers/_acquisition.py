"""What a training is worth: the hypervolume that it is expected to add, per unit of cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from nas_yolo.samplers._surrogate import Belief

Array = NDArray[np.float64]

# What a low fidelity may show, in standard deviations: the means of equally likely parts of a normal variable.
OUTCOMES = 15
_NODES = -np.diff(np.exp(-0.5 * ndtri(np.linspace(0, 1, OUTCOMES + 1)) ** 2)) * OUTCOMES / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Front:
    """The steps of a front on one target, between which an improvement is counted.

    Attributes:
        log_latency: Ascending, (k,).
        accuracy: Ascending, (k,).
        reference: Log-latency from which on, and accuracy up to which, nothing counts.
    """

    log_latency: Array
    accuracy: Array
    reference: tuple[float, float]


def step_front(log_latency: Array, accuracy: Array, reference: tuple[float, float]) -> Front:
    """The front of these points inside the reference."""
    order = np.lexsort((-accuracy, log_latency))
    best = np.maximum.accumulate(np.concatenate([[reference[1]], accuracy[order]]))
    steps = order[(best[1:] > best[:-1]) & (log_latency[order] < reference[0])]
    return Front(log_latency[steps], accuracy[steps], reference)


def expected_improvement(front: Front, log_latency: Array, mean: Array, deviation: Array) -> Array:
    """Hypervolume that points of known latency and uncertain accuracy are expected to add to a front.

    Exact, in closed form: between two latencies of the front a point adds what its accuracy exceeds the front's there.

    Args:
        front: To be improved.
        log_latency: (N,).
        mean: Mean of the normal accuracy, (N,) or (N, M).
        deviation: Its standard deviation, likewise; positive.
    """
    edge, base = front.reference
    starts = np.concatenate([[-np.inf], front.log_latency])
    ends = np.concatenate([front.log_latency, [edge]])
    bases = np.concatenate([[base], front.accuracy])
    widths = np.maximum(ends - np.maximum(log_latency[:, None], starts), 0.0)  # (N, k + 1)
    point, step = np.nonzero(widths)
    first = np.flatnonzero(np.diff(point, prepend=-1))  # of each point that improves anything, by its first step
    shape = -1, *[1] * (mean.ndim - 1)
    u = (mean[point] - bases[step].reshape(shape)) / deviation[point]
    area = ndtr(u)
    area *= u
    np.square(u, out=u)
    u *= -0.5
    area += np.exp(u, out=u) / math.sqrt(2 * math.pi)
    area *= widths[point, step].reshape(shape)
    total = np.zeros_like(mean)
    total[point[first]] = np.add.reduceat(area, first, axis=0)
    total *= deviation
    return total


def acquisition(fronts: list[Front], log_latencies: Array, belief: Belief, reached: int, costs: Array) -> Array:
    """The hypervolume per unit of cost that training these points on is expected to add, (N,); more is better.

    A training may stop at any fidelity and go on only if what it shows there is good enough. For each fidelity on the
    way the best such rule is found: it goes on in those outcomes that pay for themselves at the rate that the whole
    plan earns (the index of Weitzman, Optimal Search for the Best Alternative, Econometrica 47, 1979). How much is
    spent on low fidelities thus follows from what they cost and how much they tell.

    Args:
        fronts: On each target; improvements on all of them add up.
        log_latencies: On each target, (targets, N).
        belief: In the units of the fronts' accuracies, as far as the last fidelity goes.
        reached: Fidelity that was reached, -1 for none.
        costs: What it costs to train from nothing to each fidelity, ascending, (F,).
    """
    last = len(costs) - 1
    paid = costs[reached] if reached >= 0 else 0.0
    mean, variance = belief.mean[last], np.maximum(belief.covariance[last, last], 1e-12)

    def gain(means: Array, deviations: Array) -> Array:
        total = np.zeros_like(means)
        for front, latency in zip(fronts, log_latencies, strict=True):
            total += expected_improvement(front, latency, means, deviations)
        return total

    best: Array = gain(mean, np.sqrt(variance)) / (costs[last] - paid)
    for fidelity in range(reached + 1, last):
        # What is seen there moves the belief about the end by as much as it explains of its variance.
        seen = belief.covariance[fidelity, fidelity] + belief.noise[fidelity]
        explained = np.minimum(belief.covariance[last, fidelity] ** 2 / seen, 0.999 * variance)
        outcomes = mean[:, None] + np.sqrt(explained)[:, None] * _NODES
        rest = np.broadcast_to(np.sqrt(variance - explained)[:, None], outcomes.shape)
        gains = gain(outcomes, rest)
        # The better the outcome, the larger the gain: the rules to compare go on in the best one, two, .. all of them.
        chance = np.arange(1, OUTCOMES + 1) / OUTCOMES
        earned = np.cumsum(gains[:, ::-1], axis=1) / OUTCOMES
        spent = (costs[fidelity] - paid) + (costs[last] - costs[fidelity]) * chance
        best = np.maximum(best, (earned / spent).max(axis=1))
    return best

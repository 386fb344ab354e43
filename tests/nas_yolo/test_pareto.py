from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nas_yolo.pareto import front, regrets


def beaten(i: int, latencies: list[float], accuracies: list[float]) -> bool:
    return any(
        latencies[j] <= latencies[i]
        and accuracies[j] >= accuracies[i]
        and (latencies[j] < latencies[i] or accuracies[j] > accuracies[i])
        for j in range(len(latencies))
    )


@pytest.mark.parametrize("seed", range(20))
def test_front_equals_brute_force_on_shuffled_points_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    latencies = rng.integers(1, 9, size=25).astype(float).tolist()
    accuracies = (rng.integers(0, 9, size=25) / 10).tolist()
    members = front(latencies, accuracies)

    unbeaten = {(latencies[i], accuracies[i]) for i in range(25) if not beaten(i, latencies, accuracies)}
    assert [(latencies[i], accuracies[i]) for i in members] == sorted(unbeaten)


def test_front_does_not_depend_on_the_order() -> None:
    points = [(1.0, 0.1), (2.0, 0.3), (3.0, 0.2), (4.0, 0.5)]
    for order in itertools.permutations(points):
        latencies, accuracies = zip(*order, strict=True)
        assert [order[i] for i in front(latencies, accuracies)] == [(1.0, 0.1), (2.0, 0.3), (4.0, 0.5)]


def test_front_of_none_and_of_one() -> None:
    assert front([], []) == []
    assert front([3.0], [0.0]) == [0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        front([1.0, bad], [0.1, 0.2])
    with pytest.raises(ValueError, match="finite"):
        front([1.0, 2.0], [0.1, bad])


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 latencies but 1"):
        front([1.0, 2.0], [0.1])


@pytest.mark.parametrize("seed", range(20))
def test_regret_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    latencies = rng.integers(1, 9, size=25).astype(float).tolist()
    accuracies = rng.random(25).tolist()
    expected = [
        max(a for latency, a in zip(latencies, accuracies, strict=True) if latency <= latencies[i]) - accuracies[i]
        for i in range(25)
    ]
    assert regrets(latencies, accuracies) == pytest.approx(expected)


def test_a_slower_net_never_counts_against_a_faster_one() -> None:
    assert regrets([1.0, 2.0], [0.1, 0.9]) == [0.0, 0.0]

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nas_yolo.pareto import front, hypervolume, regrets


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


def by_cells(latencies: list[float], accuracies: list[float], edge: float, base: float) -> float:
    """Hypervolume by adding up all cells of the grid that the points span."""
    xs = sorted({*(min(math.log(x), math.log(edge)) for x in latencies), math.log(edge)})
    ys = sorted({*(max(y, base) for y in accuracies), base})
    total = 0.0
    for x, right in itertools.pairwise(xs):
        for y, top in itertools.pairwise(ys):
            if any(math.log(lat) <= x and acc >= top for lat, acc in zip(latencies, accuracies, strict=True)):
                total += (right - x) * (top - y)
    return total


@pytest.mark.parametrize("seed", range(20))
def test_hypervolume_equals_brute_force_and_optunas(seed: int) -> None:
    from optuna._hypervolume import compute_hypervolume

    rng = np.random.default_rng(seed)
    latencies = rng.integers(1, 12, size=seed + 1).astype(float)
    accuracies = rng.integers(0, 10, size=seed + 1) / 10
    found = hypervolume(latencies, accuracies, 9.0, 0.2)
    assert found == pytest.approx(by_cells(latencies.tolist(), accuracies.tolist(), 9.0, 0.2))
    losses = np.stack([np.log(latencies), -accuracies], axis=1)
    inside = losses[(losses < [math.log(9.0), -0.2]).all(axis=1)]
    expected = compute_hypervolume(inside, np.array([math.log(9.0), -0.2])) if len(inside) else 0.0
    assert found == pytest.approx(expected)
    order = rng.permutation(seed + 1)
    assert hypervolume(latencies[order], accuracies[order], 9.0, 0.2) == pytest.approx(found)


def test_hypervolume_of_none_of_one_and_of_what_lies_outside() -> None:
    assert hypervolume([], [], 2.0, 0.0) == 0.0
    assert hypervolume([1.0], [0.5], math.e, 0.1) == pytest.approx(0.4)
    assert hypervolume([3.0, 1.0], [0.9, 0.05], math.e, 0.1) == 0.0


@pytest.mark.parametrize(
    ("latencies", "accuracies", "edge", "base"),
    [
        ([math.nan], [0.1], 2.0, 0.0),
        ([math.inf], [0.1], 2.0, 0.0),
        ([1.0], [math.nan], 2.0, 0.0),
        ([1.0], [math.inf], 2.0, 0.0),
        ([0.0], [0.1], 2.0, 0.0),
        ([1.0], [0.1], math.inf, 0.0),
        ([1.0], [0.1], 2.0, math.nan),
        ([1.0, 2.0], [0.1], 2.0, 0.0),
    ],
)
def test_hypervolume_refuses_what_is_not_finite(
    latencies: list[float], accuracies: list[float], edge: float, base: float
) -> None:
    with pytest.raises(ValueError, match=r"finite|positive|equally many"):
        hypervolume(latencies, accuracies, edge, base)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluators.evaluation import Epoch
from nas_yolo.config import SearchConfig
from nas_yolo.results import fidelity_correlations, trust_text
from nas_yolo.trust import Noise, iso_latency_correlation, seed_noise
from storage import Repository, Search


def test_only_pairs_of_equal_latency_count() -> None:
    # Two groups, one ten times slower and better; within each the early order is the reverse of the final one.
    latencies = [1.0, 1.02, 1.04, 1.06, 10.0, 10.2, 10.4, 10.6]
    early = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    final = [0.4, 0.3, 0.2, 0.1, 0.9, 0.8, 0.7, 0.6]
    found = iso_latency_correlation(latencies, early, final)
    assert found is not None
    assert (found.tau, found.low, found.high, found.pairs) == (-1.0, -1.0, -1.0, 12)


def test_the_interval_holds_the_truth_and_shrinks() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (10, 60):
        hits = 0
        for seed in range(30):
            final = rng.normal(size=count)
            early = final + rng.normal(size=count)  # correlation 1 / sqrt(2): tau = 2 / pi * asin(that) = 0.5
            found = iso_latency_correlation([1.0] * count, early.tolist(), final.tolist(), seed)
            assert found is not None
            hits += found.low <= 0.5 <= found.high
        widths.append(found.high - found.low)
        assert hits >= 24
    assert widths[1] < 0.6 * widths[0]


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    latencies, early, final = rng.uniform(1, 2, 20), rng.random(20), rng.random(20)
    shuffled = rng.permutation(20)
    one = iso_latency_correlation(latencies.tolist(), early.tolist(), final.tolist())
    other = iso_latency_correlation(latencies[shuffled].tolist(), early[shuffled].tolist(), final[shuffled].tolist())
    assert one is not None
    assert other is not None
    assert one.tau == pytest.approx(other.tau)


def test_too_few_pairs_say_nothing() -> None:
    assert iso_latency_correlation([1.0, 1.0, 1.0], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) is None
    assert iso_latency_correlation([1, 2, 4, 8, 16], [0.1] * 5, [0.2] * 5) is None
    assert iso_latency_correlation([], [], []) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        iso_latency_correlation([1.0, 1.0], [0.1, bad], [0.1, 0.2])
    with pytest.raises(ValueError, match="1 early"):
        iso_latency_correlation([1.0, 1.0], [0.1], [0.1, 0.2])


@pytest.mark.parametrize("each", [2, 3, 7])
def test_noise_of_equal_groups_is_the_mean_of_their_variances(each: int) -> None:
    groups = np.random.default_rng(each).normal(size=(5, each))
    found = seed_noise(groups.tolist())
    assert found is not None
    assert found.sd == pytest.approx(np.sqrt(groups.var(axis=1, ddof=1).mean()))
    assert found.degrees_of_freedom == 5 * (each - 1)


def test_noise_does_not_depend_on_levels_or_on_what_was_trained_once() -> None:
    groups = [[0.1, 0.12], [0.3, 0.29, 0.34]]
    found = seed_noise(groups)
    assert found is not None
    other = seed_noise([[0.9], [value + 0.2 for value in groups[1]], [0.5], groups[0]])
    assert other is not None
    assert other.sd == pytest.approx(found.sd)
    assert other.degrees_of_freedom == found.degrees_of_freedom == 3


def test_without_repeats_there_is_no_noise_to_know() -> None:
    assert seed_noise([]) is None
    assert seed_noise([[0.1], [0.2]]) is None
    with pytest.raises(ValueError, match="finite"):
        seed_noise([[0.1, float("nan")]])


def test_the_interval_is_that_of_students_tables() -> None:
    assert Noise(1.0, 1).difference() == pytest.approx(12.706 * 2**0.5, rel=1e-4)
    assert Noise(0.5, 2).difference(2, 2) == pytest.approx(0.5 * 4.3027, rel=1e-4)
    assert Noise(1.0, 2).difference(1, 3) == pytest.approx(4.3027 * (4 / 3) ** 0.5, rel=1e-4)
    assert Noise(0.0, 2).difference() == 0.0


@pytest.mark.parametrize("trainings", [(2, 1), (2, 2), (3, 2)])
def test_the_interval_covers_the_true_difference_19_times_of_20(trainings: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    runs, hits = 4000, 0
    for _ in range(runs):
        groups = [rng.normal(level, 0.01, count).tolist() for level, count in zip((0.3, 0.32), trainings, strict=True)]
        found = seed_noise(groups)
        assert found is not None
        hits += abs(np.mean(groups[1]) - np.mean(groups[0]) - 0.02) < found.difference(*trainings)
    assert hits / runs == pytest.approx(0.95, abs=0.015)  # four standard errors


def test_a_search_says_how_well_its_rungs_told_the_end(finished: tuple[Repository, Search]) -> None:
    repository, search = finished
    config = replace(SearchConfig.from_document(search.config), epochs=9)
    base = repository.trials(search)[0]
    latency = base.latencies["cpu"]
    trials = []
    for number in range(5):  # the order after three epochs is that after nine, but for the first
        maps = [0.1] * 2 + [0.1 * (number or 9)] + [0.2] * 5 + [0.1 * number + 0.1]
        epochs = tuple(Epoch(i, value, value, 1.0, 1.0) for i, value in enumerate(maps, start=1))
        trials.append(replace(base, number=number, epochs=epochs, state="complete", latencies={"cpu": latency}))
    found = fidelity_correlations(trials, config)["3 epochs"]
    assert found is not None
    assert (found.tau, found.pairs) == (pytest.approx(0.2), 10)
    assert "Rank correlation with 9 epochs, 10 pairs of trials of equal latency: 0.20 (" in trust_text(trials, config)
    assert "at 3 epochs" in trust_text(trials, config)

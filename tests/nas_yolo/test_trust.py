from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluators.evaluation import Epoch
from nas_yolo.config import SearchConfig
from nas_yolo.results import rung_correlations, trust_text
from nas_yolo.trust import iso_latency_correlation
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
    found = rung_correlations(trials, config)[3]
    assert found is not None
    assert (found.tau, found.pairs) == (pytest.approx(0.2), 10)
    assert "Rank correlation with 9 epochs, 10 pairs of trials of equal latency: 0.20 (" in trust_text(trials, config)
    assert "at 3 epochs" in trust_text(trials, config)

from __future__ import annotations

import numpy as np

from nas_yolo.finalists import candidates, inside_first
from nas_yolo.pareto import front
from nas_yolo.samplers import Observation


def paused(*points: tuple[float, float]) -> list[Observation]:
    """Trials at the first rung, by latency and accuracy."""
    return [Observation((i,), (ms,), (accuracy,)) for i, (ms, accuracy) in enumerate(points)]


def test_three_layers_are_inside_and_the_fourth_is_not() -> None:
    trials = paused((1, 0.1), (2, 0.4), (2.2, 0.3), (2.4, 0.2), (2.6, 0.15))
    assert candidates(trials) == {0, 1, 2, 3}


def test_of_two_in_a_layer_that_are_equally_fast_only_the_better_counts() -> None:
    trials = paused((1.00, 0.30), (1.02, 0.31), (1.50, 0.32))
    assert front([1.00, 1.02, 1.50], [0.30, 0.31, 0.32]) == [0, 1, 2]
    assert candidates(trials) == {1, 2}


def test_trials_are_compared_at_the_rung_that_both_have_reached() -> None:
    higher = Observation((0,), (1.0,), (0.10, 0.50))
    better_early = [Observation((i,), (1.0 - i / 10,), (0.20 + i / 100,)) for i in (1, 2, 3)]
    assert candidates([higher, *better_early]) == {0, 1, 2, 3}  # alone at its rung; .10 there would be the last
    complete = Observation((4,), (0.5,), (0.9, 0.9, 0.9), over=True)
    better = [Observation((i,), (0.55,), (0.8 - i / 100,)) for i in (1, 2)]
    assert candidates([complete, *better, *better_early]) == {0, 1, 2}  # what is done is compared as well


def test_good_on_one_target_is_good() -> None:
    good = [Observation((i,), (1.0 + i, 9.0 - i), (0.9 - i / 10,)) for i in range(5)]
    assert candidates([Observation(one.codes, one.latencies_ms[:1], one.accuracies) for one in good]) == {0, 1, 2}
    assert candidates(good) == {0, 1, 2, 3, 4}


def test_nothing_outside_comes_before_what_is_inside_and_the_order_is_kept_otherwise() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        trials = paused(*((float(ms), float(a)) for ms, a in rng.uniform(1, 2, (40, 2))))
        order = rng.permutation(40).tolist()
        result, inside = inside_first(trials, order), candidates(trials)
        assert 0 < len(inside) < 40
        assert result == [i for i in order if i in inside] + [i for i in order if i not in inside]
    assert inside_first([], []) == []
    assert candidates([Observation((0,)), Observation((1,), (1.0,))]) == set()

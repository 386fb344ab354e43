"""What the engine makes of designs that were put together from a library."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np

from nas_yolo.pareto import hypervolume
from nas_yolo.samplers import Assembled, Grid, Observation
from nas_yolo.samplers._assembled import best_assembled, front_of, promising_first
from nas_yolo.samplers.frontier import Frontier

GRID = Grid({f"P{level}.block": tuple("abcde") for level in range(2, 7)})
COSTS = (1, 9)
QUALITY = np.array([0.0, 0.5, 1.0, 1.6, 2.0])
TIME = np.array([1.0, 1.5, 2.0, 4.0, 5.0])


def latency_of(codes: tuple[int, ...]) -> float:
    return float(TIME[list(codes)].sum())


def quality_of(codes: tuple[int, ...]) -> float:
    return float(QUALITY[list(codes)] @ [1.0, 1.2, 0.8, 1.0, 0.5])


def assembled(codes: tuple[int, ...], left: float | None = None) -> Assembled:
    """As good as it is true, if nothing else is said."""
    return Assembled(codes, 0.3 * quality_of(codes) - 2.5 if left is None else left, latency_ms=latency_of(codes))


def points(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    return [tuple(point) for point in GRID.draw(count, np.random.default_rng(seed)).tolist()]


def trained(codes: tuple[int, ...]) -> Observation:
    return Observation(codes, (latency_of(codes),), (0.1 * quality_of(codes),))


def test_the_front_is_of_those_that_no_other_beats_fastest_first() -> None:
    one, other, beaten = (
        assembled((1, 1, 1, 1, 1), -0.1),
        assembled((0, 0, 0, 0, 0), -0.9),
        assembled((4, 4, 4, 4, 4), -0.5),
    )
    assert front_of([beaten, one, other]) == [other, one]


def test_before_anything_is_trained_candidates_begin_with_the_front_and_never_with_what_was_tried() -> None:
    known = [assembled(codes) for codes in points(40)]
    members = {one.codes for one in front_of(known)}
    assert len(members) > 2
    assert {*islice(Frontier(GRID, COSTS, 0).candidates([], known), len(members))} == members
    tried = sorted(members)[0]
    seen = [Observation(tried, (latency_of(tried),))]
    assert {*islice(Frontier(GRID, COSTS, 0).candidates(seen, known), len(members) - 1)} == members - {tried}


def test_what_lies_farthest_from_all_that_were_measured_comes_first() -> None:
    fast, middle, slow = (assembled((code,) * 5) for code in (0, 2, 4))
    seen = [Observation((1, 0, 0, 0, 0), (5.2,)), Observation((2, 2, 2, 2, 1), (9.6,))]
    assert best_assembled(seen, [fast, middle, slow]) == [slow.codes, middle.codes, fast.codes]


def test_of_several_targets_latencies_are_compared_by_their_mean() -> None:
    one, other = assembled((1,) * 5), assembled((3,) * 5)  # 7.5 and 20 ms
    seen = [Observation((0,) * 5, (3.75, 15.0))]
    assert best_assembled(seen, [one, other]) == [other.codes, one.codes]


def test_measured_ones_come_by_what_is_left_compared_with_what_is_no_slower() -> None:
    codes = [(code,) * 5 for code in range(4)]
    seen = [Observation(one, (float(ms),)) for one, ms in zip(codes, (1, 2, 3, 4), strict=True)]
    known = [assembled(codes[0], -0.3), assembled(codes[1], -0.9), assembled(codes[3], -0.5)]
    assert promising_first(seen, [0, 1, 2, 3], known) == [0, 3, 1, 2]  # the third was never put together
    assert promising_first(seen, [3, 2, 1], known) == [3, 1, 2]  # nothing faster is left to compare with
    assert promising_first(seen, [2, 0], []) == [2, 0]
    engine = Frontier(GRID, COSTS, 0)
    assert engine.order(seen, known) == [0, 3, 1, 2]
    assert engine.order(seen) == [0, 1, 2, 3]


def reached(seed: int, known: list[Assembled], budget: int = 36) -> float:
    """Hypervolume of what was trained to the end for so much, first fidelities at 1 and full trainings at 9."""
    engine, seen, spent = Frontier(GRID, COSTS, seed), list[Observation](), 0
    while spent < budget:
        tried = {one.codes for one in seen}
        while engine.wants(seen, 1, known):
            codes = next(codes for codes in engine.candidates(seen, known) if codes not in tried)
            tried.add(codes)
            seen.append(Observation(codes, (latency_of(codes),)))
        number = engine.order(seen, known)[0]
        shown = (*seen[number].accuracies, 0.1 * quality_of(seen[number].codes))
        spent += COSTS[0] if len(shown) == 1 else COSTS[1] - COSTS[0]
        seen[number] = replace(seen[number], accuracies=shown, over=len(shown) == 2)
    done = [one for one in seen if one.over]
    return hypervolume([one.latencies_ms[0] for one in done], [one.accuracies[1] for one in done], 22.0, 0.0)


def test_where_scores_are_true_a_search_finds_more_for_the_same() -> None:
    known = [assembled(codes) for codes in points(60, 100)]
    with_scores, without = ([reached(seed, some) for seed in range(3)] for some in (known, []))
    assert np.mean(with_scores) > 1.02 * np.mean(without)


def test_four_trained_are_enough_with_scores_and_not_without() -> None:
    seen = [trained(codes) for codes in points(4)]
    known = [assembled(codes) for codes in points(10, 1)]
    assert not Frontier(GRID, COSTS, 0)._knows(seen, ())
    assert Frontier(GRID, COSTS, 0)._knows(seen, known)
    assert not Frontier(GRID, COSTS, 0)._knows(seen[:3], known)


def test_scores_that_are_all_alike_or_few_change_no_decision() -> None:
    seen = [trained(codes) for codes in points(14)]
    waiting = [Observation(codes, (latency_of(codes),)) for codes in points(6, 2)]
    plain = Frontier(GRID, COSTS, 0).order([*seen, *waiting])
    alike = [assembled(codes, -0.2) for codes in points(8, 3)]
    assert Frontier(GRID, COSTS, 0).order([*seen, *waiting], alike) == plain
    assert Frontier(GRID, COSTS, 0).order([*seen, *waiting], [assembled(one) for one in points(3, 3)]) == plain


def test_the_order_of_scores_does_not_matter_to_what_is_worth_most() -> None:
    seen = [trained(codes) for codes in points(5)]
    known = [assembled(codes) for codes in points(30, 1)]
    one, other = (next(Frontier(GRID, COSTS, 0).candidates(seen, some)) for some in (known, known[::-1]))
    assert one == other

from __future__ import annotations

import itertools
import random

import pytest

from nas_yolo.fidelities import ETA
from nas_yolo.schedulers.asha import Standing, finalists, promotion, ranking


def standing(number: int, latency: float, *accuracies: float, idle: bool = True) -> Standing:
    return Standing(number, (latency,), accuracies, idle)


def random_standings(rng: random.Random, count: int) -> list[Standing]:
    points = [standing(i, rng.uniform(1, 10), rng.random()) for i in range(count)]
    rng.shuffle(points)
    return points


@pytest.mark.parametrize("seed", range(30))
def test_a_trial_on_the_front_goes_on_while_the_front_fits_the_quota(seed: int) -> None:
    rng = random.Random(seed)
    standings = random_standings(rng, 30)
    members = {n for regret, n in ranking(standings, 0) if regret == 0}
    if len(members) > len(standings) // ETA:
        pytest.skip("this front is larger than the quota")
    promoted = set()
    while (number := promotion(standings, 2)) is not None:
        promoted.add(number)
        standings = [
            Standing(s.number, s.latencies_ms, s.accuracies, idle=s.idle and s.number != number) for s in standings
        ]
    assert members <= promoted
    assert len(promoted) == len(standings) // ETA


@pytest.mark.parametrize("seed", range(10))
def test_decisions_do_not_depend_on_the_order_of_reports(seed: int) -> None:
    rng = random.Random(seed)
    standings = random_standings(rng, 12)
    expected = ranking(standings, 0), promotion(standings, 2), finalists(standings, 2)
    for _ in range(10):
        rng.shuffle(standings)
        assert (ranking(standings, 0), promotion(standings, 2), finalists(standings, 2)) == expected


def test_a_fast_net_is_not_held_back_by_a_slower_more_accurate_one() -> None:
    for order in itertools.permutations([standing(0, 1.0, 0.1), standing(1, 5.0, 0.9), standing(2, 2.0, 0.05)]):
        assert {n: r for r, n in ranking(order, 0)} == pytest.approx({0: 0.0, 1: 0.0, 2: 0.05})


def test_a_third_goes_on() -> None:
    standings = [standing(i, 1.0, i / 10) for i in range(8)]
    assert promotion(standings[:2], 2) is None
    assert promotion(standings, 2) == 7
    standings[7] = standing(7, 1.0, 0.7, idle=False)
    assert promotion(standings, 2) == 6
    standings[6] = standing(6, 1.0, 0.6, idle=False)
    assert promotion(standings, 2) is None


def test_among_equals_the_regions_of_latency_take_turns() -> None:
    front = [standing(0, 1.0, 0.1), standing(1, 1.1, 0.2), standing(2, 1.2, 0.3), standing(3, 10.0, 0.4)]
    assert [n for _, n in ranking(front, 0)][:2] == [3, 0]


def test_a_net_that_is_good_on_one_of_two_targets_is_good() -> None:
    good_on_one = Standing(0, (1.0, 9.0), (0.5,), True)
    good_on_other = Standing(1, (9.0, 1.0), (0.4,), True)
    good_on_none = Standing(2, (9.5, 9.5), (0.3,), True)
    assert {n: r for r, n in ranking([good_on_none, good_on_other, good_on_one], 0)} == pytest.approx(
        {0: 0.0, 1: 0.0, 2: 0.2}
    )


def test_promotion_starts_at_the_highest_fidelity() -> None:
    low = [standing(i, 1.0, i / 10) for i in range(3)]
    high = [standing(i, 1.0, i / 10, i / 10) for i in range(3, 6)]
    assert promotion([*low, *high], 3) == 5


def test_finalists_are_those_that_wait_best_first() -> None:
    standings = [
        standing(0, 1.0, 0.30),
        standing(1, 1.0, 0.10),
        standing(2, 9.0, 0.40),
        standing(3, 9.0, 0.20, idle=False),
        standing(4, 9.0, 0.39, 0.8, idle=False),
    ]
    assert finalists(standings, 2) == [2, 0, 1]


def test_nothing_to_decide() -> None:
    assert ranking([], 0) == []
    assert promotion([], 2) is None
    assert finalists([], 2) == []
    assert promotion([standing(0, 1.0, 0.1)], 1) is None

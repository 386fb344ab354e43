from __future__ import annotations

import itertools
import random

import pytest

from nas_yolo.schedulers.asha import ETA, Standing, finalists, promotion, ranking, rungs

LEVELS = (2, 6)


def standing(number: int, latency: float, *accuracies: float, idle: bool = True) -> Standing:
    """Accuracies after 2 and 6 epochs; earlier epochs do not matter."""
    return Standing(number, (latency,), dict(zip(LEVELS, accuracies, strict=False)), idle)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, (1,)), (2, (2,)), (3, (3,)), (6, (2, 6)), (9, (3, 9)), (25, (3, 8, 25)), (100, (11, 33, 100))],
)
def test_rungs(epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs) == expected


def random_standings(rng: random.Random, count: int) -> list[Standing]:
    points = [standing(i, rng.uniform(1, 10), rng.random()) for i in range(count)]
    rng.shuffle(points)
    return points


@pytest.mark.parametrize("seed", range(30))
def test_a_trial_on_the_front_goes_on_while_the_front_fits_the_quota(seed: int) -> None:
    rng = random.Random(seed)
    standings = random_standings(rng, 30)
    members = {n for regret, n in ranking(standings, 2) if regret == 0}
    if len(members) > len(standings) // ETA:
        pytest.skip("this front is larger than the quota")
    promoted = set()
    while (number := promotion(standings, LEVELS)) is not None:
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
    expected = ranking(standings, 2), promotion(standings, LEVELS), finalists(standings, LEVELS)
    for _ in range(10):
        rng.shuffle(standings)
        assert (ranking(standings, 2), promotion(standings, LEVELS), finalists(standings, LEVELS)) == expected


def test_a_fast_net_is_not_held_back_by_a_slower_more_accurate_one() -> None:
    for order in itertools.permutations([standing(0, 1.0, 0.1), standing(1, 5.0, 0.9), standing(2, 2.0, 0.05)]):
        assert {n: r for r, n in ranking(order, 2)} == pytest.approx({0: 0.0, 1: 0.0, 2: 0.05})


def test_a_third_goes_on() -> None:
    standings = [standing(i, 1.0, i / 10) for i in range(8)]
    assert promotion(standings[:2], LEVELS) is None
    assert promotion(standings, LEVELS) == 7
    standings[7] = standing(7, 1.0, 0.7, idle=False)
    assert promotion(standings, LEVELS) == 6
    standings[6] = standing(6, 1.0, 0.6, idle=False)
    assert promotion(standings, LEVELS) is None


def test_among_equals_the_regions_of_latency_take_turns() -> None:
    front = [standing(0, 1.0, 0.1), standing(1, 1.1, 0.2), standing(2, 1.2, 0.3), standing(3, 10.0, 0.4)]
    assert [n for _, n in ranking(front, 2)][:2] == [3, 0]


def test_a_net_that_is_good_on_one_of_two_targets_is_good() -> None:
    good_on_one = Standing(0, (1.0, 9.0), {2: 0.5}, True)
    good_on_other = Standing(1, (9.0, 1.0), {2: 0.4}, True)
    good_on_none = Standing(2, (9.5, 9.5), {2: 0.3}, True)
    assert {n: r for r, n in ranking([good_on_none, good_on_other, good_on_one], 2)} == pytest.approx(
        {0: 0.0, 1: 0.0, 2: 0.2}
    )


def test_promotion_starts_at_the_highest_rung() -> None:
    levels = (2, 6, 18)
    low = [Standing(i, (1.0,), {2: i / 10}, True) for i in range(3)]
    high = [Standing(i, (1.0,), {2: i / 10, 6: i / 10}, True) for i in range(3, 6)]
    assert promotion([*low, *high], levels) == 5


def test_finalists_are_those_that_wait_best_first() -> None:
    standings = [
        standing(0, 1.0, 0.30),
        standing(1, 1.0, 0.10),
        standing(2, 9.0, 0.40),
        standing(3, 9.0, 0.20, idle=False),
        standing(4, 9.0, 0.39, 0.8, idle=False),
    ]
    assert finalists(standings, LEVELS) == [2, 0, 1]


def test_a_trial_that_was_stopped_between_two_rungs_is_still_a_finalist() -> None:
    between = Standing(0, (1.0,), {1: 0.1, 2: 0.2, 3: 0.25}, True)
    assert finalists([between], LEVELS) == [0]


def test_nothing_to_decide() -> None:
    assert ranking([], 2) == []
    assert promotion([], LEVELS) is None
    assert finalists([], LEVELS) == []
    assert promotion([standing(0, 1.0, 0.1)], (2,)) is None

from __future__ import annotations

import pytest

from evaluators.accuracy.pace import MIN_S, MIN_STEPS, WARM_UP_STEPS, PaceMeter
from evaluators.evaluation import Pace


def paces(begins_s: list[float], epoch_steps: int = 100) -> list[Pace]:
    """What is told of an epoch whose batches begin so many seconds after its start."""
    meter = PaceMeter(epoch_steps)
    told = [meter.begin_step(number, 1000.0 + at_s) for number, at_s in enumerate(begins_s)]
    return [pace for pace in told if pace]


def test_the_first_batches_set_things_up_and_do_not_count() -> None:
    slow_start = [0.0, 30.0, *(50.0 + number for number in range(98))]
    (pace,) = paces(slow_start)
    assert pace == Pace(MIN_STEPS, 100, float(MIN_STEPS))
    assert pace.epoch_s == 100.0
    assert slow_start[WARM_UP_STEPS] == 50.0


def test_it_takes_some_batches_and_some_seconds() -> None:
    (slow,) = paces([10.0 * number for number in range(100)])
    assert (slow.steps, slow.epoch_s) == (MIN_STEPS, pytest.approx(1000))
    (fast,) = paces([0.125 * number for number in range(100)])
    assert (fast.seconds, fast.epoch_s) == (MIN_S, pytest.approx(12.5))


def test_nothing_is_told_of_an_epoch_that_tells_soon_itself() -> None:
    assert paces([10.0 * number for number in range(WARM_UP_STEPS + MIN_STEPS)], WARM_UP_STEPS + MIN_STEPS) == []
    assert paces([0.01 * number for number in range(100)]) == []

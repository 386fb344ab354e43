from __future__ import annotations

import math

import pytest

from nas_yolo.equal_latency import Point, compare, envelope
from nas_yolo.trust import Noise

CURVE = [Point(1.0, 0.0, 0.30), Point(4.0, 0.0, 0.40), Point(8.0, 0.0, 0.42)]
NOISE = Noise(0.01, 1000)
T = 1.9623  # Student's, at a thousand degrees of freedom


def test_the_curve_is_of_those_that_are_more_accurate_than_all_that_are_as_fast() -> None:
    slow_and_bad, tied = Point(6.0, 0.0, 0.39), Point(4.1, 0.0, 0.395)
    assert envelope([CURVE[1], slow_and_bad, CURVE[0], tied, CURVE[2]]) == [2, 0, 4]


def test_between_two_points_the_curve_is_straight_in_the_logarithm_of_latency() -> None:
    found = compare(Point(2.0, 0.0, 0.37), CURVE, NOISE)
    assert found.shares == pytest.approx((0.5, 0.5, 0.0))
    assert found.gain == pytest.approx(0.02)
    # The mean of two single trainings has half the variance of one.
    assert found.gain_error == pytest.approx(T * 0.01 * math.sqrt(1 + 1 / 2), rel=1e-3)
    assert found.relation == "not told apart"
    assert compare(Point(2.0, 0.0, 0.38), CURVE, NOISE).relation == "beats"
    assert compare(Point(2.0, 0.0, 0.32), CURVE, NOISE).relation == "worse"
    assert compare(Point(2.0, 0.0, 0.38), CURVE, None).relation == "not known"
    assert compare(Point(4.0, 0.0, 0.38), CURVE, NOISE).gain == pytest.approx(-0.02)


def test_more_trainings_on_either_side_make_the_error_smaller() -> None:
    often = [Point(p.latency_ms, 0.0, p.accuracy, 4) for p in CURVE]
    found = compare(Point(2.0, 0.0, 0.37, 2), often, NOISE)
    assert found.gain_error == pytest.approx(T * 0.01 * math.sqrt(1 / 2 + 1 / 8), rel=1e-3)


def test_errors_of_latencies_count_by_the_slope_of_the_curve() -> None:
    uncertain = [Point(1.0, 0.02, 0.30), Point(4.0, 0.04, 0.40)]
    sure = Noise(0.0, 1)
    slope = 0.1 / math.log(4)
    found = compare(Point(2.0, 0.03, 0.37), uncertain, sure)
    assert found.gain_error == pytest.approx(slope * math.hypot(0.03, 0.01, 0.02))
    beyond = compare(Point(16.0, 0.03, 0.45), uncertain, sure)
    assert beyond.gain_error == 0.0  # there it is flat


def test_nothing_compares_with_what_is_faster_than_all() -> None:
    slower = compare(Point(0.5, 0.0, 0.25), CURVE, NOISE)
    assert (slower.relation, slower.is_fastest) == ("no opponent", True)
    assert slower.gain == pytest.approx(-0.05)
    assert slower.latency_saved is None  # at its accuracy nothing was measured
    assert compare(Point(0.5, 0.0, 0.31), CURVE, NOISE).relation == "no opponent"  # as accurate, as far as can be told
    better = compare(Point(0.5, 0.0, 0.35), CURVE, NOISE)
    assert better.relation == "beats"  # the fastest is slower, and worse
    assert better.latency_saved == pytest.approx(0.75)
    assert not compare(Point(0.98, 0.0, 0.25), CURVE, NOISE).is_fastest  # a tie


def test_what_is_slower_than_all_is_compared_with_the_best() -> None:
    found = compare(Point(20.0, 0.0, 0.46), CURVE, NOISE)
    assert found.shares == (0.0, 0.0, 1.0)
    assert (found.relation, found.latency_saved) == ("beats", None)  # none is as accurate
    assert found.gain == pytest.approx(0.04)
    assert compare(Point(20.0, 0.0, 0.35), CURVE, NOISE).relation == "worse"


def test_latency_saved_is_against_the_curve_at_the_same_accuracy() -> None:
    found = compare(Point(1.0, 0.03, 0.35), [Point(1.0, 0.02, 0.30), Point(4.0, 0.04, 0.40)], NOISE)
    assert found.latency_saved == pytest.approx(0.5)  # the curve has 0.35 at 2 ms
    by_accuracy = math.log(4) / 0.1 * T * 0.01 * math.sqrt(1 + 1 / 2)
    assert found.latency_saved_error == pytest.approx(0.5 * math.hypot(by_accuracy, 0.03, 0.01, 0.02), rel=1e-3)
    lost = compare(Point(4.0, 0.0, 0.35), CURVE, None)
    assert lost.latency_saved == pytest.approx(-1.0)
    assert lost.latency_saved_error is None


def test_one_point_is_a_curve() -> None:
    found = compare(Point(0.8, 0.0, 0.35), CURVE[:1], NOISE)
    assert (found.relation, found.shares, found.latency_saved) == ("beats", (1.0,), None)

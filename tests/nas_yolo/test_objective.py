from __future__ import annotations

import pytest

from evaluators.evaluation import Complexity, Latency
from nas_yolo.objective import Limit, LimitError, parse_limit, too_complex, too_slow


def latency(target: str, ms: float) -> Latency:
    return Latency(target, "f", 96, ms, ms, ms, 1.0, ms, ms, None, 9, 0.0, None, "good")


def test_limits_are_read() -> None:
    assert parse_limit("latency_ms<=12") == Limit("latency_ms", 12)
    assert parse_limit(" params_m <= 2.5 ") == Limit("params_m", 2.5)
    assert parse_limit(str(parse_limit("gflops<=1e1"))) == Limit("gflops", 10)


@pytest.mark.parametrize("text", ["", "latency_ms", "latency_ms<12", "latency_ms>=12", "latency_ms<=", "gflops<=-1"])
def test_unreadable_limits_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(LimitError, match="latency_ms<=12"):
        parse_limit(text)


def test_an_unknown_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(LimitError, match="did you mean 'latency_ms'"):
        parse_limit("latency<=12")


def test_a_network_on_the_limit_is_accepted_and_beyond_it_is_not() -> None:
    complexity = Complexity(2_000_000, 5.0, 1_900_000, 4.9, 200)
    assert too_complex([Limit("params", 2e6), Limit("params_m", 2.0), Limit("gflops", 5.0)], complexity) == ""
    assert "params_m is 2, over the limit of 1.9" in too_complex([Limit("params_m", 1.9)], complexity)
    assert "gflops" in too_complex([Limit("gflops", 4.99)], complexity)
    assert too_complex([Limit("latency_ms", 1)], complexity) == ""


def test_every_target_must_hold_the_limit() -> None:
    limits = [Limit("latency_ms", 10)]
    assert too_slow(limits, [latency("a", 10), latency("b", 9)]) == ""
    assert "on b is 10.1" in too_slow(limits, [latency("a", 9), latency("b", 10.1)])
    assert too_slow([], [latency("a", 1e9)]) == ""

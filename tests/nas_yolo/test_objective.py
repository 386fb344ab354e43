from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.complexity import predict_size, smallest
from evaluators.evaluation import Complexity, Latency
from nas_yolo.objective import Limit, LimitError, check_feasible, parse_limit, too_complex, too_slow
from search_spaces import SearchSpace
from search_spaces.image_size import ImageSize
from search_spaces.space_file import load_space

SIZE = ImageSize(64, 64)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space(str(Path(__file__).parent / "space.yaml"))


def latency(target: str, ms: float) -> Latency:
    return Latency(target, "f", ImageSize(96, 96), ms, ms, ms, 1.0, ms, ms, None, 9, 0.0, None, "good")


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


@pytest.mark.parametrize("metric", ["params", "params_m", "gflops"])
def test_a_limit_that_the_smallest_keeps_is_feasible_and_one_below_is_not(space: SearchSpace, metric: str) -> None:
    least = predict_size(smallest(space, 10, SIZE, "gflops" if metric == "gflops" else "params"), 10, SIZE)
    bound = {"params": least.params, "params_m": least.params / 1e6, "gflops": least.gflops}[metric]
    check_feasible([Limit(metric, bound)], space, 10, SIZE)
    with pytest.raises(LimitError) as caught:
        check_feasible([Limit(metric, bound * 0.999)], space, 10, SIZE)
    message = str(caught.value)
    assert message.startswith(f"--limit {metric}<=")
    assert f"leaves nothing of space {space.name}: of its smallest architecture, {metric} is" in message
    assert "raise the limit or use a space with smaller widths" in message
    assert "\n" not in message


def test_each_limit_is_checked_and_latency_cannot_be(space: SearchSpace) -> None:
    check_feasible([], space, 10, SIZE)
    check_feasible([Limit("latency_ms", 1e-9)], space, 10, SIZE)
    with pytest.raises(LimitError, match="--limit gflops<=1e-06"):
        check_feasible([Limit("params_m", 100), Limit("latency_ms", 1), Limit("gflops", 1e-6)], space, 10, SIZE)


def test_a_space_that_chooses_the_image_size_is_feasible_at_its_smallest(space: SearchSpace) -> None:
    chooses = replace(space, choices={**space.choices, "imgsz": (32, 320)})
    least = predict_size(smallest(space, 10, ImageSize(32, 32), "gflops"), 10, ImageSize(32, 32)).gflops
    check_feasible([Limit("gflops", least)], chooses, 10, ImageSize(640, 640))
    with pytest.raises(LimitError, match="leaves nothing"):
        check_feasible([Limit("gflops", least)], space, 10, ImageSize(640, 640))


def test_a_predicted_size_is_held_to_the_limits_too(space: SearchSpace) -> None:
    size = predict_size(smallest(space, 10, SIZE, "params"), 10, SIZE)
    assert too_complex([Limit("params", size.params), Limit("latency_ms", 1)], size) == ""
    assert too_complex([Limit("params", size.params - 1)], size).startswith("params is")

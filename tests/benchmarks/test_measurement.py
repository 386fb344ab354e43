from __future__ import annotations

from typing import Any

import pytest

from benchmarks.measurement import PARTS, figures, parts_of
from evaluators.evaluation import Complexity, Latency
from search_spaces.image_size import ImageSize

SIZE = Complexity(params=1, gflops=1.0, params_fused=1, gflops_fused=1.0, layers=1)


def timed(ms: float, error_ms: float = 0.5) -> Latency:
    return Latency(
        **{"target": "cpu", "fingerprint": "f", "imgsz": ImageSize(96, 96), "latency_ms": ms},
        **{"ci_low_ms": ms - error_ms, "ci_high_ms": ms + error_ms, "ratio": ms / 8.0, "reference_ms": 8.0},
        **{"median_ms": ms, "p90_ms": None, "samples": 65, "drift": 0.0, "load": 0.0, "quality": "good"},
        conditions={"seconds": {"export": 2.0, "load": 0.5, "time": 4.0}, "reference_off": 0.01},
    )


def stamps(*latencies: Latency) -> list[tuple[float, Any]]:
    """Asked for at 100 s, begun at 103 s, sized at 104 s, each session 7.5 s later; half a second more to the end."""
    ends = [(104.0 + 7.5 * number, latency) for number, latency in enumerate(latencies, 1)]
    return [(100.0, None), (103.0, None), (104.0, SIZE), *ends, (ends[-1][0] + 0.5, None)]


def test_the_parts_of_a_measurement_are_all_of_it() -> None:
    measured = parts_of(stamps(timed(10.0), timed(11.0)))
    assert measured.seconds == 19.5
    assert measured.parts == dict(zip(PARTS, (3.0, 1.0, 2.0, 1.0, 0.5, 4.0, 7.5, 0.5), strict=True))
    assert sum(measured.parts.values()) == measured.seconds
    assert [one.latency_ms for one in measured.sessions] == [10.0, 11.0]


def test_the_first_measurement_is_told_apart_and_errors_are_compared_with_the_scatter() -> None:
    slow = parts_of(stamps(*[timed(10.0)] * 3))
    found = figures([slow, *(parts_of(stamps(timed(ms))) for ms in (10.2, 9.9, 12.0))])
    assert (found["first_s"], found["seconds"], found["seconds_max"]) == (slow.seconds, 12.0, 12.0)
    assert found["sessions"] == [3, 1, 1, 1]
    assert found["latency_ms"] == pytest.approx(10.1)
    assert found["covered"] == "3 of 4"
    assert found["stated_percent"] == pytest.approx(4.9, abs=0.2)

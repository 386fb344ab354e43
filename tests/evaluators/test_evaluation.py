from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evaluators.evaluation import Failure, Latency, Quality, combine, failure_from
from search_spaces.image_size import ImageSize


def raised(error: BaseException) -> BaseException:
    """The same, with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend Out of Memory"),
    ],
)
def test_memory_exhaustion_is_recognised(error: Exception) -> None:
    assert failure_from(raised(error), "build").cause == "oom"


def test_memory_exhaustion_on_a_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    assert failure_from(caught.value).cause == "oom"


def test_other_errors_keep_the_given_cause() -> None:
    assert failure_from(ValueError("no"), "export").cause == "export"
    assert failure_from(ValueError("no")).cause == "error"


def test_message_is_one_line_and_names_the_type() -> None:
    assert failure_from(ValueError("first\n\n   second")).message == "ValueError: first second"
    assert failure_from(KeyError()).message == "KeyError: KeyError"
    assert len(failure_from(ValueError("x" * 1000)).message) == 300


def test_detail_is_the_traceback_with_its_cause() -> None:
    def innermost() -> None:
        raise KeyError("inner")

    def outermost() -> None:
        try:
            innermost()
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        outermost()
    detail = failure_from(caught.value).detail
    assert detail.startswith("Traceback")
    assert "in innermost" in detail
    assert detail.index("KeyError: 'inner'") < detail.index("direct cause") < detail.index("ValueError: outer")


def test_a_long_detail_keeps_its_end() -> None:
    detail = failure_from(raised(ValueError("x" * 10_000 + " the end"))).detail
    assert len(detail) == 4000
    assert detail.endswith("the end\n")


def test_an_error_that_was_never_raised_has_a_detail_too() -> None:
    assert failure_from(ValueError("no")) == Failure("error", "ValueError: no", "ValueError: no\n")


def measured(latency_ms: float, quality: Quality = "good", error_ms: float = 0.1) -> Latency:
    """A session of a network on a target where the reference takes 8 ms."""
    return Latency(
        target="cpu",
        fingerprint="0123456789abcdef",
        imgsz=ImageSize(320, 320),
        latency_ms=latency_ms,
        ci_low_ms=latency_ms - error_ms,
        ci_high_ms=latency_ms + error_ms,
        ratio=latency_ms / 8.0,
        reference_ms=8.0,
        median_ms=latency_ms + 1.0,
        p90_ms=None,
        samples=100,
        drift=0.0,
        load=None,
        quality=quality,
    )


def test_one_session_is_taken_as_it_is() -> None:
    for one in (measured(4.0), measured(4.0, "noisy")):
        assert combine([one]) == one


def test_what_is_invalid_is_never_used() -> None:
    assert combine([]) is None
    assert combine([measured(4.0, "invalid")] * 3) is None
    assert combine([measured(9.0, "invalid"), measured(4.0), measured(9.0, "invalid")]) == measured(4.0)
    assert combine([measured(9.0, "invalid"), measured(4.0, "noisy")]) == measured(4.0, "noisy")


def test_noisy_sessions_count_where_there_is_no_good_one() -> None:
    assert combine([measured(9.0, "noisy"), measured(4.0), measured(9.0, "noisy")]) == measured(4.0)
    both = combine([measured(9.0, "noisy"), measured(5.0, "noisy")])
    assert both
    assert (both.latency_ms, both.quality, both.sessions) == (7.0, "noisy", 2)


def test_several_sessions_are_their_median() -> None:
    sessions = [measured(4.1), measured(4.0), measured(4.6)]
    combined = combine(sessions)
    assert combined
    assert (combined.latency_ms, combined.median_ms) == (4.1, pytest.approx(5.1))
    assert combined.ratio * combined.reference_ms == pytest.approx(combined.latency_ms)
    assert (combined.sessions, combined.samples, combined.quality) == (3, 300, "good")
    again = combine(sessions[::-1])
    assert again
    assert again.latency_ms == combined.latency_ms


@pytest.mark.parametrize(
    ("sessions", "error_ms"),
    [
        ([measured(4.0, error_ms=0.3), measured(4.02, error_ms=0.3)], 0.3),  # they agree better than each knows
        ([measured(4.0, error_ms=0.1), measured(5.0, error_ms=0.1)], 0.5),
        ([measured(4.0), measured(4.1), measured(4.8)], 0.7),
        ([measured(4.0, error_ms=0.1), measured(4.0, error_ms=0.2), measured(4.0, error_ms=0.9)], 0.2),
    ],
)
def test_the_interval_is_the_larger_of_that_within_a_session_and_that_between_them(
    sessions: list[Latency], error_ms: float
) -> None:
    combined = combine(sessions)
    assert combined
    assert combined.error_ms == pytest.approx(error_ms)
    assert (combined.ci_low_ms + combined.ci_high_ms) / 2 == pytest.approx(combined.latency_ms)


def test_sessions_of_several_calibrations_agree_on_one() -> None:
    before, after = measured(4.0), replace(measured(4.0), reference_ms=4.0, ratio=1.0)
    combined = combine([before, after])
    assert combined
    assert (combined.latency_ms, combined.ratio, combined.reference_ms) == (4.0, 1.0, 4.0)

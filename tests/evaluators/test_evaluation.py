from __future__ import annotations

import pytest
import torch

from evaluators.evaluation import Failure, failure_from


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

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators import Complexity, Failure, Latency, Target, latency
from evaluators.latency import Calibration, Session, fingerprint, fingerprint_of
from evaluators.measurement import MeasurementRequest, calibrate_target, check_target, measure
from search_spaces import Architecture, Level, Neck, Stage, Stem
from search_spaces.image_size import ImageSize

CPU = Target("cpu")


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def request_(session: Callable[..., Session], tmp_path: Path) -> MeasurementRequest:
    """On the made-up device."""
    p2, p3, p4, p5 = (Stage("Conv", "ShuffleV2", width, 1) for width in (16, 16, 24, 24))
    architecture = Architecture(
        "yolov8",
        Stem("Conv", 8),
        (p2, p3, p4, p5),
        Neck("Conv", (Level("C2f", 16, 1), Level("C2f", 24, 1), Level("C2f", 24, 1))),
    )
    calibration = Calibration(fingerprint_of(latency.identity_of(CPU, session().identity)), ImageSize(32, 32), 8.0, 0.0)
    return MeasurementRequest(architecture, 2, ImageSize(32, 32), ((CPU, calibration),), tmp_path / "new" / "scratch")


@pytest.mark.usefixtures("quick_probe")
def test_size_first_then_latency(request_: MeasurementRequest) -> None:
    known = Calibration(fingerprint(CPU), ImageSize(32, 32), 8.0, 0.0)
    complexity, measured = measure(replace(request_, targets=((CPU, known),)))
    assert isinstance(complexity, Complexity)
    assert complexity.params > 0
    assert isinstance(measured, Latency)
    assert measured.fingerprint == known.fingerprint
    assert list(request_.scratch.iterdir()) == []


def test_without_targets_there_is_only_the_size(request_: MeasurementRequest) -> None:
    (complexity,) = measure(replace(request_, targets=()))
    assert isinstance(complexity, Complexity)


def test_a_size_that_is_known_is_not_measured_again(request_: MeasurementRequest) -> None:
    assert list(measure(replace(request_, targets=(), sized=True))) == []


@pytest.mark.usefixtures("own_cache", "any_models")
@pytest.mark.parametrize(("flags", "wanted", "sessions"), [([], 1, 1), ([], 5, 5), (["drift"], 1, 1 + latency.RETRIES)])
def test_each_target_has_its_sessions(
    flags: list[str],
    wanted: int,
    sessions: int,
    probe_that_prints: Callable[..., None],
    request_: MeasurementRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latency, "PAUSE_S", 0.0)
    probe_that_prints(flags=flags)
    second = (Target("second"), request_.targets[0][1])
    _, *latencies = measure(replace(request_, targets=(*request_.targets, second), sessions=wanted))
    assert [item.target for item in latencies] == ["cpu"] * sessions + ["second"] * sessions


@pytest.mark.usefixtures("own_cache", "any_models", "probe_that_prints")
def test_a_target_that_fails_says_so_and_the_next_is_measured(
    probe_that_prints: Callable[..., None], request_: MeasurementRequest
) -> None:
    probe_that_prints()
    other = (Target("other", threads=2), request_.targets[0][1])
    _, failure, measured = measure(replace(request_, targets=(other, *request_.targets)))
    assert isinstance(failure, Failure)
    assert (failure.cause, failure.target) == ("device_changed", "other")
    assert isinstance(measured, Latency)
    assert measured.target == "cpu"


def test_an_architecture_that_cannot_be_built(request_: MeasurementRequest) -> None:
    broken = replace(request_.architecture, attention="NoSuchBlock")
    (failure,) = measure(replace(request_, architecture=broken))
    assert isinstance(failure, Failure)
    assert failure.cause == "build"
    assert "NoSuchBlock" in failure.message


def test_a_network_that_cannot_be_exported(request_: MeasurementRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(latency, "reference_files", lambda target, imgsz: {})
    monkeypatch.setattr(latency, "_format", lambda target: "onnx")
    monkeypatch.setattr(latency, "export", fail)
    complexity, failure = measure(request_)
    assert isinstance(complexity, Complexity)
    assert (failure.cause, failure.message) == ("export", "RuntimeError: no such operator")
    assert "in fail" in failure.detail


@pytest.mark.usefixtures("own_cache", "any_models")
def test_a_network_that_cannot_be_timed(request_: MeasurementRequest, scripted_probe: Callable[[str], None]) -> None:
    scripted_probe("sys.exit('Illegal instruction')")
    complexity, failure = measure(request_)
    assert isinstance(complexity, Complexity)
    assert (failure.cause, failure.target) == ("crash", "cpu")
    assert failure.message.endswith("Illegal instruction")


@pytest.mark.usefixtures("own_cache", "any_models")
def test_calibration_or_what_went_wrong(
    probe_that_prints: Callable[..., None], scripted_probe: Callable[[str], None], request_: MeasurementRequest
) -> None:
    known = request_.targets[0][1].fingerprint, {"machine": "made up"}
    probe_that_prints(reference_ms=4.0)
    (calibration,) = calibrate_target(CPU, ImageSize(32, 32), *known)
    assert calibration == replace(request_.targets[0][1], reference_ms=4.0)
    probe_that_prints(identity={"machine": "another"})
    (failure,) = calibrate_target(CPU, ImageSize(32, 32), *known)
    assert isinstance(failure, Failure)
    assert (failure.cause, failure.target) == ("device_changed", "cpu")
    assert "machine was made up, is another" in failure.message
    scripted_probe("sys.exit('Illegal instruction')")
    (failure,) = calibrate_target(CPU, ImageSize(32, 32), *known)
    assert isinstance(failure, Failure)
    assert (failure.cause, failure.target) == ("crash", "cpu")


@pytest.mark.usefixtures("own_cache")
def test_a_calibration_whose_reference_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(latency, "_format", lambda target: "onnx")
    monkeypatch.setattr(latency, "export", fail)
    (failure,) = calibrate_target(CPU, ImageSize(32, 32), "0123456789abcdef", {})
    assert isinstance(failure, Failure)
    assert (failure.cause, failure.message) == ("error", "RuntimeError: no such operator")


@pytest.mark.usefixtures("own_cache", "any_models")
def test_a_target_is_checked_by_the_reference(
    probe_that_prints: Callable[..., None], scripted_probe: Callable[[str], None], request_: MeasurementRequest
) -> None:
    probe_that_prints()
    assert list(check_target(*request_.targets[0])) == []
    scripted_probe("say(event='failure', cause='device_busy', message='others', detail='')")
    (failure,) = check_target(*request_.targets[0])
    assert (failure.cause, failure.message, failure.target) == ("device_busy", "others", "cpu")

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators import Complexity, Failure, Latency, Target, latency
from evaluators.latency import Calibration
from evaluators.measurement import SESSIONS, MeasurementRequest, calibrate_target, measure
from search_spaces import Architecture, Level, Neck, Stage, Stem

CPU = Target("cpu")


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def request_(tmp_path: Path) -> MeasurementRequest:
    p2, p3, p4, p5 = (Stage("Conv", "ShuffleV2", width, 1) for width in (16, 16, 24, 24))
    architecture = Architecture(
        "yolov8",
        Stem("Conv", 8),
        (p2, p3, p4, p5),
        Neck("Conv", (Level("C2f", 16, 1), Level("C2f", 24, 1), Level("C2f", 24, 1))),
    )
    calibration = Calibration("0123456789abcdef", 32, 8.0, 0.0)
    return MeasurementRequest(architecture, 2, 32, ((CPU, calibration),), tmp_path / "new" / "scratch")


@pytest.mark.usefixtures("quick_probe")
def test_size_first_then_latency(request_: MeasurementRequest) -> None:
    complexity, *latencies = measure(request_)
    assert isinstance(complexity, Complexity)
    assert complexity.params > 0
    assert 1 <= len(latencies) <= SESSIONS
    assert all(isinstance(item, Latency) and item.fingerprint == "0123456789abcdef" for item in latencies)
    assert list(request_.scratch.iterdir()) == []


def test_without_targets_there_is_only_the_size(request_: MeasurementRequest) -> None:
    (complexity,) = measure(replace(request_, targets=()))
    assert isinstance(complexity, Complexity)


@pytest.mark.usefixtures("own_cache", "any_models")
@pytest.mark.parametrize(("flags", "sessions"), [([], 1), (["drift"], SESSIONS)])
def test_a_noisy_measurement_is_repeated_once(
    flags: list[str], sessions: int, probe_that_prints: Callable[..., None], request_: MeasurementRequest
) -> None:
    probe_that_prints(flags=flags)
    second = (Target("second"), request_.targets[0][1])
    _, *latencies = measure(replace(request_, targets=(*request_.targets, second)))
    assert [item.target for item in latencies] == ["cpu"] * sessions + ["second"] * sessions


def test_an_architecture_that_cannot_be_built(request_: MeasurementRequest) -> None:
    broken = replace(request_.architecture, attention="NoSuchBlock")
    (failure,) = measure(replace(request_, architecture=broken))
    assert isinstance(failure, Failure)
    assert failure.cause == "build"
    assert "NoSuchBlock" in failure.message


def test_a_network_that_cannot_be_exported(request_: MeasurementRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(latency, "reference_onnx", lambda imgsz: Path("not read"))
    monkeypatch.setattr(latency, "export_onnx", fail)
    complexity, failure = measure(request_)
    assert isinstance(complexity, Complexity)
    assert (failure.cause, failure.message) == ("export", "RuntimeError: no such operator")
    assert "in fail" in failure.detail


@pytest.mark.usefixtures("own_cache", "any_models")
def test_a_network_that_cannot_be_timed(request_: MeasurementRequest, scripted_probe: Callable[[str], None]) -> None:
    scripted_probe("sys.exit('Illegal instruction')")
    complexity, failure = measure(request_)
    assert isinstance(complexity, Complexity)
    assert failure.cause == "latency"
    assert failure.message.endswith("Illegal instruction")


@pytest.mark.usefixtures("own_cache", "any_models")
def test_calibration_or_what_went_wrong(
    probe_that_prints: Callable[..., None], scripted_probe: Callable[[str], None]
) -> None:
    probe_that_prints(reference_ms=4.0)
    (calibration,) = calibrate_target(CPU, 32)
    assert calibration == Calibration(latency.fingerprint(CPU), 32, 4.0, 0.0)
    scripted_probe("sys.exit('Illegal instruction')")
    (failure,) = calibrate_target(CPU, 32)
    assert failure.cause == "latency"

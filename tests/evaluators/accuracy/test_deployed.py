from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluators.accuracy import validation
from evaluators.accuracy.checkpoints import load_checkpoint
from evaluators.accuracy.deployed import validate_deployed
from evaluators.accuracy.request import DeployedRequest
from evaluators.accuracy.validation import validate_both
from evaluators.errors import LatencyError
from evaluators.export import export
from evaluators.host_lock import training
from evaluators.latency import fingerprint, identify
from evaluators.probe import measuring
from evaluators.target import Target, get_runtime
from search_spaces.image_size import ImageSize


def scores(request: DeployedRequest, scratch: Path, progress: Callable[[int], None] = lambda images: None) -> Any:
    """In this process, where faults can be put in."""
    file_format = get_runtime(request.target.runtime).model_format(request.target.precision, identify(request.target))
    with training() as slot:
        return SimpleNamespace(**validate_both(request, file_format, slot, scratch, progress))


@pytest.mark.parametrize("name", ["yolov8", "yolov8 at 96x64", "yolo26"])
def test_an_exact_export_is_as_accurate_as_its_network(
    name: str, trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path
) -> None:
    request = trained_on_squares(name)
    found = scores(request, tmp_path)
    assert found.images == 40
    assert found.torch_map50_95 > 0.1
    assert found.map50_95 == pytest.approx(found.torch_map50_95, abs=0.002)
    assert found.map50 == pytest.approx(found.torch_map50, abs=0.002)
    if not request.imgsz.is_square:  # a training validates squares at the shape of their images, others as here
        trained = load_checkpoint(request.checkpoint)["history"][-1]["map50_95"]
        assert found.torch_map50_95 == pytest.approx(trained, abs=0.002)


@pytest.mark.parametrize(
    ("name", "runtime", "precision", "tolerance"),
    [
        ("yolov8", "onnxruntime", "int8", 0.08),
        ("yolov8", "openvino", "fp32", 0.002),
        ("yolov8 at 96x64", "openvino", "int8", 0.08),
        ("yolov8 at 96x64", "ncnn", "fp32", 0.002),
        ("yolo26", "ncnn", "fp32", 0.002),  # which cannot choose the best detections
    ],
)
def test_every_runtime_computes_what_was_trained(
    name: str,
    runtime: str,
    precision: str,
    tolerance: float,
    trained_on_squares: Callable[[str], DeployedRequest],
    tmp_path: Path,
) -> None:
    target = Target(runtime, runtime, precision=precision)
    found = scores(replace(trained_on_squares(name), target=target), tmp_path)
    assert found.map50_95 == pytest.approx(found.torch_map50_95, abs=tolerance)


def test_a_file_that_mixes_the_colours_up_is_found_out(
    trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_bgr(network: Any, *rest: Any) -> Any:
        broken = deepcopy(network)
        broken.model[0].conv.weight.data = broken.model[0].conv.weight.data.flip(1)
        return export(broken, *rest)

    monkeypatch.setattr(validation, "export", export_bgr)
    found = scores(trained_on_squares("yolov8"), tmp_path)
    assert found.map50_95 < found.torch_map50_95 - 0.2  # int8 may differ by 0.08


def test_the_file_of_another_device_is_validated_by_the_runtime_here(
    trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(
        trained_on_squares("yolov8"), target=Target("nano", ssh="me@nowhere.invalid", python="/no/python")
    )
    data, empty = Path(request.dataset.file).parent, tmp_path / "empty"
    for cache_file in data.rglob("*.cache"):
        cache_file.unlink()
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    empty.mkdir()
    monkeypatch.chdir(empty)
    seen: list[int] = []

    found = validate_deployed(request, seen.append)

    assert found.map50_95 == pytest.approx(found.torch_map50_95, abs=0.002)
    assert (found.target, found.precision, found.epochs, found.images) == ("nano", "fp32", 6, 40)
    assert found.fingerprint == fingerprint(Target("nano"))
    assert seen == [16, 32, 40]
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before
    assert list(empty.iterdir()) == []


def test_a_runtime_that_is_not_here_is_named_in_one_line(trained_on_squares: Callable[[str], DeployedRequest]) -> None:
    request = replace(trained_on_squares("yolov8"), target=Target("gpu", device="tensorrt"))
    with pytest.raises(LatencyError, match=r"^onnxruntime cannot be used here: .*TensorrtExecutionProvider$") as caught:
        validate_deployed(request)
    assert caught.value.cause == "unsupported"


def test_a_runtime_that_only_times_networks_has_no_accuracy(
    trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_times = SimpleNamespace(load=lambda model, settings: SimpleNamespace(samples=lambda: ([1.0], [])))
    monkeypatch.setattr(validation, "get_runtime", lambda name: only_times)
    with pytest.raises(LatencyError, match="its outputs cannot be had") as caught:
        scores(trained_on_squares("yolov8"), tmp_path)
    assert caught.value.cause == "unsupported"


def test_a_runtime_that_crashes_is_an_error_like_any_other(
    trained_on_squares: Callable[[str], DeployedRequest],
) -> None:
    def crash(images: int) -> None:
        (child,) = multiprocessing.active_children()
        os.kill(child.pid or 0, signal.SIGSEGV)

    with pytest.raises(LatencyError, match="ended by SIGSEGV") as caught:
        validate_deployed(trained_on_squares("yolov8"), crash)
    assert caught.value.cause == "crash"


def test_what_goes_wrong_in_the_process_is_told_in_one_line(
    trained_on_squares: Callable[[str], DeployedRequest],
) -> None:
    request = trained_on_squares("yolov8")
    with pytest.raises(LatencyError, match=r"^FileNotFoundError: .* is gone$") as caught:
        validate_deployed(replace(request, checkpoint=request.checkpoint.with_name("none.pt")))
    assert "validate_both" in caught.value.detail


def test_it_gives_way_to_a_measurement_between_two_images(
    trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path
) -> None:
    measured_after: list[int] = []
    done: list[int] = []

    def measure() -> None:
        with measuring():
            measured_after.append(done[-1])

    def progress(images: int) -> None:
        done.append(images)
        if images == 16:
            other.start()
            time.sleep(0.3)  # until it waits for the machine

    other = threading.Thread(target=measure)
    scores(trained_on_squares("yolov8"), tmp_path, progress)
    other.join()
    assert measured_after == [16]
    assert done[-1] == 40


def test_int8_is_calibrated_on_training_images_as_validation_has_them(
    trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def take(network: Any, imgsz: ImageSize, file_format: str, folder: Path, images: Any) -> None:
        given.extend(images)
        raise InterruptedError

    monkeypatch.setattr(validation, "export", take)
    monkeypatch.setattr(validation, "CALIBRATION_IMAGES", 12)
    with pytest.raises(InterruptedError):
        scores(trained_on_squares("yolov8"), tmp_path)

    def original(number: int) -> Any:
        path = Path(trained_on_squares("yolov8").dataset.train[0]) / f"{number:03d}.png"
        return np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255

    assert [(image.shape, image.dtype) for image in given] == [((1, 3, 64, 64), np.float32)] * 12
    np.testing.assert_allclose(given[3][0], original(24))  # 64 × 64: every eighth of 96
    np.testing.assert_allclose(given[2][0, :, :, 8:56], original(16))  # narrower: grey on both sides
    np.testing.assert_allclose(given[2][0, :, :, :8], 114 / 255)

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

import evaluators.runtimes
from evaluators.export import export_onnx
from evaluators.target import list_runtimes

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel


@pytest.fixture(params=list_runtimes())
def runtime(request: pytest.FixtureRequest) -> ModuleType:
    """The runtime's file, loaded as the probe loads it."""
    path = Path(evaluators.runtimes.__file__).parent / f"{request.param}.py"
    spec = importlib.util.spec_from_file_location("probed_runtime", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{request.param} is not installed: {error}")
    return module


@pytest.fixture
def detector_file(small_detector: DetectionModel, tmp_path: Path) -> Path:
    export_onnx(small_detector, 32, tmp_path / "detector.onnx")
    return tmp_path / "detector.onnx"


def test_identity_can_be_printed(runtime: ModuleType) -> None:
    identity = runtime.identity()
    assert {"runtime", "version"} <= set(identity)
    assert json.loads(json.dumps(identity)) == identity


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_again_and_again(runtime: ModuleType, threads: int, detector_file: Path) -> None:
    run: Callable[[], bool] = runtime.load(str(detector_file), threads)
    assert [run() for _ in range(3)] == [True, True, True]


def test_says_that_an_output_is_not_finite(runtime: ModuleType, small_detector: DetectionModel, tmp_path: Path) -> None:
    small_detector.model[0].conv.weight.data.fill_(float("nan"))
    export_onnx(small_detector, 32, tmp_path / "broken.onnx")
    assert runtime.load(str(tmp_path / "broken.onnx"), 1)() is False


def test_a_file_that_is_no_model_is_an_error(runtime: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    with pytest.raises(Exception, match=r"garbage\.onnx"):
        runtime.load(str(tmp_path / "garbage.onnx"), 1)

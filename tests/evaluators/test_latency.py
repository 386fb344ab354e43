from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaluators import latency
from evaluators.export import export_onnx
from evaluators.host_lock import measuring, training
from evaluators.latency import Calibration, LatencyError, calibrate, fingerprint, measure_latency, reference_onnx
from evaluators.target import Target

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

CPU = Target("cpu")
IMAGE_SIZE = 32
KNOWN = Calibration("0123456789abcdef", IMAGE_SIZE, reference_ms=8.0, spread=0.0)


def test_measures_with_the_real_runtime(small_detector: DetectionModel, tmp_path: Path) -> None:
    result = measure_latency(small_detector, CPU, KNOWN, tmp_path)
    assert (result.target, result.fingerprint, result.imgsz) == ("cpu", KNOWN.fingerprint, IMAGE_SIZE)
    assert result.reference_ms == 8.0
    assert result.latency_ms == result.ratio * 8.0
    assert 0 < result.ci_low_ms <= result.latency_ms <= result.ci_high_ms
    assert result.p90_ms is not None
    assert 0 < result.median_ms <= result.p90_ms
    assert result.samples >= 64
    assert result.quality == ("noisy" if result.flags else "good")
    assert not list(tmp_path.glob("candidate*"))


@pytest.mark.usefixtures("quick_probe")
def test_another_image_size_and_more_threads(small_detector: DetectionModel, tmp_path: Path) -> None:
    result = measure_latency(small_detector, Target("cpu2", threads=2), replace(KNOWN, imgsz=64), tmp_path)
    assert (result.target, result.imgsz) == ("cpu2", 64)
    assert result.latency_ms == result.ratio * 8.0


@pytest.mark.usefixtures("quick_probe")
def test_calibrates_with_the_real_runtime() -> None:
    calibration = calibrate(CPU, IMAGE_SIZE)
    assert (calibration.fingerprint, calibration.imgsz) == (fingerprint(CPU), IMAGE_SIZE)
    assert calibration.reference_ms > 0
    assert calibration.spread >= 0


@pytest.mark.usefixtures("own_cache", "any_models")
def test_a_calibration_is_the_median_of_fresh_sessions(scripted_probe: Callable[[str], None], tmp_path: Path) -> None:
    times = tmp_path / "times"
    times.write_text("9.0 5.0 6.0")
    scripted_probe(f"""
import json, pathlib
first, *others = pathlib.Path({str(times)!r}).read_text().split()
pathlib.Path({str(times)!r}).write_text(" ".join(others))
print(json.dumps({{"finite": True, "reference_ms": float(first)}}))
""")
    calibration = calibrate(CPU, IMAGE_SIZE)
    assert calibration.reference_ms == 6.0
    assert calibration.spread == 0.5
    assert times.read_text() == ""


@pytest.mark.usefixtures("own_cache", "any_models")
@pytest.mark.parametrize(("flags", "quality"), [([], "good"), (["drift"], "noisy"), (["drift", "x"], "noisy")])
def test_figures_are_those_of_the_probe(
    flags: list[str], quality: str, probe_that_prints: Callable[..., None], tmp_path: Path
) -> None:
    probe_that_prints(flags=flags, p90_ms=None, load=None)
    result = measure_latency(None, CPU, KNOWN, tmp_path)  # type: ignore[arg-type]  # not exported
    assert (result.latency_ms, result.ci_low_ms, result.ci_high_ms) == (12.0, 1.4 * 8.0, 1.7 * 8.0)
    assert (result.ratio, result.reference_ms, result.median_ms) == (1.5, 8.0, 3.0)
    assert (result.p90_ms, result.load) == (None, None)
    assert (result.samples, result.drift) == (100, 0.01)
    assert (result.flags, result.quality) == (tuple(flags), quality)


@pytest.mark.usefixtures("quick_probe")
def test_a_file_that_the_runtime_refuses(
    small_detector: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference_onnx(IMAGE_SIZE)
    monkeypatch.setattr(latency, "export_onnx", lambda model, imgsz, path: path.write_bytes(b"garbage"))
    with pytest.raises(LatencyError, match=r"^onnxruntime ended with status 1: .*InvalidProtobuf") as caught:
        measure_latency(small_detector, CPU, KNOWN, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("candidate*"))


@pytest.mark.usefixtures("own_cache", "any_models")
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "onnxruntime printed no result"),
        ("print('Segmentation fault')", "onnxruntime printed no result"),
        ('print(\'{"finite": false, "flags": []}\')', "onnxruntime computed values that are not finite"),
        ("sys.exit('first line\\nthe reason\\n')", "onnxruntime ended with status 1: the reason"),
        ("sys.exit(3)", "onnxruntime ended with status 3: no message"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "onnxruntime ended with status -9: no message"),
        ("sys.stderr.write('x' * 10**6); sys.exit(1)", f"onnxruntime ended with status 1: {'x' * 200}"),
    ],
)
def test_a_probe_that_fails_is_an_error_of_one_line(
    code: str, message: str, scripted_probe: Callable[[str], None], tmp_path: Path
) -> None:
    scripted_probe(code)
    with pytest.raises(LatencyError) as caught:
        measure_latency(None, CPU, KNOWN, tmp_path)  # type: ignore[arg-type]  # not exported
    assert str(caught.value) == message
    assert not list(tmp_path.glob("candidate*"))


@pytest.mark.usefixtures("own_cache", "any_models")
def test_a_probe_that_fails_before_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe.py").write_text("raise SystemExit('no such runtime here')")
    monkeypatch.setattr(latency, "PROBE", tmp_path / "probe.py")
    with pytest.raises(LatencyError, match=r"^onnxruntime ended with status 1: no such runtime here$"):
        measure_latency(None, CPU, KNOWN, tmp_path)  # type: ignore[arg-type]  # not exported


@pytest.mark.usefixtures("own_cache", "any_models")
def test_a_probe_that_hangs_is_ended(
    scripted_probe: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_probe("import time; time.sleep(1000)")
    monkeypatch.setattr(latency, "TIMEOUT_S", 0.5)
    with pytest.raises(LatencyError, match=r"^onnxruntime did not finish within 0.5 s$"):
        measure_latency(None, CPU, KNOWN, tmp_path)  # type: ignore[arg-type]  # not exported


@pytest.mark.usefixtures("own_cache", "any_models")
def test_waiting_for_the_machine_is_no_hang(
    probe_that_prints: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe_that_prints()
    monkeypatch.setattr(latency, "TIMEOUT_S", 1.5)
    begun = threading.Event()

    def long_batch() -> None:
        with training():
            begun.set()
            time.sleep(2.5)

    thread = threading.Thread(target=long_batch)
    thread.start()
    try:
        assert begun.wait(30)
        assert measure_latency(None, CPU, KNOWN, tmp_path).ratio == 1.5  # type: ignore[arg-type]  # not exported
    finally:
        thread.join()


PROBE_THAT_TRIES_THE_LOCK = """
import fcntl, pathlib, sys
path = pathlib.Path({lock!r})
path.parent.mkdir(parents=True, exist_ok=True)

def is_held():
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

while_loading = is_held()
print("ready", flush=True)
sys.stdin.readline()
sys.exit(f"loading: {{while_loading}}, timing: {{is_held()}}")
"""


@pytest.mark.usefixtures("any_models")
def test_the_machine_is_held_while_timing_only(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "probe.py").write_text(PROBE_THAT_TRIES_THE_LOCK.format(lock=str(own_cache / "locks" / "main")))
    monkeypatch.setattr(latency, "PROBE", tmp_path / "probe.py")
    with pytest.raises(LatencyError, match=r"loading: False, timing: True$"):
        measure_latency(None, CPU, KNOWN, tmp_path)  # type: ignore[arg-type]  # not exported
    with measuring():  # released: this would wait for ever
        pass


def test_the_reference_is_made_once_and_always_the_same(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    path = reference_onnx(IMAGE_SIZE)
    assert path.is_relative_to(own_cache)
    assert torch.equal(torch.random.get_rng_state(), state)
    content = path.read_bytes()

    path.unlink()
    torch.manual_seed(2)
    assert reference_onnx(IMAGE_SIZE).read_bytes() == content

    def exported_again(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(latency, "export_onnx", exported_again)
    assert reference_onnx(IMAGE_SIZE) == path


def test_image_sizes_have_references_of_their_own(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "export_onnx", lambda model, imgsz, path: path.write_text(str(imgsz)))
    assert [reference_onnx(imgsz).read_text() for imgsz in (32, 64)] == ["32", "64"]


def test_a_fingerprint_says_what_the_time_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint(CPU)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert fingerprint(replace(CPU, name="another name")) == first
    others = [fingerprint(replace(CPU, threads=2)), fingerprint(replace(CPU, precision="int8"))]
    for name, value in (("PROTOCOL", "other"), ("REFERENCE", "other"), ("version", lambda name: "0.0")):
        with monkeypatch.context() as patch:
            patch.setattr(latency, name, value)
            others.append(fingerprint(CPU))
    with monkeypatch.context() as patch:
        patch.setattr(latency, "_cpu_model", lambda: "another")
        others.append(fingerprint(CPU))
    assert len({first, *others}) == 1 + len(others)


def test_the_exporter_of_candidates_and_reference_is_the_one_for_deployment() -> None:
    assert latency.export_onnx is export_onnx

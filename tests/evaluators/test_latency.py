from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from evaluators import latency, probe
from evaluators.connections import _exchange
from evaluators.errors import LatencyError
from evaluators.latency import (
    Calibration,
    Session,
    calibrate,
    calibration_from,
    check_same,
    differences,
    fingerprint,
    fingerprint_of,
    identify,
    measure_latency,
    reference_files,
    time_files,
)
from evaluators.target import Target
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

CPU = Target("cpu")
IMAGE_SIZE = ImageSize(32, 32)
NO_NETWORK: Any = None  # where nothing is exported

MakeSession = Callable[..., Session]


@pytest.fixture
def known(session: MakeSession) -> Calibration:
    """That of the made-up device on which the reference takes 8 ms."""
    identity = latency.identity_of(CPU, session().identity)
    return Calibration(fingerprint_of(identity), IMAGE_SIZE, reference_ms=8.0, spread=0.0)


def caused_by(error: pytest.ExceptionInfo[LatencyError]) -> str:
    """The cause of an error whose message is one line."""
    assert "\n" not in str(error.value)
    return error.value.cause


# With the real runtime


@pytest.mark.usefixtures("quick_probe")
def test_measures_with_the_real_runtime(small_detector: DetectionModel, tmp_path: Path) -> None:
    known = Calibration(fingerprint(CPU), IMAGE_SIZE, reference_ms=8.0, spread=0.0)
    (result,) = measure_latency(small_detector, CPU, known, tmp_path)
    assert (result.target, result.fingerprint, result.imgsz) == ("cpu", known.fingerprint, IMAGE_SIZE)
    assert result.reference_ms == 8.0
    assert result.latency_ms == result.ratio * 8.0
    assert 0 < result.ci_low_ms <= result.latency_ms <= result.ci_high_ms
    assert result.ratio < 1  # it is a quarter of the reference
    assert result.samples > 0
    assert result.conditions["settings"]["threads"] == 1
    assert result.conditions["seconds"]["export"] > 0
    assert not list(tmp_path.glob("export-*"))


@pytest.mark.usefixtures("quick_probe")
def test_another_image_size_and_more_threads(small_detector: DetectionModel, tmp_path: Path) -> None:
    target = Target("cpu2", threads=2)
    known = Calibration(fingerprint(target), ImageSize(64, 64), reference_ms=8.0, spread=0.0)
    (result,) = measure_latency(small_detector, target, known, tmp_path)
    assert (result.target, result.imgsz) == ("cpu2", ImageSize(64, 64))
    assert result.latency_ms == result.ratio * 8.0
    assert result.conditions["settings"]["threads"] == 2


@pytest.mark.usefixtures("quick_probe")
def test_with_decoding_and_suppression_it_takes_longer(small_detector: DetectionModel, tmp_path: Path) -> None:
    ratios = []
    for target in (CPU, replace(CPU, postprocess=True)):
        known = Calibration(fingerprint(target), IMAGE_SIZE, reference_ms=8.0, spread=0.0)
        ratios += [one.ratio for one in measure_latency(small_detector, target, known, tmp_path)]
    alone, together = ratios
    assert together > 1.05 * alone


@pytest.mark.usefixtures("quick_probe")
def test_calibrates_with_the_real_runtime() -> None:
    calibration = calibrate(CPU, IMAGE_SIZE)
    assert (calibration.fingerprint, calibration.imgsz) == (fingerprint(CPU), IMAGE_SIZE)
    assert calibration.reference_ms > 0
    assert calibration.spread >= 0


@pytest.mark.usefixtures("quick_probe")
def test_a_file_that_the_runtime_refuses(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"garbage")
    with pytest.raises(LatencyError, match="InvalidProtobuf") as caught:
        time_files(CPU, {"model.onnx": tmp_path / "model.onnx"}, reference_files(CPU, IMAGE_SIZE))
    assert caused_by(caught) == "crash"
    assert "Traceback" in caught.value.detail


# What a device may answer


@pytest.mark.usefixtures("own_cache", "any_models")
@pytest.mark.parametrize(
    ("flags", "quality"),
    [
        ([], "good"),
        (["a flag of tomorrow"], "good"),
        (["drift", "other"], "noisy"),
        (["enqueue_bound"], "noisy"),
        (["throttled"], "invalid"),
        (["drift", "throttled"], "invalid"),
    ],
)
def test_figures_are_those_of_the_probe(
    flags: list[str],
    quality: str,
    probe_that_prints: Callable[..., None],
    known: Calibration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probe_that_prints(flags=flags, p90_ms=None, load=None, before={"throttle": {"oc1": 1.0}}, throttled_by=["oc1"])
    monkeypatch.setattr(latency, "RETRIES", 0)
    result = next(measure_latency(NO_NETWORK, CPU, known, tmp_path))
    assert (result.latency_ms, result.ci_low_ms, result.ci_high_ms) == (12.0, 1.4 * 8.0, 1.7 * 8.0)
    assert (result.ratio, result.reference_ms, result.median_ms) == (1.5, 8.0, 3.0)
    assert (result.p90_ms, result.load) == (None, None)
    assert (result.samples, result.drift) == (100, 0.01)
    assert (result.flags, result.quality, result.sessions) == (tuple(flags), quality, 1)
    assert result.conditions["before"] == {"throttle": {"oc1": 1.0}}
    assert result.conditions["throttled_by"] == ["oc1"]
    assert result.conditions["first_ms"] == 9.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ratio", math.nan),
        ("ratio", -1.5),
        ("ratio", 0.0),
        ("ratio_low", math.inf),
        ("median_ms", "3.0"),
        ("median_ms", True),
        ("reference_ms", 60_001.0),
        ("p90_ms", 0.0),
        ("samples", 0),
        ("samples", 1.5),
        ("drift", -0.1),
        ("load", math.nan),
        ("flags", ["x" * 41]),
        ("flags", "drift"),
        ("flags", [1]),
        ("identity", None),
        ("before", {"clocks": "fast"}),
    ],
)
def test_what_makes_no_sense_is_refused(
    field: str, value: Any, session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = session().model_dump() | {field: value}
    monkeypatch.setattr(latency, "connection", lambda target: lambda *_: answer)
    with pytest.raises(LatencyError, match=f"^the device's {field}.* makes no sense: ") as caught:
        time_files(CPU, {}, {})
    assert caused_by(caught) == "garbage"


@pytest.mark.parametrize("field", [name for name, field in Session.model_fields.items() if field.is_required()])
def test_a_figure_that_is_missing_is_refused(field: str, session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = session().model_dump()
    del answer[field]
    monkeypatch.setattr(latency, "connection", lambda target: lambda *_: answer)
    with pytest.raises(LatencyError, match=f"^the device's {field} makes no sense: ") as caught:
        time_files(CPU, {}, {})
    assert caused_by(caught) == "garbage"


def test_a_newer_probe_may_say_more(session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = session().model_dump() | {"shapes": [[1, 84, 100]]}
    monkeypatch.setattr(latency, "connection", lambda target: lambda *_: answer)
    assert time_files(CPU, {}, {}) == session()


def test_the_job_of_a_session(session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def perform(*arguments: Any) -> dict[str, Any]:
        seen.extend(arguments)
        return session().model_dump()

    monkeypatch.setattr(latency, "connection", lambda target: perform)
    target = Target("device", threads=3, exclusive=True, postprocess=True)
    names = ("model.ncnn.param", "model.ncnn.bin")
    time_files(target, {name: Path("a") / name for name in names}, {name: Path("b") / name for name in names})
    _, job, files = seen
    assert json.loads(json.dumps(job)) == job
    assert (job["action"], job["postprocess"], job["settings"]["threads"]) == ("measure", True, 3)
    assert set(job["limits"]) == {"waiting", "loading", "measuring"}
    assert {name: str(path) for name, path in files.items()} == {
        **{name: f"a/{name}" for name in names},
        **{name.replace("model.", "reference."): f"b/{name}" for name in names},
    }


# Retries


class Device:
    """Answers one session after the other, and counts the seconds between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.sessions: list[Session] = []
        self.pauses_s: list[float] = []
        monkeypatch.setattr(latency, "time_files", lambda *_: self.sessions.pop(0))
        monkeypatch.setattr(latency, "time", SimpleNamespace(sleep=self.pauses_s.append, monotonic=lambda: 0.0))


@pytest.fixture
def device(own_cache: Path, any_models: None, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


GOOD: dict[str, Any] = {}
NOISY = {"flags": ["foreign_load"]}
THROTTLED = {"flags": ["throttled"]}
SLOWER = {"reference_ms": 8.0 * 1.06}
FASTER = {"reference_ms": 8.0 * 0.94}
OFF = {"reference_ms": 8.0 * 1.2}
SHORT, LONG = latency.PAUSE_S, latency.COOL_S


@pytest.mark.parametrize(
    ("answers", "qualities", "pauses_s"),
    [
        ([GOOD], ["good"], []),
        ([{"reference_ms": 8.3}], ["good"], []),
        ([NOISY, GOOD], ["noisy", "good"], [SHORT]),
        ([NOISY, NOISY, GOOD], ["noisy", "noisy", "good"], [SHORT, 2 * SHORT]),
        ([NOISY, NOISY, NOISY], ["noisy"] * 3, [SHORT, 2 * SHORT]),
        ([THROTTLED, GOOD], ["invalid", "good"], [LONG]),
        ([THROTTLED, NOISY, THROTTLED], ["invalid", "noisy", "invalid"], [LONG, 2 * SHORT]),
        ([SLOWER], ["good"], []),
        ([FASTER], ["good"], []),
        ([OFF, GOOD], ["noisy", "good"], [SHORT]),
        ([OFF, SLOWER], ["noisy", "good"], [SHORT]),
        ([OFF, OFF, OFF], ["noisy"] * 3, [SHORT, 2 * SHORT]),
    ],
)
def test_a_session_that_is_not_good_is_repeated(
    answers: list[dict[str, Any]],
    qualities: list[str],
    pauses_s: list[float],
    device: Device,
    session: MakeSession,
    known: Calibration,
    tmp_path: Path,
) -> None:
    device.sessions = [session(**answer) for answer in answers]
    measured = list(measure_latency(NO_NETWORK, CPU, known, tmp_path))
    assert ([one.quality for one in measured], device.pauses_s) == (qualities, pauses_s)
    assert device.sessions == []


@pytest.mark.parametrize(
    ("answers", "pauses_s"),
    [([GOOD], []), ([SLOWER, GOOD], [SHORT]), ([FASTER, SLOWER, FASTER], [SHORT, 2 * SHORT])],
)
def test_a_device_of_its_own_that_drifts_is_looked_at_again(
    answers: list[dict[str, Any]], pauses_s: list[float], device: Device, session: MakeSession, tmp_path: Path
) -> None:
    target = Target("jetson", exclusive=True)
    known = Calibration(fingerprint_of(latency.identity_of(target, session().identity)), IMAGE_SIZE, 8.0, 0.0)
    device.sessions = [session(**answer) for answer in answers]
    measured = list(measure_latency(NO_NETWORK, target, known, tmp_path))
    assert ([one.quality for one in measured], device.pauses_s) == (["good"] * len(answers), pauses_s)
    assert device.sessions == []


def test_a_device_that_is_throttled_each_time_gives_no_latency(
    device: Device, session: MakeSession, known: Calibration, tmp_path: Path
) -> None:
    device.sessions = [session(**THROTTLED, throttled_by=["oc1"])] * 3
    measuring = measure_latency(NO_NETWORK, CPU, known, tmp_path)
    assert [next(measuring).quality for _ in range(3)] == ["invalid"] * 3
    with pytest.raises(LatencyError, match=r"^cpu slowed down in each session \(oc1\); let it cool down$") as caught:
        next(measuring)
    assert caused_by(caught) == "throttled"


@pytest.mark.parametrize(
    ("answers", "qualities"),
    [
        ([GOOD] * 3, ["good"] * 3),
        ([GOOD, NOISY, GOOD, GOOD], ["good", "noisy", "good", "good"]),
        ([NOISY] * 5, ["noisy"] * 5),
    ],
)
def test_several_good_sessions_may_be_wanted(
    answers: list[dict[str, Any]],
    qualities: list[str],
    device: Device,
    session: MakeSession,
    known: Calibration,
    tmp_path: Path,
) -> None:
    device.sessions = [session(**answer) for answer in answers]
    measured = measure_latency(NO_NETWORK, CPU, known, tmp_path, sessions=3)
    assert [one.quality for one in measured] == qualities
    assert device.sessions == []


@pytest.mark.parametrize(("answer", "flag"), [(SLOWER, "drifted"), (FASTER, "drifted"), (OFF, "off_calibration")])
def test_a_reference_off_its_calibrated_time_is_flagged(
    answer: dict[str, Any], flag: str, device: Device, session: MakeSession, known: Calibration, tmp_path: Path
) -> None:
    device.sessions = [session(**answer)]
    one = next(measure_latency(NO_NETWORK, CPU, known, tmp_path))
    assert one.flags == (flag,)
    assert one.conditions["reference_off"] == pytest.approx(answer["reference_ms"] / 8.0 - 1, abs=1e-4)
    assert one.latency_ms == 12.0  # the ratio corrects it


def test_a_device_of_its_own_that_stays_off_is_not_believed(
    device: Device, session: MakeSession, tmp_path: Path
) -> None:
    target = Target("jetson", exclusive=True)
    known = Calibration(fingerprint_of(latency.identity_of(target, session().identity)), IMAGE_SIZE, 8.0, 0.0)
    device.sessions = [session(**OFF)] * 3
    measuring = measure_latency(NO_NETWORK, target, known, tmp_path)
    assert [next(measuring).quality for _ in range(2)] == ["noisy", "noisy"]
    with pytest.raises(LatencyError, match=r"takes \+20% of its calibrated time on jetson .*--recalibrate") as caught:
        next(measuring)
    assert caused_by(caught) == "drifted"


def test_another_device_gives_no_latency(
    device: Device, session: MakeSession, known: Calibration, tmp_path: Path
) -> None:
    device.sessions = [session(identity={"machine": "another"})]
    with pytest.raises(LatencyError, match="target cpu is not the device") as caught:
        list(measure_latency(NO_NETWORK, CPU, known, tmp_path))
    assert caused_by(caught) == "device_changed"
    assert not list(tmp_path.glob("export-*"))


# Identity


def test_a_device_is_the_same_only_if_all_that_counts_is(session: MakeSession, known: Calibration) -> None:
    said = session().identity
    check_same(CPU, latency.identity_of(CPU, said), known)
    check_same(CPU, latency.identity_of(replace(CPU, name="another name"), dict(reversed(said.items()))), known)
    for target, machine in (
        (CPU, said | {"version": "0.0"}),
        (replace(CPU, threads=2), said),
        (replace(CPU, precision="int8"), said),
        (replace(CPU, exclusive=True), said),
        (replace(CPU, postprocess=True), said),
    ):
        with pytest.raises(LatencyError, match="not the device, or not set up, as it was") as caught:
            check_same(CPU, latency.identity_of(target, machine), known)
        assert caused_by(caught) == "device_changed"


def test_a_throttled_device_is_not_taken_for_another(
    device: Device, session: MakeSession, known: Calibration, tmp_path: Path
) -> None:
    slow = {"identity": {"machine": "clocks held back"}, "flags": ["throttled"], "throttled_by": ["cpufreq-cpu0"]}
    device.sessions = [session(**slow), session()]
    throttled, good = measure_latency(NO_NETWORK, CPU, known, tmp_path)
    assert (throttled.quality, good.quality) == ("invalid", "good")


STORED = {  # by an earlier nas-yolo
    **{"machine": "orin", "max_khz": 1984000.0, "gpu": "Orin (nvgpu), 540.4.0\nWARNING: infoROM is corrupted"},
    **{"power_mode": "NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0"},
    **{"l4t": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"},
}
TOLD_NOW = {
    **{"machine": "orin", "max_khz": 1984000.0, "gpu": "Orin (nvgpu), 540.4.0"},
    **{"power_mode": "MAXN", "l4t": "36.4.3"},
}


def test_an_identity_that_was_stored_as_text_is_read_as_it_is_told_now() -> None:
    assert latency.read_identity(STORED) == TOLD_NOW
    assert latency.read_identity(TOLD_NOW) == TOLD_NOW
    assert latency.read_identity({"machine": "a", "gpu": "No devices were found"}) == {"machine": "a"}
    plain = {"machine": "a", "cores": 2, "threads": 1}
    assert latency.read_identity(plain) == plain


def test_a_device_that_did_not_change_is_the_same_as_one_that_was_stored_as_text() -> None:
    known = Calibration(fingerprint_of(STORED), IMAGE_SIZE, 8.0, 0.0, latency.read_identity(STORED))
    check_same(CPU, TOLD_NOW, known)
    with pytest.raises(LatencyError, match=r"\(power_mode was MAXN, is 15W\)$"):
        check_same(CPU, TOLD_NOW | {"power_mode": "15W"}, known)


@pytest.mark.usefixtures("quick_probe")
def test_a_fingerprint_says_what_the_time_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = identify(CPU)
    assert {"machine", "cores", "runtime", "version", "threads", "precision", "protocol", "reference"} <= set(identity)
    first = fingerprint_of(identity)
    assert len(first) == 16
    assert int(first, 16) >= 0
    for name in ("PROTOCOL", "REFERENCE"):
        with monkeypatch.context() as patch:
            patch.setattr(latency, name, "other")
            assert fingerprint(CPU) != first
    assert fingerprint(replace(CPU, name="another name")) == first


@pytest.mark.usefixtures("change_probe")
def test_a_runtime_that_takes_long_to_import_is_no_device_that_is_away(
    scripted_runtime: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_runtime()
    runtime = Path(latency.get_runtime("any").__file__)
    runtime.write_text(runtime.read_text() + "\ntime.sleep(2.0)\n")
    monkeypatch.setattr(_exchange, "START_S", 1.5)
    assert identify(CPU)["runtime"] == "made up"


def test_differences_are_named() -> None:
    before, after = {"governor": "performance", "l4t": "R36", "same": 1}, {"governor": "powersave", "same": 1, "new": 2}
    text = differences(before, after)
    assert text == "governor was performance, is powersave, l4t was R36, is not told now, new was not told, is 2"
    assert differences(before, before) == ""
    assert len(differences({}, {"long": "x" * 1000})) == 300


# Calibration


@pytest.mark.usefixtures("own_cache", "any_models")
def test_a_calibration_is_the_median_of_fresh_sessions(
    session: MakeSession, known: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Any] = []
    times = [9.0, 5.0, 6.0, 6.3, 5.9]

    def time_one(target: Target, model: Any, reference: Any, timing_s: float | None) -> Session:
        files.append((model, reference, timing_s))
        return session(reference_ms=times[len(files) - 1])

    monkeypatch.setattr(latency, "time_files", time_one)
    calibration = calibrate(CPU, IMAGE_SIZE)
    assert calibration == Calibration(known.fingerprint, IMAGE_SIZE, 6.0, pytest.approx(0.5))
    reference = reference_files(CPU, IMAGE_SIZE)
    assert files == [(reference, reference, latency.BRIEF_S)] * 5
    files.clear()
    assert len(list(latency.reference_sessions(CPU, IMAGE_SIZE))) == 5
    assert files == [(reference, reference, None)] * 5  # where ratios count


def test_a_device_that_changes_while_it_is_calibrated(session: MakeSession) -> None:
    sessions = [session(), session(identity={"machine": "another"})]
    with pytest.raises(LatencyError, match=r"as it was \(machine was made up, is another\)$") as caught:
        calibration_from(CPU, IMAGE_SIZE, sessions)
    assert caused_by(caught) == "device_changed"


def test_a_device_that_keeps_silent_while_it_is_calibrated(session: MakeSession) -> None:
    told = session().identity | {"gpu": "NVIDIA T4, 535.1"}
    with pytest.raises(LatencyError, match=r"\(gpu was NVIDIA T4, 535\.1, is not told now\)") as caught:
        calibration_from(CPU, IMAGE_SIZE, [session(identity=told), session(), session(identity=told)])
    assert caused_by(caught) == "unreachable"


def test_a_device_that_is_throttled_while_it_is_calibrated(session: MakeSession) -> None:
    sessions = [session(), session(throttled_by=["oc1"])]
    with pytest.raises(LatencyError, match=r"was throttled while it was calibrated: .*oc1") as caught:
        calibration_from(CPU, IMAGE_SIZE, sessions)
    assert caused_by(caught) == "throttled"


# The reference


@pytest.fixture
def formats(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those that were exported to; the file says which, and the image size."""
    exported: list[str] = []

    def export(network: Any, imgsz: ImageSize, format: str, folder: Path) -> dict[str, Path]:
        exported.append(format)
        (folder / "model.x").write_text(f"{format} {imgsz}")
        return {"model.x": folder / "model.x"}

    monkeypatch.setattr(latency, "export", export)
    monkeypatch.setattr(latency, "_format", lambda target: f"for {target.precision}")
    return exported


def test_formats_and_image_sizes_have_references_of_their_own(formats: list[str]) -> None:
    for precision in ("fp32", "int8"):
        for imgsz in (ImageSize(32, 32), ImageSize(64, 64), ImageSize(64, 32)):
            (path,) = reference_files(Target("device", precision=precision), imgsz).values()
            assert path.read_text() == f"for {precision} {imgsz}"
    reference_files(Target("another", precision="int8"), ImageSize(64, 64))
    assert formats == ["for fp32"] * 3 + ["for int8"] * 3


def test_a_reference_that_cannot_be_made_leaves_nothing(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(network: Any, imgsz: ImageSize, format: str, folder: Path) -> None:
        (folder / "half").write_text("a half")
        raise RuntimeError("no such operator")

    monkeypatch.setattr(latency, "export", export)
    monkeypatch.setattr(latency, "_format", lambda target: "onnx")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no such operator"):
            reference_files(CPU, IMAGE_SIZE)
    assert list((own_cache / "reference").iterdir()) == []


def test_whoever_makes_the_reference_first_wins(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(network: Any, imgsz: ImageSize, format: str, folder: Path) -> None:
        (folder / "model.onnx").write_text("second")
        other = own_cache / "reference" / f"{latency.REFERENCE}-32-onnx-{latency.PROTOCOL}"
        other.mkdir()
        (other / "model.onnx").write_text("first")

    monkeypatch.setattr(latency, "export", export)
    monkeypatch.setattr(latency, "_format", lambda target: "onnx")
    (path,) = reference_files(CPU, IMAGE_SIZE).values()
    assert path.read_text() == "first"
    assert list((own_cache / "reference").iterdir()) == [path.parent]


def test_the_reference_is_always_the_same(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(latency, "_format", lambda target: "onnx")
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    (path,) = reference_files(CPU, IMAGE_SIZE).values()
    assert path.is_relative_to(own_cache)
    assert torch.equal(torch.random.get_rng_state(), state)
    content = path.read_bytes()

    path.unlink()
    path.parent.rmdir()
    torch.manual_seed(2)
    assert reference_files(CPU, IMAGE_SIZE)[path.name].read_bytes() == content


def test_nothing_is_exported_while_somebody_measures(formats: list[str]) -> None:
    import threading

    exporting = threading.Thread(target=reference_files, args=(CPU, IMAGE_SIZE))
    with probe.measuring():
        exporting.start()
        exporting.join(0.5)
        assert formats == []
    exporting.join(60)
    assert formats == ["for fp32"]


def test_a_device_is_asked_for_its_format_once(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("asked for its format")
    asked: list[Target] = []

    def answer(target: Target) -> dict[str, Any]:
        if not asked:
            asked.append(target)
            raise LatencyError("unreachable", "away")
        asked.append(target)
        return {}

    monkeypatch.setattr(latency, "identify", answer)
    with pytest.raises(LatencyError, match="away"):
        latency._format(target)
    assert [latency._format(target) for _ in range(3)] == ["onnx"] * 3
    assert len(asked) == 2

"""`nas-yolo target ...` as its users meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from evaluators import latency
from evaluators.connections import _exchange
from evaluators.latency import Calibration
from evaluators.target import BUILT_IN, Target, own_targets
from nas_yolo.cli import main
from search_spaces.image_size import ImageSize
from storage import Repository

FIGURES: dict[str, Any] = {
    **{"ratio": 1.0, "ratio_low": 0.99, "ratio_high": 1.01, "median_ms": 8.0, "p90_ms": 8.5, "reference_ms": 8.0},
    **{"samples": 100, "drift": 0.01, "load": 0.0, "flags": [], "first_ms": 9.0, "load_s": 0.1, "seconds": 2.0},
    **{"settings": {}, "identity": {"machine": "made up"}},
}
DEVICE = """
import itertools, json, pathlib, sys

def serve():
    job = json.loads(sys.stdin.buffer.readline())
    print("\\n" + job["marker"])
    result = {identity!r}
    if job["action"] == "measure":
        count = pathlib.Path({count!r})
        number = len(count.read_text()) if count.exists() else 0
        count.write_text("x" * (number + 1))
        result = {{**{figures!r}, "identity": result, "reference_ms": {times!r}[number % len({times!r})]}}
    print(json.dumps({{"event": "result", "result": result}}), flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "targets.yaml"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a device of known speed and state in the place of this one."""

    def make(identity: dict[str, Any], times: list[float], **figures: Any) -> None:
        path, count = tmp_path / "device.py", str(tmp_path / "count")
        path.write_text(DEVICE.format(identity=identity, times=times, figures=FIGURES | figures, count=count))
        monkeypatch.setattr(_exchange, "PROBE", path)
        monkeypatch.setattr(latency, "_format", lambda target: "onnx")
        monkeypatch.setattr(latency, "CALIBRATION_SESSIONS", len(times))

    monkeypatch.setattr(latency, "reference_files", lambda target, imgsz: {"model.onnx": tmp_path / "model.onnx"})
    return make


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["target", *(str(argument) for argument in arguments)])


def refused(result: Result, *fragments: str) -> None:
    """Exit 1 with one line that contains the fragments."""
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    for fragment in fragments:
        assert fragment in lines[0]


def test_a_target_is_added_with_what_was_given_and_says_how_to_check_it(file: Path) -> None:
    result = invoke("add", "pi", "--ssh", "pi@host", "--port", 2222, "--threads", 4, "--targets", file)
    assert result.exit_code == 0, result.output
    assert f"check it with: nas-yolo target check pi --targets {file}" in result.output
    assert yaml.safe_load(file.read_text()) == {
        "pi": {
            **{"runtime": "onnxruntime", "device": "cpu", "exclusive": True},
            **{"threads": 4, "ssh": "pi@host", "port": 2222},
        }
    }
    assert invoke("add", "far", "--ray", "--shared", "--python", "/opt/py", "--targets", file).exit_code == 0
    assert own_targets(file) == {
        "pi": Target("pi", threads=4, ssh="pi@host", port=2222, exclusive=True),
        "far": Target("far", ray=True, python="/opt/py"),
    }


def test_an_ssh_configuration_is_found_from_every_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").write_text("Host pi\n")
    assert invoke("add", "pi", "--ssh", "pi", "--ssh-config", "config", "--targets", file).exit_code == 0
    assert own_targets(file)["pi"].ssh_config == str(tmp_path / "config")


def test_without_a_file_the_user_s_own_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    result = invoke("add", "mine", "--exclusive")
    assert result.output.endswith("check it with: nas-yolo target check mine\n")
    assert own_targets(tmp_path / "nas-yolo" / "targets.yaml") == {"mine": Target("mine", exclusive=True)}


def test_what_is_there_is_not_overwritten_by_accident(file: Path) -> None:
    invoke("add", "mine", "--threads", 2, "--targets", file)
    refused(invoke("add", "mine", "--targets", file), "there is a target 'mine'", "2 threads", "give --replace")
    assert own_targets(file)["mine"].threads == 2
    assert invoke("add", "mine", "--replace", "--targets", file).exit_code == 0
    assert own_targets(file)["mine"] == Target("mine")
    refused(invoke("add", "cpu", "--replace", "--targets", file), "target 'cpu' is built in; choose another name")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--runtime", "onxruntime"), "did you mean 'onnxruntime'?"),
        (("--threads", 0), "threads of target 'a' must be a whole number from 1 to 256"),
        (("--precision", "fp4"), "precision of target 'a' must be fp32 or"),
        (("--device", "tpu"), "device of target 'a' must be cpu or"),
        (("--ssh", "-oProxyCommand=x"), "ssh of target 'a' must be like user@host"),
        (("--ssh", "host", "--ray"), "by ssh or by ray, not both"),
        (("--port", 22), "port of target 'a' needs ssh"),
        (("--ssh", "host", "--python", "a;b"), "python of target 'a' must be like"),
        (("--ssh", "host", "--ssh-config", "/no/such"), "/no/such does not exist"),
    ],
)
def test_a_bad_value_is_refused_and_nothing_is_written(options: tuple[object, ...], message: str, file: Path) -> None:
    refused(invoke("add", "a", *options, "--targets", file), message)
    assert not file.exists()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(invoke("add", "a", "--targets", tmp_path / "file" / "targets.yaml"), "cannot be written")


def test_all_are_listed_with_where_they_come_from(file: Path) -> None:
    invoke("add", "pi", "--ssh", "pi@host", "--targets", file)
    rows = {row["name"]: row for row in json.loads(invoke("list", "--targets", file, "--json").stdout)}
    assert list(rows) == [*BUILT_IN, "pi"]
    assert (rows["cpu"]["where"], rows["cpu"]["from"]) == ("here", "built in")
    assert (rows["pi"]["where"], rows["pi"]["from"]) == ("ssh pi@host", str(file))
    assert (rows["pi"]["runtime"], rows["pi"]["precision"], rows["pi"]["threads"]) == ("onnxruntime", "fp32", 1)
    people = invoke("list", "--targets", file)
    assert people.exit_code == 0
    assert all(name in people.output for name in ("cpu", "pi", "onnxruntime", "ssh pi@host", "built in"))


def test_one_is_removed_and_the_others_stay(file: Path) -> None:
    refused(invoke("remove", "none", "--targets", file), "targets.yaml does not exist")
    for name in ("one", "two"):
        invoke("add", name, "--targets", file)
    refused(invoke("remove", "thwo", "--targets", file), "unknown target 'thwo'; did you mean 'two'?")
    refused(invoke("remove", "cpu", "--targets", file), "target 'cpu' is built in and stays")
    assert invoke("remove", "one", "--targets", file).exit_code == 0
    assert list(own_targets(file)) == ["two"]
    assert invoke("remove", "two", "--targets", file).exit_code == 0
    refused(invoke("remove", "two", "--targets", file), "unknown target 'two'; you have added none")


@pytest.mark.usefixtures("quick_probe")
def test_this_machine_is_checked_and_calibrated_once(database: str) -> None:
    result = invoke("check", "cpu", "--imgsz", 64, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["identity"]["runtime"] == "onnxruntime"
    assert len(document["sessions"]) == latency.CALIBRATION_SESSIONS
    assert document["calibration"] == {"stored_ms": None, "off": None, "written": True}
    kept = Repository(database).calibration(document["fingerprint"], ImageSize(64, 64))
    assert kept == Calibration(
        document["fingerprint"], ImageSize(64, 64), document["reference_ms"], document["reference_spread"]
    )

    people = invoke("check", "cpu", "--imgsz", 64)
    assert people.exit_code == 0, people.output
    assert people.stdout.startswith("cpu: onnxruntime fp32, 1 thread, here\n")
    assert f"calibration: {kept.reference_ms:.3g} ms, now " in people.stdout
    assert Repository(database).calibration(document["fingerprint"], ImageSize(64, 64)) == kept


def test_how_well_measurements_repeat_and_how_far_off_the_calibration_is(device: Any, database: str) -> None:
    device({"machine": "made up", "version": "1.0"}, [10.0, 10.5, 9.9])
    first = json.loads(invoke("check", "cpu", "--imgsz", 64, "--json").stdout)
    assert first["reference_ms"] == 10.0
    assert first["reference_spread"] == pytest.approx(0.05)
    assert first["ratio_spread"] == 0.0
    assert first["warnings"] == []

    device({"machine": "made up", "version": "1.0"}, [12.0, 12.0, 12.0])
    result = invoke("check", "cpu", "--imgsz", 64)
    assert "  machine      made up\n" in result.stdout
    assert "reference at 64 px: 12 ms in 3 fresh sessions, within ±0.0%" in result.stdout
    assert "calibration: 10 ms, now +20.0%\n" in result.stdout
    assert "warning: the reference takes +20% of its calibrated time on cpu" in result.stdout
    assert Repository(database).calibration(first["fingerprint"], 64).reference_ms == 10.0

    result = invoke("check", "cpu", "--imgsz", 64, "--recalibrate")
    assert "calibration: 10 ms, now +20.0%; replaced, and what was measured is given anew" in result.stdout
    assert "warning" not in result.stdout
    assert Repository(database).calibration(first["fingerprint"], 64).reference_ms == 12.0


def test_what_makes_a_device_slow_is_said(device: Any, database: str) -> None:
    device(
        {"power_mode": "MODE_15W", "governor": "schedutil", "model": "a [b] \x1b[31mboard"},
        [10.0],
        load=1.4,
        flags=["foreign_load", "wide_interval"],
        before={"clocks": {"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 1.5e6, "gpu": 9e8}},
        after={"temperature_c": {"gpu": 80.0, "soc": 40.0}},
    )
    result = invoke("check", "cpu", "--imgsz", 64)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stdout.splitlines() if line.startswith("warning: ")]
    for fragment, line in zip(
        (
            "the power mode is MODE_15W, not MAXN; to choose it: sudo nvpmodel -m",
            "the governor is schedutil",
            "other processes kept up to 1.4 cores busy",
            "it is at 80 °C after 1 sessions",
            "of 1 sessions some are doubtful: wide_interval in 1",
        ),
        warnings,
        strict=True,
    ):
        assert fragment in line
    assert "before       1.50 GHz" in result.stdout
    assert "after        80 °C" in result.stdout
    assert "a [b] \ufffd[31mboard" in result.stdout  # shown as it is, less what would steer a terminal


def test_a_throttled_device_is_not_calibrated(device: Any, database: str) -> None:
    device({"machine": "made up"}, [10.0, 10.0], flags=["throttled"], throttled_by=["oc1_event_cnt"])
    refused(invoke("check", "cpu", "--imgsz", 64), "target cpu cannot be measured", "throttled", "oc1_event_cnt")
    assert Repository(database).calibration(latency.fingerprint(Target("cpu")), 64) is None


def test_a_target_that_is_not_there(database: str, file: Path) -> None:
    file.write_text("away: {python: /no/such/python}\n")
    refused(
        invoke("check", "away", "--targets", file),
        "target away cannot be measured: /no/such/python cannot be started: No such file or directory",
    )
    refused(invoke("check", "jetson", "--targets", file), "unknown target 'jetson'", "nas-yolo target add jetson")
    refused(invoke("check", "cpu", "--imgsz", 100), "multiple of 32")


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("{}", "No module named 'ncnn'; install it: pip install 'nas-yolo[ncnn]'"),
        ("{python: PYTHON}", "No module named 'ncnn'; install it: PYTHON -m pip install ncnn"),
    ],
)
def test_a_runtime_that_is_not_installed(
    target: str, advice: str, database: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    runtime = tmp_path / "runtime.py"
    runtime.write_text("""def identity(settings):\n    raise ModuleNotFoundError("No module named 'ncnn'")\n""")
    monkeypatch.setattr("evaluators.runtimes.onnxruntime.__file__", str(runtime))
    file.write_text(f"here: {target}\n".replace("PYTHON", sys.executable))
    refused(invoke("check", "here", "--targets", file), advice.replace("PYTHON", sys.executable))


def test_profile_reads_the_file_too(file: Path) -> None:
    file.write_text("away: {python: /no/such/python}\n")
    command = ["profile", "yolov8n", "--imgsz", "64", "--target", "away", "--targets", str(file)]
    refused(CliRunner().invoke(main, command), "latency on away was not measured", "cannot be started")


def test_the_doctor_names_own_targets_and_what_is_missing(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    invoke("add", "pi", "--ssh", "pi@host")
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ncnn" else there(name))
    checks = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    (targets,) = [check for check in checks if check["what"] == "targets"]
    assert targets["ok"]
    assert "ncnn (to have it: pip install 'nas-yolo[ncnn]')" in targets["found"]
    assert targets["found"].endswith("pi (ssh pi@host)")

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluators import probe

RUNTIME = Path(probe.__file__).parent / "runtimes" / "onnxruntime.py"
FIGURES = {
    *("ratio", "ratio_low", "ratio_high", "median_ms", "p90_ms", "reference_ms", "first_ms"),
    *("samples", "drift", "load", "flags", "seconds", "finite", "identity"),
}


class Machine:
    """A clock that only models and other processes' work move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.foreign_s = 0.0

    def model(self, ms: float | Callable[[], float]) -> Callable[[], bool]:
        def run() -> bool:
            self.now += (ms() if callable(ms) else ms) / 1e3
            return True

        return run


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    monkeypatch.setattr(probe, "own_core_seconds", lambda: machine.now)
    monkeypatch.setattr(probe, "busy_core_seconds", lambda: machine.now + machine.foreign_s)
    return machine


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], (3.0, 3.0, 3.0)),
        ([1.0, 2.0], (1.5, 1.0, 2.0)),
        ([1.0, 2.0, 30.0], (2.0, 1.0, 30.0)),
        # Of 20, the 6th and the 15th: 95.9 %, as in any table.
        ([float(number) for number in range(1, 21)], (10.5, 6.0, 15.0)),
        ([float(number) for number in range(1, 102)], (51.0, 41.0, 61.0)),
    ],
)
def test_median_interval(values: list[float], expected: tuple[float, float, float]) -> None:
    assert probe.median_interval(values) == expected
    shuffled = random.Random(0).sample(values, len(values))
    assert probe.median_interval(shuffled) == expected
    assert probe.median_interval(values[::-1]) == expected


@pytest.mark.parametrize("n", [20, 25, 30, 50, 101, 300, 1000])
def test_the_interval_covers_the_median_in_about_95_percent(n: int) -> None:
    _, low, high = probe.median_interval([float(rank) for rank in range(n)])
    # The median lies between two order statistics if that many of n fair coins show heads.
    coverage = sum(math.comb(n, heads) for heads in range(int(low) + 1, int(high) + 1)) / 2**n
    assert 0.935 < coverage < 0.97


def test_the_figures_of_a_steady_machine(machine: Machine) -> None:
    result = probe.measure(machine.model(2.0), machine.model(1.0))
    assert result["flags"] == []
    for figure in ("ratio", "ratio_low", "ratio_high", "median_ms", "p90_ms", "first_ms"):
        assert result[figure] == pytest.approx(2.0), figure
    assert result["reference_ms"] == pytest.approx(1.0)
    assert result["drift"] == pytest.approx(0.0, abs=1e-9)
    assert result["load"] == pytest.approx(0.0, abs=1e-9)
    assert result["samples"] >= probe.MIN_BLOCKS * probe.BLOCK_RUNS
    assert result["seconds"] >= probe.MIN_S


def test_the_speed_of_the_machine_cancels_out(machine: Machine) -> None:
    # It is a third slower every other second, or so.
    slower = lambda: 1.0 + (machine.now % 2.0 > 1.3) / 3  # noqa: E731
    result = probe.measure(machine.model(lambda: 3.0 * slower()), machine.model(lambda: 2.0 * slower()))
    assert result["ratio"] == pytest.approx(1.5)
    assert result["flags"] == []


def test_p90_is_that_of_the_candidate(machine: Machine) -> None:
    runs = iter(range(10**9))
    result = probe.measure(machine.model(lambda: 5.0 if next(runs) % 5 == 0 else 2.0), machine.model(1.0))
    assert result["median_ms"] == pytest.approx(2.0)
    assert result["p90_ms"] == pytest.approx(5.0)


def test_a_drift_is_flagged(machine: Machine) -> None:
    result = probe.measure(machine.model(lambda: 2.0 + 0.1 * (machine.now > 1.2)), machine.model(1.0))
    assert result["drift"] > probe.TOO_MUCH_DRIFT
    assert "drift" in result["flags"]


def test_a_wide_interval_is_flagged_and_timing_ends_nonetheless(machine: Machine) -> None:
    noise = random.Random(0)
    result = probe.measure(machine.model(lambda: 10.0 ** noise.random()), machine.model(1.0))
    assert "wide_interval" in result["flags"]
    assert result["ratio_low"] < result["ratio"] < result["ratio_high"]
    assert probe.MAX_S <= result["seconds"] < probe.MAX_S + 1


def test_work_of_others_is_flagged(machine: Machine) -> None:
    def disturbed() -> float:
        machine.foreign_s += 0.001  # of the 2 ms
        return 2.0

    result = probe.measure(machine.model(disturbed), machine.model(2.0))
    assert result["load"] == pytest.approx(0.25, abs=0.01)
    assert probe.measure(machine.model(2.0), machine.model(2.0))["flags"] == []
    machine_of_others = probe.measure(machine.model(disturbed), machine.model(disturbed))
    assert machine_of_others["load"] == pytest.approx(0.5, abs=0.01)
    assert machine_of_others["flags"] == ["foreign_load"]


def test_no_load_where_the_system_does_not_tell(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "busy_core_seconds", lambda: None)
    result = probe.measure(machine.model(2.0), machine.model(1.0))
    assert result["load"] is None
    assert result["flags"] == []


def test_a_very_slow_model_ends_with_few_samples(machine: Machine) -> None:
    result = probe.measure(machine.model(2000.0), machine.model(1000.0))
    assert result["ratio"] == pytest.approx(2.0)
    assert result["samples"] < 64
    assert result["p90_ms"] is None
    assert "few_samples" in result["flags"]


def test_busy_and_own_seconds_of_this_machine_only_grow() -> None:
    own, busy = probe.own_core_seconds(), probe.busy_core_seconds()
    assert sum(range(300_000)) > 0
    assert probe.own_core_seconds() >= own > 0
    if busy is not None:
        assert probe.busy_core_seconds() >= busy > 0


def write_model(path: Path, *operators: str) -> Path:
    """A chain of operators on a (1, 3, 8, 8) image, then one small convolution."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3), dtype=np.float32), "weight")
    names = ["images", *(f"x{number}" for number in range(len(operators)))]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(operators)]
    nodes.append(helper.make_node("Conv", [names[-1], "weight"], ["output0"]))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 8, 8))
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, (1, 4, 6, 6))
    graph = helper.make_graph(nodes, "tiny", [image], [output], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run_probe(model: Path, reference: Path, *more: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", probe.__file__, "--model", str(model), "--reference", str(reference)]
    command += ["--runtime", str(RUNTIME), *more]
    return subprocess.run(command, input=answer, capture_output=True, text=True, timeout=120, check=False)


def test_by_hand_it_prints_one_line_of_json(tmp_path: Path) -> None:
    model, reference = write_model(tmp_path / "a.onnx", "Relu", "Exp"), write_model(tmp_path / "b.onnx", "Relu")
    done = run_probe(model, reference)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    assert set(result) == FIGURES
    assert result["finite"] is True
    assert result["identity"]["runtime"] == "onnxruntime"
    assert 0 < result["ratio_low"] <= result["ratio"] <= result["ratio_high"]
    assert 0 < result["median_ms"] <= result["p90_ms"]
    assert result["samples"] >= probe.MIN_BLOCKS * probe.BLOCK_RUNS


@pytest.mark.parametrize("broken", ["model", "reference"])
def test_an_output_that_is_not_finite_is_not_timed(broken: str, tmp_path: Path) -> None:
    models = {"model": write_model(tmp_path / "a.onnx"), "reference": write_model(tmp_path / "b.onnx")}
    write_model(models[broken], "Neg", "Sqrt")
    done = run_probe(**models)
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["finite"] is False
    assert result["flags"] == ["wrong_output"]
    assert "ratio" not in result


def test_it_says_when_it_is_ready_and_waits(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a.onnx", "Neg", "Sqrt")
    done = run_probe(model, model, "--wait", answer="go\n")
    ready, line = done.stdout.splitlines()
    assert ready == "ready"
    assert json.loads(line)["finite"] is False


def test_a_missing_file_ends_it(tmp_path: Path) -> None:
    done = run_probe(tmp_path / "missing.onnx", write_model(tmp_path / "b.onnx"))
    assert done.returncode != 0
    assert done.stdout == ""
    assert "missing.onnx" in done.stderr.splitlines()[-1]

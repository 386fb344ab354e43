from __future__ import annotations

import errno
import itertools
import json
import math
import os
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
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper

from evaluators import probe
from evaluators.connections import _exchange
from evaluators.latency import Session
from evaluators.probe import ProbeError, Stopwatch

Model = Callable[[], None]


class Machine:
    """A clock that only models, interruptions and other processes' work move."""

    def __init__(self) -> None:
        self.now = self.computed = self.foreign_s = 0.0
        self.runs = 0

    def model(self, ms: float | Callable[[], float], interrupted_ms: float | Callable[[], float] = 0.0) -> Model:
        def run() -> None:
            self.runs += 1
            seconds = (ms() if callable(ms) else ms) / 1e3
            self.computed += seconds
            self.now += seconds + (interrupted_ms() if callable(interrupted_ms) else interrupted_ms) / 1e3

        return run


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    clock = SimpleNamespace(perf_counter=lambda: machine.now, process_time=lambda: machine.computed)
    monkeypatch.setattr(probe, "time", clock)
    monkeypatch.setattr(probe, "own_core_seconds", lambda: machine.computed)
    monkeypatch.setattr(probe, "busy_core_seconds", lambda: machine.computed + machine.foreign_s)
    return machine


def measure(candidate: Any, reference: Any, computing: bool = False, spare: float = 0.0) -> dict[str, Any]:
    return probe.measure(candidate, reference, Stopwatch(computing), spare)


# Statistics


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


@pytest.mark.parametrize("n", [20, 25, 30, 50, 101, probe.MANY, probe.MANY + 1, 300, 1000])
def test_the_interval_covers_the_median_in_about_95_percent(n: int) -> None:
    _, low, high = probe.median_interval([float(rank) for rank in range(n)])
    # The median lies between two order statistics if that many of n fair coins show heads.
    coverage = sum(math.comb(n, heads) for heads in range(int(low) + 1, int(high) + 1)) / 2**n
    assert 0.935 < coverage < 0.97


@pytest.mark.parametrize("n", [probe.FEW_BLOCKS, probe.MIN_BLOCKS])
def test_with_the_fewest_blocks_too_the_interval_covers_the_median_in_95_percent(n: int) -> None:
    _, low, high = probe.median_interval([float(rank) for rank in range(n)])
    assert sum(math.comb(n, heads) for heads in range(int(low) + 1, int(high) + 1)) / 2**n >= 0.95


@pytest.mark.parametrize(("samples", "p90_ms"), [(63, None), (64, 57.0), (101, 91.0)])
def test_a_90th_percentile_needs_64_samples(samples: int, p90_ms: float | None) -> None:
    wall_ms = [float(number) for number in range(1, samples + 1)]
    assert probe.summary([2.0], [1.0], [2.0] * 20, wall_ms[::-1], [])["p90_ms"] == p90_ms


@pytest.mark.parametrize("ms", [0.0, 0.009, 60_001.0, math.nan, math.inf])
@pytest.mark.parametrize("place", range(3))
def test_a_time_that_cannot_be_is_no_figure(ms: float, place: int) -> None:
    candidate_ms, reference_ms, wall_ms = ([ms if place == here else 2.0] for here in range(3))
    with pytest.raises(ProbeError, match=f"of {ms:g} ms is not believable") as caught:
        probe.summary(candidate_ms, reference_ms, [ms / 2, ms / 2], wall_ms, [])
    assert caught.value.cause == "garbage"


# What counts


def test_on_one_thread_interruptions_do_not_count(machine: Machine) -> None:
    run = machine.model(2.0, interrupted_ms=3.0)
    assert Stopwatch(computing=True)(run) == pytest.approx((2.0, 5.0))
    assert Stopwatch(computing=False)(run) == pytest.approx((5.0, 5.0))


def test_a_runtime_with_a_clock_of_its_own_is_believed(machine: Machine) -> None:
    def run() -> float:
        machine.now += 0.1
        return 1.25

    assert Stopwatch(computing=False)(run) == (1.25, 1.25)


def test_one_computing_thread_is_compared_by_its_computing_time(machine: Machine) -> None:
    noise = random.Random(0)
    candidate = machine.model(3.0, interrupted_ms=lambda: 4 * noise.random())
    result = measure(candidate, machine.model(2.0, interrupted_ms=1.0), computing=True)
    assert (result["ratio"], result["reference_ms"]) == (pytest.approx(1.5), pytest.approx(2.0))
    assert 3.0 < result["median_ms"] < 7.0  # what an application would see
    assert result["flags"] == []
    assert measure(candidate, machine.model(2.0), computing=False)["ratio"] > 2.0


def test_the_clock_of_this_process_counts_what_it_computes() -> None:
    def sleep_and_compute() -> None:
        import time

        time.sleep(0.05)
        sum(range(100_000))

    counted, passed = Stopwatch(computing=True)(sleep_and_compute)
    assert 0 < counted < passed
    assert passed - counted > 40


# Blocks


@pytest.mark.parametrize(
    ("usual_ms", "runs"),
    [
        (1.0, probe.REFILL_RUNS + probe.BLOCK_RUNS),
        (10.0, 2 + probe.BLOCK_RUNS),  # as long as refilling may take
        (50.0, probe.BLOCK_RUNS),  # it fits no cache
    ],
)
def test_a_network_is_brought_back_into_the_caches(machine: Machine, usual_ms: float, runs: int) -> None:
    block = probe.time_block(machine.model(usual_ms), Stopwatch(False), usual_ms)
    assert (len(block), machine.runs) == (probe.BLOCK_RUNS, runs)


def test_what_is_slow_after_the_other_network_is_not_timed(machine: Machine) -> None:
    last, since = "", 0

    def cached(name: str, ms: float) -> Callable[[], float]:
        def now_ms() -> float:
            nonlocal last, since
            last, since = name, (since + 1 if name == last else 0)
            return ms * (1.7 if since < 6 else 1.0)

        return now_ms

    result = measure(machine.model(cached("candidate", 1.0)), machine.model(cached("reference", 2.0)))
    assert result["ratio"] == pytest.approx(0.5)
    assert result["ratio_high"] == pytest.approx(0.5)


def test_warming_up_ends_when_the_time_is_steady(machine: Machine) -> None:
    first_ms, last_ms = probe.warm_up(machine.model(lambda: max(10.0 - 9.0 * machine.now, 1.0)), Stopwatch(False))
    assert (first_ms, last_ms) == (pytest.approx(10.0), pytest.approx(1.0))
    assert 1.0 <= machine.now < 1.2


def test_warming_up_takes_some_time_even_if_the_time_is_steady_at_once(machine: Machine) -> None:
    probe.warm_up(machine.model(1.0), Stopwatch(False))
    assert probe.WARM_UP_S <= machine.now < probe.WARM_UP_S + 0.1


def test_warming_up_ends_when_the_time_is_never_steady(machine: Machine) -> None:
    block = probe.REFILL_RUNS + probe.BLOCK_RUNS
    probe.warm_up(machine.model(lambda: 1.0 + (machine.runs - 2) // block % 2), Stopwatch(False))
    assert probe.WARM_UP_LIMIT_S <= machine.now < probe.WARM_UP_LIMIT_S + 1


def test_the_figures_of_a_steady_machine(machine: Machine) -> None:
    result = measure(machine.model(2.0), machine.model(1.0))
    assert result["flags"] == []
    for figure in ("ratio", "ratio_low", "ratio_high", "median_ms", "p90_ms", "first_ms"):
        assert result[figure] == pytest.approx(2.0), figure
    assert result["reference_ms"] == pytest.approx(1.0)
    assert result["drift"] == pytest.approx(0.0, abs=1e-9)
    assert result["load"] == pytest.approx(0.0, abs=1e-9)
    assert result["samples"] >= probe.MIN_BLOCKS * probe.BLOCK_RUNS
    assert probe.MIN_S <= result["seconds"] < probe.MIN_S + 0.2


def test_the_speed_of_the_machine_cancels_out(machine: Machine) -> None:
    # It is a third slower every other second, or so.
    slower = lambda: 1.0 + (machine.now % 2.0 > 1.3) / 3  # noqa: E731
    result = measure(machine.model(lambda: 3.0 * slower()), machine.model(lambda: 2.0 * slower()))
    assert result["ratio"] == pytest.approx(1.5)
    assert result["flags"] == []


def test_p90_is_that_of_the_candidate(machine: Machine) -> None:
    runs = iter(range(10**9))
    result = measure(machine.model(lambda: 5.0 if next(runs) % 5 == 0 else 2.0), machine.model(1.0))
    assert result["median_ms"] == pytest.approx(2.0)
    assert result["p90_ms"] == pytest.approx(5.0)


def test_a_drift_is_flagged(machine: Machine) -> None:
    result = measure(machine.model(lambda: 2.0 + 0.1 * (machine.now > 1.2)), machine.model(1.0))
    assert result["drift"] > probe.TOO_MUCH_DRIFT
    assert "drift" in result["flags"]


def test_what_differs_between_the_halves_by_chance_is_no_drift() -> None:
    flagged = {0.0: 0, 0.15: 0}
    for step, seed in itertools.product(flagged, range(200)):
        noise = random.Random(seed)
        drift, chance = probe.drift_of([noise.gauss(1.0 + step * (at >= 20), 0.06) for at in range(40)])
        flagged[step] += drift > max(probe.TOO_MUCH_DRIFT, chance)
    assert flagged[0.0] < 0.13 * 200
    assert flagged[0.15] == 200
    assert probe.drift_of([1.0]) == (0.0, 0.0)
    assert probe.drift_of([1.0] * 20 + [1.04] * 20) == (pytest.approx(0.04, abs=0.002), 0.0)


def test_timing_may_be_limited_to_less(machine: Machine) -> None:
    noise = random.Random(0)
    noisy = machine.model(lambda: 10.0 ** noise.random())
    result = probe.measure(noisy, machine.model(1.0), Stopwatch(False), limit_s=probe.MIN_S)
    assert probe.MIN_S <= result["seconds"] < probe.MIN_S + 1
    assert result["samples"] >= probe.MIN_BLOCKS * probe.BLOCK_RUNS


def test_a_wide_interval_is_flagged_and_timing_ends_nonetheless(machine: Machine) -> None:
    noise = random.Random(0)
    result = measure(machine.model(lambda: 10.0 ** noise.random()), machine.model(1.0))
    assert "wide_interval" in result["flags"]
    assert result["ratio_low"] < result["ratio"] < result["ratio_high"]
    assert probe.WIDE_S <= result["seconds"] < probe.WIDE_S + 1


@pytest.mark.parametrize(
    ("half_width", "seconds"),
    [(0.0, 0.0), (0.015, 0.0), (0.02, probe.MAX_S), (0.03, probe.MAX_S), (0.031, probe.WIDE_S)],
)
def test_timing_takes_as_long_as_the_interval_asks_for(half_width: float, seconds: float) -> None:
    assert probe.longest_s(1.0, half_width) == seconds
    assert probe.longest_s(0.0, 0.0) == 0.0  # a clock that makes no sense


def test_an_interval_that_is_neither_narrow_nor_wide_is_not_timed_for_longer(machine: Machine) -> None:
    noise = random.Random(0)
    runs, block = itertools.count(), probe.REFILL_RUNS + probe.BLOCK_RUNS
    off = [noise.gauss(1.0, 0.05) for _ in range(1000)]  # of each block

    def candidate_ms() -> float:
        return 4.0 * off[next(runs) // block]

    result = measure(machine.model(candidate_ms), machine.model(4.0))
    half_width = (result["ratio_high"] - result["ratio_low"]) / 2 / result["ratio"]
    assert probe.HALF_WIDTH < half_width <= probe.TOO_WIDE
    assert probe.MAX_S <= result["seconds"] < probe.MAX_S + 0.5
    assert "wide_interval" not in result["flags"]


def test_work_of_others_is_flagged(machine: Machine) -> None:
    def disturbed() -> float:
        machine.foreign_s += 0.001  # of the 2 ms
        return 2.0

    result = measure(machine.model(disturbed), machine.model(2.0))
    assert result["load"] == pytest.approx(0.25, abs=0.01)
    assert measure(machine.model(2.0), machine.model(2.0))["flags"] == []
    machine_of_others = measure(machine.model(disturbed), machine.model(disturbed))
    assert machine_of_others["load"] == pytest.approx(0.5, abs=0.01)
    assert machine_of_others["flags"] == ["foreign_load"]
    assert measure(machine.model(disturbed), machine.model(disturbed), spare=1.0)["flags"] == []


def test_no_load_where_the_system_does_not_tell(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "busy_core_seconds", lambda: None)
    result = measure(machine.model(2.0), machine.model(1.0))
    assert result["load"] is None
    assert result["flags"] == []


def test_a_large_network_is_timed_in_fewer_blocks(machine: Machine) -> None:
    result = measure(machine.model(45.0), machine.model(30.0))
    assert result["samples"] == probe.FEW_BLOCKS * probe.BLOCK_RUNS
    assert result["seconds"] >= probe.LONG_S
    assert (result["ratio"], result["p90_ms"], result["flags"]) == (pytest.approx(1.5), None, [])


def test_a_very_slow_model_ends_with_few_samples(machine: Machine) -> None:
    result = measure(machine.model(2000.0), machine.model(1000.0))
    assert result["ratio"] == pytest.approx(2.0)
    assert result["samples"] < 64
    assert result["p90_ms"] is None
    assert result["flags"] == ["few_samples"]


@pytest.mark.parametrize("which", ["candidate", "reference"])
@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan])
def test_a_clock_of_a_runtime_that_makes_no_sense_is_no_figure(machine: Machine, which: str, ms: float) -> None:
    def broken() -> float:
        machine.now += 0.001
        return ms

    good = machine.model(1.0)
    with pytest.raises(ProbeError, match="not believable") as caught:
        measure(*((broken, good) if which == "candidate" else (good, broken)))
    assert caught.value.cause == "garbage"


def test_busy_and_own_seconds_of_this_machine_only_grow() -> None:
    own, busy = probe.own_core_seconds(), probe.busy_core_seconds()
    assert sum(range(300_000)) > 0
    assert probe.own_core_seconds() >= own > 0
    if busy is not None:
        assert probe.busy_core_seconds() >= busy > 0


# Runtimes that time by themselves


def times_itself(*sessions: tuple[list[float], list[str]]) -> Any:
    left = iter(sessions)
    return SimpleNamespace(samples=lambda: next(left))


def test_the_reference_s_time_lies_between_those_before_and_after() -> None:
    reference = times_itself(([10.0] * 100, []), ([10.2] * 100, []))
    result = probe.measure_sessions(times_itself(([20.2] * 200, [])), reference)
    assert (result["ratio"], result["ratio_low"], result["ratio_high"]) == pytest.approx((2.0, 2.0, 2.0))
    assert (result["reference_ms"], result["median_ms"]) == pytest.approx((10.1, 20.2))
    assert (result["samples"], result["flags"], result["load"]) == (200, [], None)


def test_a_session_has_an_interval() -> None:
    noise = random.Random(0)
    candidate = times_itself(([20.0 + noise.gauss(0, 0.5) for _ in range(400)], []))
    result = probe.measure_sessions(candidate, times_itself(([10.0] * 100, []), ([10.0] * 100, [])))
    assert 1.95 < result["ratio_low"] < result["ratio"] < result["ratio_high"] < 2.05


def test_a_reference_that_is_another_afterwards_is_a_drift() -> None:
    reference = times_itself(([10.0] * 100, []), ([10.4] * 100, []))
    assert probe.measure_sessions(times_itself(([20.0] * 100, [])), reference)["flags"] == ["drift"]


@pytest.mark.parametrize("few", range(3))
def test_a_session_with_few_samples_is_flagged(few: int) -> None:
    before, candidate, after = (([10.0] * (63 if few == here else 64), []) for here in range(3))
    assert probe.measure_sessions(times_itself(candidate), times_itself(before, after))["flags"] == ["few_samples"]


def test_flags_of_all_sessions_count_once() -> None:
    reference = times_itself(([1.0] * 64, ["unstable"]), ([1.0] * 64, ["enqueue_bound"]))
    result = probe.measure_sessions(times_itself(([1.0] * 64, ["unstable"])), reference)
    assert result["flags"] == ["enqueue_bound", "unstable"]


@pytest.mark.parametrize("wrong", range(3))
@pytest.mark.parametrize("ms", [0.0, math.nan])
def test_a_session_with_times_that_cannot_be_is_no_figure(wrong: int, ms: float) -> None:
    before, candidate, after = (([ms if wrong == here else 10.0] * 64, []) for here in range(3))
    with pytest.raises(ProbeError, match="not believable") as caught:
        probe.measure_sessions(times_itself(candidate), times_itself(before, after))
    assert caught.value.cause == "garbage"


# What an application does with the output


@pytest.mark.parametrize(("classes", "anchors"), [(80, 2100), (2, 21), (1, 8400)])
def test_what_is_kept_is_what_suppression_should_keep(classes: int, anchors: int) -> None:
    output = probe.made_up_output((1, 4 + classes, anchors))
    detections = probe.postprocess(output)

    best, label = torch.from_numpy(output[0, 4:]).max(dim=0)
    seen = best > 0.25
    boxes = torchvision.ops.box_convert(torch.from_numpy(output[0, :4]).T, "cxcywh", "xyxy")
    kept = torchvision.ops.batched_nms(boxes[seen], best[seen], label[seen], iou_threshold=0.7)
    expected = torch.cat([boxes[seen], best[seen, None], label[seen, None]], dim=1)[kept]
    np.testing.assert_allclose(detections, expected.numpy(), rtol=1e-6)


def test_most_of_what_is_made_up_is_suppressed() -> None:
    output = probe.made_up_output((1, 84, 2100))
    assert (output[0, 4:].max(axis=0) > 0.25).sum() == 200
    assert 20 <= len(probe.postprocess(output)) < 100


def test_the_same_is_made_up_for_the_same_shape() -> None:
    for shape in ((1, 84, 2100), (1, 300, 6)):
        np.testing.assert_array_equal(probe.made_up_output(shape), probe.made_up_output(shape))


def test_final_detections_are_chosen_by_score_alone() -> None:
    output = probe.made_up_output((1, 300, 6))
    detections = probe.postprocess(output)
    assert detections.tolist() == [row for row in output[0].tolist() if row[4] > 0.25]
    assert 0 < len(detections) < 300


def test_suppressing_costs_more_than_choosing() -> None:
    def ms(shape: tuple[int, ...]) -> float:
        output = probe.made_up_output(shape)
        watch = Stopwatch(computing=True)
        return min(watch(lambda: probe.postprocess(output))[0] for _ in range(20))

    assert ms((1, 84, 2100)) > 5 * ms((1, 300, 6)) > 0


# The machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a stand-in on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, code: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)

    return make


JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX\0",
    "proc/device-tree/serial-number": "1421123456789\0",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1420800\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1984000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1984000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "115200\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "729600000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51500\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "\n",
    "sys/class/thermal/thermal_zone2/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone2/temp": "100000\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "4\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "17\n",
}
CPU0, CPU1 = (f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in range(2))
GPU = "sys/class/devfreq/17000000.gpu/cur_freq"
OC1, OC2, OC3 = (f"sys/class/hwmon/hwmon3/oc{number}_event_cnt" for number in (1, 2, 3))


def test_the_state_of_a_jetson(root: Path) -> None:
    write(root, JETSON)
    state = probe.machine_state(root)
    assert state["clocks"][CPU1] == 1_984_000
    assert state["temperature_c"] == {"cpu-thermal": 51.5}
    assert state["throttle"] == {OC1: 0, OC2: 4}
    assert state["warning"] == {OC3: 17}
    assert probe.fastest([state]) == {"processor": 1_984_000, "GPU": 918_000_000}


def test_the_identity_of_a_jetson(root: Path, program: Callable[[str, str], None]) -> None:
    write(root, JETSON)
    program("nvpmodel", '[ "$1" = -q ] && printf "NVPM WARN: fan mode is not set!\\nNV Power Mode: MAXN\\n0\\n"')
    program("nvidia-smi", "echo it fails, 9.9; exit 9")
    identity = probe.identify_machine(root)
    assert identity["serial"] == "1421123456789"
    assert identity["model"] == "NVIDIA Jetson Orin NX"
    assert identity["cpu"] == "ARMv8 Processor rev 1 (v8l)"
    assert identity["l4t"] == "36.4.3"
    assert identity["power_mode"] == "MAXN"
    assert (identity["governor"], identity["max_khz"], identity["clocks_locked"]) == ("schedutil", 1_984_000, False)
    assert "gpu" not in identity


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("NV Power Mode: MAXN\n0", "MAXN"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0", "MAXN"),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_2CORE  \r\n2\n", "MODE_15W_2CORE"),
        ("NVPM VERB: Config file: /etc/nvpmodel.conf\nNVPM VERB: Current mode: NV Power Mode: 25W\n1\n", "25W"),
        ("NV Power Mode: MAXN SUPER\n2", "MAXN SUPER"),
        ("NV Power Mode:\n0", None),
        ("NVPM ERROR: failed to open /var/lib/nvpmodel/status", None),
        ("", None),
    ],
)
def test_a_power_mode_is_its_name(said: str, name: str | None) -> None:
    assert probe.power_mode(said) == name


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic", "36.4.3"),
        ("# R35 (release), REVISION: 5.0", "35.5.0"),
        ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t186ref", "32.7.1"),
        ("no release", None),
    ],
)
def test_l4t_is_its_version(said: str, version: str | None) -> None:
    assert probe.l4t_version(said) == version


T4 = "Tesla T4, 535.129.03"


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (T4, T4),  # as it was always told
        (f"{T4}\nNVIDIA H100 80GB HBM3, 535.129.03\n", f"{T4}\nNVIDIA H100 80GB HBM3, 535.129.03"),
        ("Orin (nvgpu), 540.4.0", "Orin (nvgpu), 540.4.0"),
        ("Orin (nvgpu), N/A", "Orin (nvgpu), N/A"),
        (f"{T4}\nWARNING: infoROM is corrupted at gpu 0000:3B:00.0", T4),
        ("Tesla T4, [Unknown Error]", None),
        ("[GPU is lost], [GPU is lost]", None),
        ("No devices were found", None),
        ("", None),
    ],
)
def test_gpus_are_their_names_and_drivers(said: str, known: str | None) -> None:
    assert probe.gpus(said) == known


@pytest.mark.parametrize("code", ["exit 1", "echo 'NV Power Mode: MAXN'; exit 1", "echo no mode"])
def test_what_a_program_does_not_tell_is_left_out(root: Path, program: Callable[[str, str], None], code: str) -> None:
    before = probe.identify_machine(root)
    program("nvpmodel", code)
    assert probe.identify_machine(root) == before


COOLING = "sys/class/thermal/cooling_device1"


def test_bounds_of_clocks_that_heat_has_set_are_not_those_of_the_device(root: Path) -> None:
    """The kernel lowers the highest clock that it allows, and a device would seem to be set up in another way."""
    write(root, {**JETSON, f"{COOLING}/type": "cpufreq-cpu0\n", f"{COOLING}/cur_state": "0\n"})
    cool, state = probe.identify_machine(root), probe.machine_state(root)
    assert probe.throttled([state, state, state], exclusive=False) == []
    write(root, {f"{COOLING}/cur_state": "3", "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1420800"})
    held_back = probe.identify_machine(root)
    assert held_back == {name: value for name, value in cool.items() if name not in ("max_khz", "clocks_locked")}
    for states in ([state, probe.machine_state(root)], [probe.machine_state(root), state]):
        assert probe.throttled(states, exclusive=False) == ["cpufreq-cpu0"]
    write(root, {f"{COOLING}/type": "pwm-fan\n"})
    assert probe.throttled([probe.machine_state(root)] * 2, exclusive=True) == []
    assert probe.identify_machine(root)["max_khz"] == 1_420_800


def test_an_identity_stays_while_the_device_works(root: Path) -> None:
    write(root, JETSON)
    before = probe.identify_machine(root)
    write(root, {CPU0: "100", GPU: "100", OC1: "9", "sys/class/thermal/thermal_zone0/temp": "70000"})
    assert probe.identify_machine(root) == before
    write(root, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "1984000"})  # what jetson_clocks does
    locked = probe.identify_machine(root)
    assert locked == {**before, "clocks_locked": True}
    write(root, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"})
    assert probe.identify_machine(root) == {**locked, "governor": "powersave"}


def test_a_machine_that_tells_nothing(root: Path) -> None:
    assert probe.machine_state(root) == {}
    assert {"machine", "cores", "system"} <= set(probe.identify_machine(root))
    assert probe.throttled([{}, {}, {}, {}], exclusive=True) == []


def test_this_machine_can_be_described() -> None:
    for description in (probe.identify_machine(), probe.machine_state()):
        assert json.loads(json.dumps(description)) == description
    assert probe.identify_machine() == probe.identify_machine()


def test_a_counter_that_ticks_is_throttling(root: Path) -> None:
    write(root, JETSON)
    before = probe.machine_state(root)
    write(root, {OC3: "99"})  # a warning only
    assert probe.throttled([before, probe.machine_state(root)], exclusive=False) == []
    write(root, {OC2: "5"})
    during = probe.machine_state(root)
    assert probe.throttled([before, during], exclusive=False) == [OC2]
    assert probe.throttled([during, during], exclusive=False) == []
    assert probe.throttled([{}, during], exclusive=False) == []  # what it was before is not known


@pytest.mark.parametrize(("bits", "reasons"), [("0x0", []), ("0x50000", []), ("0x50004", ["vcgencmd"])])
def test_a_raspberry_pi_says_whether_it_is_throttled_now(
    root: Path, program: Callable[[str, str], None], bits: str, reasons: list[str]
) -> None:
    program("vcgencmd", f'[ "$1" = get_throttled ] && echo throttled={bits}')
    state = probe.machine_state(root)
    for states in ([state, state], [{}, state, {}], [state, {}]):
        assert probe.throttled(states, exclusive=False) == reasons


def test_a_clock_that_falls_while_timing_is_throttling_on_a_device_of_its_own(root: Path) -> None:
    write(root, JETSON)
    first = probe.machine_state(root)
    write(root, {CPU1: "1420800"})
    slower = probe.machine_state(root)
    assert probe.throttled([first, first, slower, first], exclusive=True) == ["clock of the processor"]
    assert probe.throttled([first, first, slower, first], exclusive=False) == []
    assert probe.throttled([first, slower, slower, first], exclusive=True) == []  # idle clocks are another matter
    assert probe.throttled([first, slower, first], exclusive=True) == []  # there was but one look
    write(root, {CPU1: "1984000", GPU: "600000000"})
    assert probe.throttled([first, first, probe.machine_state(root), first], exclusive=True) == ["clock of the GPU"]
    write(root, {CPU0: "1000", GPU: str(0.98 * 918e6)})  # one core that idles; two per cent
    assert probe.throttled([first, first, probe.machine_state(root), first], exclusive=True) == []


# Waiting for quiet


class Device:
    """Four cores that others keep busy, and a temperature, as time goes by."""

    def __init__(self) -> None:
        self.now = self.busy = 0.0
        self.load: Callable[[float], float] = lambda now: 0.0
        self.hottest: Callable[[float], float] = lambda now: 50.0

    def sleep(self, seconds: float) -> None:
        self.busy += seconds * self.load(self.now)
        self.now += seconds

    def wait(self, exclusive: bool, threads: int = 1, wanted: bool = True, on: str = "cpu") -> float:
        """Seconds waited."""
        probe.wait_until_quiet({"exclusive": exclusive, "threads": threads, "device": on}, lambda: wanted)
        return self.now


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: device.now, sleep=device.sleep))
    monkeypatch.setattr(probe, "busy_core_seconds", lambda: device.busy)
    monkeypatch.setattr(probe, "machine_state", lambda: {"temperature_c": {"a": 20.0, "b": device.hottest(device.now)}})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    return device


@pytest.mark.parametrize(
    ("exclusive", "threads", "on", "load"),
    [
        (True, 1, "cpu", 0.07),
        (False, 1, "cuda", 3.1),
        (False, 2, "cpu", 2.1),
        (False, 8, "cpu", 0.1),
    ],
)
def test_a_quiet_device_is_not_waited_for(device: Device, exclusive: bool, threads: int, on: str, load: float) -> None:
    device.load = lambda now: load
    assert device.wait(exclusive, threads, on=on) == probe.LOOK_S


def test_where_no_load_is_too_much_none_is_looked_for(device: Device) -> None:
    device.load = lambda now: 4.0
    assert device.wait(exclusive=False, threads=1, on="cpu") == 0.0


@pytest.mark.parametrize(
    ("exclusive", "threads", "on", "load"),
    [(True, 1, "cpu", 0.1), (False, 1, "cuda", 3.3), (False, 2, "cpu", 2.3), (False, 8, "cpu", 0.3)],
)
def test_a_device_that_stays_busy_is_not_measured(
    device: Device, exclusive: bool, threads: int, on: str, load: float
) -> None:
    device.load = lambda now: load
    with pytest.raises(ProbeError, match=rf"^other processes keep {load} of its 4 cores busy$") as caught:
        device.wait(exclusive, threads, on=on)
    assert caught.value.cause == "device_busy"
    assert probe.BUSY_LIMIT_S < device.now < probe.BUSY_LIMIT_S + 10


def test_a_busy_device_is_waited_for(device: Device) -> None:
    device.load = lambda now: 1.0 if now < 20 else 0.0
    assert 20 < device.wait(exclusive=True) < 30


def test_a_hot_device_is_waited_for(device: Device) -> None:
    device.hottest = lambda now: 95.0 - now
    assert 10 < device.wait(exclusive=False) < 20


def test_a_device_that_stays_hot_is_not_measured(device: Device) -> None:
    device.hottest = lambda now: 91.0
    with pytest.raises(ProbeError, match="at 91 °C and does not cool down") as caught:
        device.wait(exclusive=False)
    assert caught.value.cause == "throttled"


def test_nothing_is_waited_for_when_nobody_wants_it(device: Device) -> None:
    device.load = lambda now: 4.0
    with pytest.raises(ProbeError, match="cores busy"):
        device.wait(exclusive=True, wanted=False)
    assert device.now == probe.LOOK_S


def test_a_load_that_the_system_does_not_tell_is_not_waited_for(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "busy_core_seconds", lambda: None)
    assert device.wait(exclusive=True) == probe.LOOK_S


# Why there is no figure


@pytest.mark.parametrize(
    ("error", "cause", "message"),
    [
        (RuntimeError("config_mismatch: asked for fp16"), "config_mismatch", "asked for fp16"),
        (RuntimeError("unsupported: no\n  such operator"), "unsupported", "no such operator"),
        (RuntimeError("garbage: 0 ms"), "garbage", "0 ms"),
        (RuntimeError("timeout: too slow"), "timeout", "too slow"),
        (RuntimeError("device_changed: is not the runtime's to say"), "crash", "RuntimeError: device_changed: is not"),
        (ProbeError("nan", "no number"), "nan", "no number"),
        (MemoryError(), "oom", "MemoryError"),
        (RuntimeError("CUDA out of memory"), "oom", "CUDA out of memory"),
        (RuntimeError("std::bad_alloc"), "oom", "std::bad_alloc"),
        (RuntimeError("Failed to allocate memory for a buffer"), "oom", "Failed to allocate memory for a buffer"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "oom", "DefaultCPUAllocator: can't"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "oom", "[Errno 12]"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", "[Errno 28] No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full", "[Errno 122] Disk quota"),
        (OSError(errno.EIO, "Input/output error"), "crash", "OSError: [Errno 5]"),
        (ModuleNotFoundError("No module named 'ncnn'"), "unsupported", "No module named 'ncnn'"),
        (KeyError("x"), "crash", "KeyError: 'x'"),
        (ValueError("x" * 1000), "crash", "ValueError: xxx"),
    ],
)
def test_errors_have_a_cause_and_one_line(error: Exception, cause: str, message: str) -> None:
    found = probe.failure(error)
    assert (found["event"], found["cause"]) == ("failure", cause)
    assert found["message"].startswith(message)
    assert "\n" not in found["message"]
    assert len(found["message"]) < 350


# By hand


def write_model(path: Path, *operators: str) -> Path:
    """A chain of operators on a (1, 3, 64, 64) image, then an output like a detector's for 80 classes."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((84, 3, 8, 8), dtype=np.float32), "weight")
    shape = numpy_helper.from_array(np.array([1, 84, 64]), "shape")
    names = ["images", *(f"x{number}" for number in range(len(operators)))]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(operators)]
    nodes.append(helper.make_node("Conv", [names[-1], "weight"], ["maps"], strides=[8, 8]))
    nodes.append(helper.make_node("Reshape", ["maps", "shape"], ["output0"]))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 64, 64))
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, (1, 84, 64))
    graph = helper.make_graph(nodes, "tiny", [image], [output], [weight, shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    """Arguments for a candidate and a reference."""
    model, reference = write_model(tmp_path / "a.onnx", "Relu", "Exp"), write_model(tmp_path / "b.onnx", "Relu")
    return {"model": str(model), "reference": str(reference), "runtime": "onnxruntime"}


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def by_hand(quick_probe: None, tmp_path: Path) -> Run:
    """Runs the quick probe as a program."""
    guard = 'if __name__ == "__main__":\n    sys.exit(main())\n'
    text = _exchange.PROBE.read_text()
    assert text.count(guard) == 1
    program = tmp_path / "by_hand" / "probe.py"
    program.parent.mkdir()
    program.write_text(text.replace(guard, "") + guard)
    (program.parent / "runtimes").symlink_to(Path(probe.__file__).parent / "runtimes")

    def run(*more: str, **named: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(program), *more]
        for name, value in named.items():
            command += [f"--{name}", value]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_by_hand_it_prints_a_document(by_hand: Run, models: dict[str, str]) -> None:
    done = by_hand(**models)
    assert (done.returncode, done.stderr.split()) == (0, ["waiting", "loading", "measuring"])
    session = Session.model_validate_json(done.stdout)
    assert session.identity["runtime"] == "onnxruntime"
    assert session.settings == {"provider": "CPUExecutionProvider", "threads": 1, "precision": "fp32"}
    assert session.ratio_low <= session.ratio <= session.ratio_high
    assert session.samples % probe.BLOCK_RUNS == 0


def test_decoding_and_suppression_are_timed_if_asked_for(by_hand: Run, models: dict[str, str]) -> None:
    alone, together = (Session.model_validate_json(by_hand(*more, **models).stdout) for more in ([], ["--with-post"]))
    assert together.ratio > 1.5 * alone.ratio


@pytest.mark.parametrize("broken", ["model", "reference"])
def test_an_output_that_is_not_finite_is_not_timed(broken: str, by_hand: Run, models: dict[str, str]) -> None:
    write_model(Path(models[broken]), "Neg", "Sqrt")
    done = by_hand(**models)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "nan: the network computed values that are not finite"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "/missing.onnx"}, "/missing.onnx does not exist"),
        ({"reference": "/missing.onnx"}, "/missing.onnx does not exist"),
        ({"runtime": "onnxrutime"}, "there is no runtime 'onnxrutime' in "),
        ({"runtime": "../probe"}, "there is no runtime '../probe' in "),
        ({"precision": "fp64"}, "--precision must be fp32 or fp16 or int8 with onnxruntime"),
        ({"device": "tpu"}, "--device must be cpu or cuda or tensorrt with onnxruntime"),
        ({"threads": "0"}, "--threads must be at least 1"),
    ],
)
def test_bad_arguments_are_an_error_of_one_line(
    changed: dict[str, str], message: str, by_hand: Run, models: dict[str, str]
) -> None:
    done = by_hand(**models | changed)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {message}" in done.stderr.splitlines()[-1]


def test_a_file_that_the_runtime_refuses_is_an_error_of_one_line(by_hand: Run, models: dict[str, str]) -> None:
    Path(models["model"]).write_bytes(b"garbage")
    done = by_hand(**models)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[:-1] == ["waiting", "loading"]
    assert done.stderr.splitlines()[-1].startswith("crash: InvalidProtobuf")

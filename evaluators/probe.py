"""Times a network against a reference on this machine. Runs on the device, where nothing of this project is installed.

One file: the standard library of Python 3.8, and a runtime file that comes with the job. By hand:

    python probe.py --model candidate.onnx --reference reference.onnx --runtime onnxruntime

Over a connection it is piped to the device's Python and then reads one job from standard input (see `serve`).

The machine's speed wanders by several per cent (frequency, neighbours) and takes both networks with it; the ratio of
the two, timed in short alternating blocks, does not. So the ratio is the measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import math
import os
import platform
import re
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Optional  # noqa: UP035  # devices may have Python 3.8

Run = Callable[[], Optional[float]]  # noqa: UP045
Event = Dict[str, Any]  # noqa: UP006

BLOCK_RUNS = 5
REFILL_RUNS = 8  # a small model is 1.7 times slower right after another ran, and needs some six runs to be itself again
REFILL_S = 0.02  # a large one never fits the caches anyway
MIN_BLOCKS = 13  # 65 samples of each model: enough for a 90th percentile
FEW_BLOCKS, LONG_S = 10, 3.0  # for a large model: so many are enough once this has passed
WARM_UP_S = 0.3
WARM_UP_LIMIT_S = 10.0
STEADY = 0.02  # warm-up ends when five runs differ from the five before by less
HALF_WIDTH = 0.015  # of the 95 % interval, relative: timing stops when it is reached, as fresh processes differ by more
MIN_S = 1.0
MAX_S = 4.0  # ... or when this has passed
WIDE_S = 6.0  # ... or this, where the interval is still so wide that the session would have to be repeated
MANY = 200  # blocks from which the normal approximation of a rank is good enough, and exact sums take too long
MIN_P90_SAMPLES = 64
TOO_WIDE = 0.03
TOO_MUCH_DRIFT = 0.03
TOO_MUCH_LOAD = 0.25  # cores, beyond those that the network does not need
BOUNDS_MS = (0.01, 60_000.0)  # of a believable time
MIN_SCORE, MAX_OVERLAP = 0.25, 0.7  # of detections: what Ultralytics predicts with
EXCLUSIVE_LOAD = 0.08  # cores that others may keep busy on a device that is ours alone
NEARLY = 0.15  # cores that may be missing for the network's threads on a machine that is shared
LOOK_S = 0.3  # how long the load is looked at before timing
BUSY_LIMIT_S = 60.0  # ... again and again, until it is low, or this has passed
LOCK_LIMIT_S = 900.0  # how long to wait for other measurements of this device
HOT_C = 85.0  # temperature of a device beyond which timing does not begin
SLOWED = 0.97  # a clock that ends under this share of where it was has been throttled
POLL_S = 0.5
END_S = 10.0  # for a process to end that has said its last
QUOTA_BYTES = 512 * 2**20  # of the models that are kept on the device
FILE_BYTES = 256 * 2**20  # of one of them
JOB_BYTES = 2**20
ERROR_BYTES = 4096  # of the end of what a process that failed has said
NO_MEMORY = re.compile(r"out of memory|bad_alloc|(cannot|can't|failed to) alloc", re.I)  # as runtimes say it
LOCKS = Path("/tmp/nas-yolo-locks")  # the same for every user and every process of the machine


class ProbeError(Exception):
    """Why there is no figure: `cause` is a word, the message one line."""

    def __init__(self, cause: str, message: str, detail: str = ""):
        super().__init__(message)
        self.cause, self.detail = cause, detail


# Statistics ---------------------------------------------------------------------------------------------------------


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Median of independent values and its distribution-free interval of at least 95 %, from order statistics."""
    ordered = sorted(values)
    n = len(ordered)
    # The median lies outside the values of rank r and n-1-r as often as n fair coins show at most r heads, or tails.
    if n > MANY:
        rank = int((n - 1.96 * n**0.5) / 2) - 1
    else:
        rank, outside = 0, 1
        while 40 * (outside + math.comb(n, rank + 1)) <= 2**n:
            rank += 1
            outside += math.comb(n, rank)
    return statistics.median(ordered), ordered[rank], ordered[n - 1 - rank]


def drift_of(values: list[float]) -> tuple[float, float]:
    """Relative change of the median between the halves, and what chance alone exceeds in one case of ten or fewer.

    The medians of the halves differ by twice as much as the median of all is uncertain, the change itself left out.
    """
    half = len(values) // 2
    if not half:
        return 0.0, 0.0
    first, last = statistics.median(values[:half]), statistics.median(values[half:])
    _, low, high = median_interval(
        [value / first for value in values[:half]] + [value / last for value in values[half:]]
    )
    return abs(first / last - 1), high - low


def believable(name: str, ms: float) -> float:
    """The same time.

    Raises:
        ProbeError: `garbage`, if it cannot be one.
    """
    if not BOUNDS_MS[0] <= ms <= BOUNDS_MS[1]:
        raise ProbeError("garbage", f"{name} of {ms:g} ms is not believable")
    return ms


def summary(
    candidate_ms: list[float],
    reference_ms: list[float],
    ratios: list[float],
    wall_ms: list[float],
    flags: list[str],
) -> dict[str, Any]:
    """Figures of a session, from single times and the ratio of each block."""
    times = {"reference_ms": statistics.median(reference_ms), "median_ms": statistics.median(wall_ms)}
    for name, value in [*times.items(), ("candidate", statistics.median(candidate_ms))]:
        believable(name, value)
    ratio, low, high = median_interval(ratios)
    drift, chance = drift_of(ratios)
    if (high - low) / 2 > TOO_WIDE * ratio:
        flags.append("wide_interval")
    if drift > max(TOO_MUCH_DRIFT, chance):
        flags.append("drift")
    wall_ms = sorted(wall_ms)
    return {
        **times,
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "p90_ms": wall_ms[int(0.9 * (len(wall_ms) - 1))] if len(wall_ms) >= MIN_P90_SAMPLES else None,
        "samples": len(wall_ms),
        "drift": drift,
        "flags": flags,
    }


# What is timed: in the child process --------------------------------------------------------------------------------


def busy_core_seconds() -> float | None:
    """CPU seconds spent so far by all processes of the machine; None where /proc does not tell."""
    try:
        with open("/proc/stat") as file:
            fields = [int(field) for field in file.readline().split()[1:]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_core_seconds() -> float:
    """CPU seconds spent so far by this process, all threads, and its children."""
    return sum(os.times()[:4])


class Stopwatch:
    """Times single runs.

    On one thread of a CPU what counts is the time that the process computes: it is the time that passes, less the
    interruptions by others. Otherwise it is the time that passes, or what the runtime's own clock says.

    Args:
        computing: Whether to count the time that the process computes.
    """

    def __init__(self, computing: bool):
        self.computing = computing

    def __call__(self, run: Run) -> tuple[float, float]:
        """Run once; milliseconds that count, and that passed."""
        start, busy = time.perf_counter(), time.process_time()
        own = run()
        busy, passed = time.process_time() - busy, time.perf_counter() - start
        counted = passed * 1e3 if own is None else own
        return (busy * 1e3 if self.computing else counted), counted


def time_block(run: Run, watch: Stopwatch, usual_ms: float = 0.0) -> list[tuple[float, float]]:
    """Times of `BLOCK_RUNS` consecutive runs, after some that bring the network back into the caches.

    Args:
        run: Runs it once.
        watch: What counts.
        usual_ms: About how long a run takes; a large network needs no such runs.
    """
    started = time.perf_counter()
    for _ in range(REFILL_RUNS if usual_ms < 2e3 * REFILL_S else 0):
        run()
        if time.perf_counter() - started >= REFILL_S:
            break
    return [watch(run) for _ in range(BLOCK_RUNS)]


def longest_s(ratio: float, half_width: float) -> float:
    """Seconds that timing may take at most, with an interval of so much on either side of the ratio, which may be 0."""
    return 0.0 if half_width <= HALF_WIDTH * ratio else MAX_S if half_width <= TOO_WIDE * ratio else WIDE_S


def warm_up(run: Run, watch: Stopwatch) -> tuple[float, float]:
    """Run until the time is steady; milliseconds of the very first run, and of the last."""
    started = time.perf_counter()
    first_ms = watch(run)[1]
    last: float | None = None
    while True:
        now = statistics.median(counted for counted, _ in time_block(run, watch, last or first_ms))
        passed = time.perf_counter() - started
        steady = last is not None and abs(now - last) <= STEADY * last
        if (passed >= WARM_UP_S and steady) or passed >= WARM_UP_LIMIT_S:
            return first_ms, now
        last = now


def measure(
    candidate: Run, reference: Run, watch: Stopwatch, spare: float = 0.0, limit_s: float = math.inf
) -> dict[str, Any]:
    """Alternate blocks of both until the interval of the ratio is narrow; a dictionary of figures.

    Args:
        candidate: Runs it once; returns milliseconds if the runtime has a clock of its own.
        reference: Likewise.
        watch: What counts.
        spare: Cores that others may keep busy without harm.
        limit_s: Seconds after which timing ends, however wide the interval is, once there are enough blocks.
    """
    _, r_ms = warm_up(reference, watch)
    first_ms, c_ms = warm_up(candidate, watch)
    ratios: list[float] = []
    c_all: list[tuple[float, float]] = []
    r_all: list[tuple[float, float]] = []
    busy, own, started = busy_core_seconds(), own_core_seconds(), time.perf_counter()
    while True:
        # Always in this order, so that each finds the caches as the other left them.
        r = time_block(reference, watch, r_ms)
        c = time_block(candidate, watch, c_ms)
        c_all += c
        r_all += r
        middle = believable("reference", statistics.median(one for one, _ in r))
        ratios.append(statistics.median(one for one, _ in c) / middle)
        seconds = time.perf_counter() - started
        if len(ratios) >= (FEW_BLOCKS if seconds >= LONG_S else MIN_BLOCKS) and seconds >= MIN_S:
            ratio, low, high = median_interval(ratios)
            if seconds >= min(limit_s, longest_s(ratio, (high - low) / 2)):
                break
        elif seconds >= 3 * MAX_S:  # a model so slow that even the fewest blocks take half a minute
            break
    busy_now = busy_core_seconds()
    load = None
    if busy is not None and busy_now is not None:
        load = max((busy_now - busy) - (own_core_seconds() - own), 0.0) / seconds
    flags = []
    if load is not None and load > TOO_MUCH_LOAD + spare:
        flags.append("foreign_load")
    if len(ratios) < FEW_BLOCKS:
        flags.append("few_samples")
    times = [one for one, _ in c_all], [one for one, _ in r_all], ratios, [passed for _, passed in c_all]
    return {**summary(*times, flags), "first_ms": first_ms, "load": load, "seconds": seconds}


def measure_sessions(candidate: Any, reference: Any) -> dict[str, Any]:
    """The same for a runtime that times a network by itself, for a whole session: reference, candidate, reference.

    Each has `samples()`: milliseconds of single runs, and flags. The reference's time while the candidate ran is taken
    to lie between those before and after.
    """
    started = time.perf_counter()
    (before, flags), (times, more), (after, rest) = reference.samples(), candidate.samples(), reference.samples()
    first, last = (believable("reference", statistics.median(some)) for some in (before, after))
    middle = (first + last) / 2
    # Times of one session are no independent blocks: medians of twentieths of it are nearly so.
    size = max(len(times) // 20, 1)
    parts = [statistics.median(times[i : i + size]) for i in range(0, len(times) - size + 1, size)]
    found = sorted({*flags, *more, *rest})
    if min(map(len, (before, times, after))) < MIN_P90_SAMPLES:
        found.append("few_samples")
    if abs(last / first - 1) > TOO_MUCH_DRIFT:
        found.append("drift")
    figures = summary(times, [*before, *after], [part / middle for part in parts], times, found)
    return {**figures, "first_ms": times[0], "load": None, "seconds": time.perf_counter() - started}


def counts_computing(settings: dict[str, Any]) -> bool:
    """Whether the time that the process computes is what counts: on one thread of a CPU."""
    return bool(settings["device"] == "cpu" and settings["threads"] == 1)


def spare_cores(settings: dict[str, Any]) -> float:
    """Cores that others may keep busy without harm: none on an exclusive device, else those that are not needed.

    All of them where interruptions do not count: with both cores of a machine kept busy by others, ratios were off by
    0.6 %, and repeated within 1.1 %.
    """
    cores = os.cpu_count() or 1
    if settings["exclusive"]:
        return 0.0
    return float(cores if counts_computing(settings) else max(cores - settings["threads"], 0))


def load_runtime(source: str) -> Any:
    """The runtime file as a module."""
    module = types.ModuleType("probed_runtime")
    exec(compile(source, "runtime.py", "exec"), module.__dict__)  # ours, sent with the job
    return module


def made_up_output(shape: tuple[int, ...]) -> Any:
    """An output of this shape that finds something, always the same: 20 objects, each seen by 10 anchors.

    Nets are timed before they are trained, when they find nothing, and suppressing nothing takes no time.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    _, rows, columns = shape
    if columns == 6:
        return rng.random(shape, dtype=np.float32)
    made_up = np.zeros(shape, dtype=np.float32)
    boxes = np.repeat(rng.random((20, 4)) * 200 + 50, 10, axis=0) + rng.normal(0, 3, (200, 4))
    classes = np.repeat(rng.integers(rows - 4, size=20), 10)
    anchors = rng.choice(columns, size=min(len(boxes), columns), replace=False)
    made_up[0, :4, anchors] = boxes[: len(anchors)]
    made_up[0, 4 + classes[: len(anchors)], anchors] = rng.uniform(0.3, 0.9, len(anchors))
    return made_up


def postprocess(output: Any) -> Any:
    """The detections in an output, as an application wants them: decoded, chosen by score, overlaps suppressed (NMS).

    Args:
        output: Boxes and scores (1, 4 + classes, anchors), or final detections (1, at most 300, 6), of which only the
            scores are looked at.

    Returns:
        An array (detections, 6): corners in pixels, score, class; the highest score first.
    """
    import numpy as np

    if output.shape[2] == 6:
        return output[0][output[0, :, 4] > MIN_SCORE]
    boxes, scores = output[0, :4], output[0, 4:]
    best = scores.max(axis=0)
    kept = np.flatnonzero(best > MIN_SCORE)
    kept = kept[np.argsort(-best[kept])]
    classes = scores[:, kept].argmax(axis=0)
    centre, half = boxes[:2, kept], boxes[2:, kept] / 2
    corners = np.concatenate([centre - half, centre + half])
    apart = corners + 4096.0 * classes  # boxes of several classes do not overlap
    areas = (apart[2] - apart[0]) * (apart[3] - apart[1])
    chosen, order = [], np.arange(len(kept))
    while len(order):
        first, order = order[0], order[1:]
        chosen.append(first)
        low = np.maximum(apart[:2, first, None], apart[:2, order])
        high = np.minimum(apart[2:, first, None], apart[2:, order])
        shared = np.prod(np.clip(high - low, 0, None), axis=0)
        order = order[shared <= MAX_OVERLAP * (areas[first] + areas[order] - shared)]
    return np.concatenate([corners, best[None, kept], classes[None]])[:, chosen].T


def timed_job(job: dict[str, Any], tell: Callable[[Event], None]) -> dict[str, Any]:
    """Load both networks, check what they compute, time them."""
    runtime = load_runtime(job["runtime_source"])
    settings = job["settings"]
    if settings["device"] == "cpu":  # a GPU's driver reserves more than there is
        _limit_memory()
    started = time.perf_counter()
    reference = runtime.load(job["reference"], settings)
    candidate = runtime.load(job["model"], settings)
    loaded = {
        "load_s": time.perf_counter() - started,
        "settings": candidate.settings,
        "identity": runtime.identity(settings),
    }
    tell({"event": "phase", "phase": "measuring"})
    if hasattr(candidate, "samples"):
        if job["postprocess"]:
            raise ProbeError("unsupported", f"{job['runtime']} times the network alone; leave out --with-postprocess")
        return {**measure_sessions(candidate, reference), **loaded}
    import numpy as np

    outputs = candidate.infer(None)
    if not outputs or not all(np.isfinite(output).all() for output in [*outputs, *reference.infer(None)]):
        raise ProbeError("nan", "the network computed values that are not finite")
    run: Run = candidate.run
    if job["postprocess"]:
        made_up = made_up_output(outputs[0].shape)

        def run() -> float | None:
            own = candidate.run()
            start = time.perf_counter()
            postprocess(made_up)
            return None if own is None else own + (time.perf_counter() - start) * 1e3

    watch = Stopwatch(counts_computing(settings))
    return {
        **measure(run, reference.run, watch, spare_cores(settings), job.get("timing_s") or math.inf),
        **loaded,
        "shapes": [list(o.shape) for o in outputs],
    }


# The machine --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> str | None:
    """A file of the system as text; None if it is not there or may not be read."""
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def _numbers(root: Path, pattern: str, name: str | None = None) -> dict[str, float]:
    """The numbers in all files that match, by the file called `name` beside each, or else by their path."""
    found = {}
    for path in sorted(root.glob(pattern)):
        text = _read(path)
        label = (_read(path.with_name(name)) if name else None) or str(path.relative_to(root))
        with contextlib.suppress(TypeError, ValueError):
            found[label if label not in found else str(path.relative_to(root))] = float(text)  # type: ignore[arg-type]
    return found


def _output(*command: str) -> str | None:
    """What a program of the device prints; None if there is none of that name, or it fails."""
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, text=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def power_mode(said: str) -> str | None:
    """The name of a Jetson's power mode, from what `nvpmodel -q` prints, which may begin with warnings."""
    found = re.search(r"NV Power Mode:[ \t]*(\S.*?)\s*$", said, re.M)
    return found[1] if found else None


def l4t_version(said: str) -> str | None:
    """As 36.4.3, from /etc/nv_tegra_release, which gives the dates and numbers of its build too."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", said)
    return f"{found[1]}.{found[2]}" if found else None


def gpus(said: str) -> str | None:
    """The lines of name and driver version among what nvidia-smi prints: there may be warnings and errors too."""
    return "\n".join(re.findall(r"^\S.*, (?:\d+(?:\.\d+)+|\[?N/A\]?)$", said, re.M)) or None


def cooling(root: Path) -> dict[str, float]:
    """How far the kernel holds back the processor's clock for heat, by what holds it back; 0 is not at all."""
    steps = _numbers(root, "sys/class/thermal/cooling_device*/cur_state", "type")
    return {name: value for name, value in steps.items() if "cpufreq" in name}


def identify_machine(root: Path = Path("/")) -> dict[str, Any]:
    """What times depend on and does not change by itself: the device, its system, its power mode.

    What a device does not tell, or not in a form that is known, is left out.
    """
    cpu = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", _read(root / "proc/cpuinfo") or "", re.M)
    clocks = "sys/devices/system/cpu/cpu*/cpufreq/scaling_"
    governors = {_read(path) for path in root.glob(f"{clocks}governor")}
    lowest, highest = (list(_numbers(root, f"{clocks}{bound}_freq").values()) for bound in ("min", "max"))
    if any(cooling(root).values()):  # then the bounds are not those that were set
        lowest = highest = []
    identity = {
        "machine": platform.node(),
        "serial": _read(root / "proc/device-tree/serial-number") or _read(root / "etc/machine-id"),
        "model": _read(root / "proc/device-tree/model"),
        "cpu": cpu[1].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "l4t": l4t_version(_read(root / "etc/nv_tegra_release") or ""),
        "power_mode": power_mode(_output("nvpmodel", "-q") or ""),
        "governor": " ".join(sorted(filter(None, governors))) or None,
        "max_khz": max(highest, default=None),
        "clocks_locked": lowest == highest if lowest else None,  # as jetson_clocks does
        "gpu": gpus(_output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or ""),
    }
    return {name: value for name, value in identity.items() if value is not None}


def machine_state(root: Path = Path("/")) -> dict[str, Any]:
    """What moves while a device works: clocks, temperatures, and counters of throttling, as far as it tells."""
    state: dict[str, Any] = {
        "clocks": {
            **_numbers(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"),
            **_numbers(root, "sys/class/devfreq/*/cur_freq"),
        },
        "temperature_c": {
            name: value / 1e3
            for name, value in _numbers(root, "sys/class/thermal/thermal_zone*/temp", "type").items()
            if name != "PMIC-Die"  # of older Jetsons: always 100 °C
        },
        "throttle": {
            **_numbers(root, "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"),
            **_numbers(root, "sys/class/hwmon/hwmon*/oc[12]_event_cnt"),
        },
        "cooling": cooling(root),
        "warning": _numbers(root, "sys/class/hwmon/hwmon*/oc3_event_cnt"),  # at full power it ticks all the time
    }
    found = re.search(r"0x([0-9a-fA-F]+)", _output("vcgencmd", "get_throttled") or "")
    if found:
        state["throttle"]["vcgencmd"] = float(int(found[1], 16) & 0xF)  # the lower bits are about now
    return {name: value for name, value in state.items() if value}


def throttled(states: list[dict[str, Any]], exclusive: bool) -> list[str]:
    """What slowed the device down between the first and the last of these states: names of counters and clocks.

    Args:
        states: Before the network was loaded, looks while it was timed, and after. There may be no looks.
        exclusive: Whether the device's clock should stay where it is. Elsewhere it follows everybody's load.
    """
    before, *later = (state.get("throttle", {}) for state in states)
    reasons = {name for state in later for name, value in state.items() if value > before.get(name, value)}
    if any(state.get("vcgencmd") for state in (before, *later)):  # bits that say what is, not a counter
        reasons.add("vcgencmd")
    reasons |= {name for state in states for name, value in state.get("cooling", {}).items() if value}
    looks = states[1:-1]  # under load: what clocks are before is another matter
    if exclusive and len(looks) > 1:
        middle = len(looks) // 2
        early, late = fastest(looks[:middle]), fastest(looks[middle:])
        reasons |= {f"clock of the {part}" for part in early.keys() & late.keys() if late[part] < SLOWED * early[part]}
    return sorted(reasons)


def fastest(states: list[dict[str, Any]]) -> dict[str, float]:
    """The highest clock of all cores, and that of the GPU: some looks find them idle."""
    clocks: dict[str, float] = {}
    for name, value in [clock for state in states for clock in state.get("clocks", {}).items()]:
        part = "processor" if "cpufreq" in name else "GPU" if re.search(r"gpu|g[apv]1\db", name) else None
        if part:
            clocks[part] = max(clocks.get(part, 0.0), value)
    return clocks


def cores_busy() -> float:
    """How many cores others keep busy, by a look of `LOOK_S` seconds; 0 where the system does not tell."""
    busy, then = busy_core_seconds(), time.monotonic()
    time.sleep(LOOK_S)
    now = busy_core_seconds()
    return 0.0 if busy is None or now is None else (now - busy) / (time.monotonic() - then)


def wait_until_quiet(settings: dict[str, Any], wanted: Callable[[], bool]) -> None:
    """Wait until others leave enough of the processor, and the device is cool.

    Raises:
        ProbeError: `device_busy` or `throttled`, if they do not.
    """
    cores = os.cpu_count() or 1
    allowed = EXCLUSIVE_LOAD if settings["exclusive"] else spare_cores(settings) + NEARLY
    started, pause = time.monotonic(), LOOK_S
    while True:
        load = cores_busy() if allowed < cores else 0.0  # there is no load that would be too much
        hottest = max(machine_state().get("temperature_c", {}).values(), default=0.0)
        if load <= allowed and hottest <= HOT_C:
            return
        if time.monotonic() - started > BUSY_LIMIT_S or not wanted():
            if hottest > HOT_C:
                raise ProbeError("throttled", f"the device is at {hottest:.0f} °C and does not cool down")
            raise ProbeError("device_busy", f"other processes keep {load:.1f} of its {cores} cores busy")
        time.sleep(pause)
        pause = min(2 * pause, 8.0)


@contextlib.contextmanager
def open_lock(name: str, folder: Path | None = None) -> Iterator[int]:
    """A lock file that every user of the machine may lock; released by the kernel however a process ends."""
    folder = folder or LOCKS
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)  # whatever the umask: as /tmp itself
    # No links are followed: others may write where the folder is. To lock it takes no right to write.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    inside = os.open(folder, flags | os.O_DIRECTORY)
    try:
        with contextlib.suppress(FileExistsError):
            made = os.open(name, flags | os.O_CREAT | os.O_EXCL, dir_fd=inside)
            os.fchmod(made, 0o644)
            os.close(made)
        descriptor = os.open(name, flags, dir_fd=inside)
    finally:
        os.close(inside)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def measuring(
    folder: Path | None = None, limit_s: float = LOCK_LIMIT_S, wanted: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Hold the machine alone: no training and no other measurement of nas-yolo computes meanwhile.

    Whoever measures first closes `gate`; trainings look at it between two batches and let go of `main`.

    Raises:
        ProbeError: `device_busy` if others hold it for `limit_s` seconds, or the result is not `wanted` any more.
    """
    deadline = time.monotonic() + limit_s
    with open_lock("main", folder) as main, open_lock("gate", folder) as gate:
        for lock in (gate, main):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline or not wanted():
                        raise ProbeError("device_busy", f"others measured or trained on it for {limit_s:g} s") from None
                    time.sleep(0.02)
        yield


# Supervision: in the first process, which loads no runtime ----------------------------------------------------------


def run_job(job: dict[str, Any], say: Callable[[Event], None], wanted: Callable[[], bool]) -> dict[str, Any]:
    """Do a job in a fresh process of its own, within its limits; the result.

    Raises:
        ProbeError: If there is none.
    """
    if job["action"] == "identify":
        say({"event": "phase", "phase": "loading"})  # of the runtime, which takes long on small devices
        found = in_child(job, lambda _: load_runtime(job["runtime_source"]).identity(job["settings"]), say, wanted, [])
        return {**identify_machine(), **found}
    say({"event": "phase", "phase": "waiting"})
    with measuring(limit_s=job["limits"]["waiting"], wanted=wanted):
        wait_until_quiet(job["settings"], wanted)
        say({"event": "phase", "phase": "loading"})
        states = [machine_state()]
        figures = in_child(job, lambda tell: timed_job(job, tell), say, wanted, states)
        states.append(machine_state())
    if slowed := throttled(states, job["settings"]["exclusive"]):
        figures["flags"] = [*figures["flags"], "throttled"]
        figures["throttled_by"] = slowed
    figures["identity"] = {**identify_machine(), **figures["identity"]}
    return {**figures, "before": states[0], "after": states[-1]}


def in_child(
    job: dict[str, Any],
    work: Callable[[Callable[[Event], None]], dict[str, Any]],
    say: Callable[[Event], None],
    wanted: Callable[[], bool],
    states: list[dict[str, Any]],
) -> dict[str, Any]:
    """Fork, work there, and end that process with all that it started when a phase takes too long.

    Args:
        job: For its limits and its folder.
        work: What to do; it is given a function that reports the next phase.
        say: Reports to whoever asked.
        wanted: Whether whoever asked is still there.
        states: Gets the state of the machine, now and then.
    """
    receive, send = os.pipe()
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.close(receive)
            _child(work, send, errors)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(child, child)  # here too: whoever is first, from now on its group can be ended
        os.close(send)
        try:
            with open(receive, "rb") as pipe:
                result, ended = _follow(child, pipe, job["limits"], say, wanted, states)
            status = _wait(child)
        except BaseException:  # whoever asked is gone
            _end_group(child)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
            raise
        _end_group(child)
        errors.seek(0, os.SEEK_END)
        errors.seek(-min(errors.tell(), ERROR_BYTES), os.SEEK_END)
        said = errors.read().decode(errors="replace").strip()
    if result and result["event"] == "result":
        return dict(result["result"])
    if result:
        raise ProbeError(result["cause"], result["message"], result["detail"])
    if ended:
        raise ProbeError(*ended, said)
    last = (said.splitlines() or ["it said nothing"])[-1][:200]
    if status is None:
        raise ProbeError("crash", "the process closed its connections but did not end", said)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL:  # nobody here sent it: the kernel, for want of memory
            raise ProbeError("oom", "the process was killed, as the system does when memory runs out", said)
        raise ProbeError("crash", f"the process ended by {signal.Signals(number).name}: {last}", said)
    raise ProbeError("crash", f"the process ended with status {os.WEXITSTATUS(status)}: {last}", said)


def _child(work: Callable[[Callable[[Event], None]], dict[str, Any]], send: int, errors: BinaryIO) -> None:
    """The forked process, from its birth to its end."""
    status = 1
    try:
        os.setpgid(0, 0)  # a group of its own, so that all that it starts can be ended with it
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive its supervisor
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, this one is to go
        os.dup2(errors.fileno(), 2)
        os.dup2(errors.fileno(), 1)  # libraries print there
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        with open(send, "w", encoding="utf-8") as pipe:

            def tell(event: Event) -> None:
                pipe.write(json.dumps(event) + "\n")
                pipe.flush()

            try:
                tell({"event": "result", "result": work(tell)})
            except BaseException as error:
                import traceback

                found = failure(error)
                tell({**found, "detail": (found["detail"] or traceback.format_exc())[-ERROR_BYTES:]})
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def failure(error: BaseException) -> Event:
    """An exception as data. A runtime file names the cause at the beginning of its message."""
    text = " ".join(str(error).split())
    message = text[:300] or type(error).__name__
    cause, detail = "crash", ""
    named = re.match(r"(config_mismatch|unsupported|garbage|timeout|oom|crash): (.+)", message)
    if isinstance(error, ProbeError):
        cause, detail = error.cause, error.detail
    elif named:
        cause, message = named[1], named[2]
    elif isinstance(error, MemoryError) or NO_MEMORY.search(text):
        cause = "oom"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        cause = "disk_full"
    elif isinstance(error, ImportError):
        cause = "unsupported"
    else:
        message = f"{type(error).__name__}: {message}"
    return {"event": "failure", "cause": cause, "message": message, "detail": detail}


def _limit_memory() -> None:
    """No more than the machine has: a network that wants more fails by itself, before the device begins to swap."""
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _read(Path("/proc/meminfo")) or "", re.M)
    if available:
        bound = int(available[1]) * 1024
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def _follow(
    child: int,
    pipe: BinaryIO,
    limits: dict[str, float],
    say: Callable[[Event], None],
    wanted: Callable[[], bool],
    states: list[dict[str, Any]],
) -> tuple[Event | None, tuple[str, str] | None]:
    """Listen to a child to its end; its last event, and why it was ended, if it was."""
    phase, text = "loading", b""
    deadline = time.monotonic() + limits[phase]
    last: Event | None = None
    while True:
        ready, _, _ = select.select([pipe], [], [], POLL_S)
        if ready:
            more = os.read(pipe.fileno(), 65536)
            if not more:
                return last, None
            text += more
            while b"\n" in text:
                line, _, text = text.partition(b"\n")
                event = json.loads(line)
                if event["event"] != "phase":
                    last = event
                    continue
                say(event)
                phase = event["phase"]
                del states[1:]  # they were of the phase before
                deadline = time.monotonic() + limits[phase]
        if states:
            states.append(machine_state())
        if time.monotonic() > deadline or not wanted():
            _end_group(child)
            if time.monotonic() > deadline:
                return None, ("timeout", f"{phase} did not end within {limits[phase]:g} s")
            return None, ("unreachable", "whoever asked for it is gone")


def _wait(child: int) -> int | None:
    """The status of a child that has no more to say; None if it did not end and was killed."""
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    _end_group(child)
    os.waitpid(child, 0)
    return None


def _end_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


# Files --------------------------------------------------------------------------------------------------------------


def receive_files(job: dict[str, Any], source: BinaryIO, say: Callable[[Event], None], folder: Path) -> None:
    """Put the files of a job into its folder: those that are not kept here come from `source`, one after the other.

    Kept files are found by their SHA-256; the least recently used go when there are too many.

    Raises:
        ProbeError: If one does not arrive whole, or is too large.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas-yolo" / "models"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = job["files"]
    for name, file in files.items():
        if not re.fullmatch(r"[a-z]+\.[a-z]+", name) or not re.fullmatch(r"[0-9a-f]{64}", file["sha256"]):
            raise ProbeError("garbage", f"{name!r} is no name of a model")
        if not 0 < file["size"] <= FILE_BYTES:
            raise ProbeError("garbage", f"{name} has {file['size']} bytes; at most {FILE_BYTES} are taken")
    missing = []
    for name, file in files.items():
        try:
            os.utime(cache / file["sha256"])  # just used: others will not make room by it
        except FileNotFoundError:
            missing.append(name)
    missing = list({files[name]["sha256"]: name for name in reversed(missing)}.values())[::-1]
    say({"event": "missing", "files": missing})
    for name in missing:
        file = files[name]
        temporary = cache / f".{file['sha256']}.{os.getpid()}"
        try:
            digest, left = hashlib.sha256(), file["size"]
            with open(temporary, "wb") as out:
                while left:
                    piece = source.read(min(left, 2**20))
                    if not piece:
                        raise ProbeError("unreachable", f"the connection was cut while {name} was sent")
                    digest.update(piece)
                    out.write(piece)
                    left -= len(piece)
                out.flush()
                os.fsync(out.fileno())  # before it gets its name: a device may lose power at any time
            if digest.hexdigest() != file["sha256"]:
                raise ProbeError("unreachable", f"{name} did not arrive as it was sent")
            temporary.replace(cache / file["sha256"])
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    for name, file in files.items():
        shutil.copy(cache / file["sha256"], folder / name)  # a copy: another job may make room meanwhile
    _make_room(cache)


def _make_room(cache: Path) -> None:
    """Remove what was not used for longest until the rest is within the quota, and what dead processes left."""
    kept = []
    for path in cache.iterdir():
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            if not path.name.startswith("."):
                kept.append((about.st_mtime, about.st_size, path))
            elif time.time() - about.st_mtime > 3600:
                path.unlink()
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= QUOTA_BYTES:
            break
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        total -= size


# The two ways in ----------------------------------------------------------------------------------------------------


def serve() -> int:
    """Read one job, a line of JSON, and the files that are missing here; say what happens, in lines of JSON.

    Before them comes the job's marker, on a line of its own: what stands above it is what a login printed.
    The end of the input means that whoever asked is gone: everything is ended.
    """
    source = sys.stdin.buffer

    def say(event: Event) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    def wanted() -> bool:
        return not select.select([source], [], [], 0)[0]  # nothing is sent after the files: readable means closed

    def ended(_number: int, _frame: Any) -> None:
        raise ProbeError("unreachable", "whoever asked for it is gone")

    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGHUP, ended)
    try:
        job = json.loads(source.readline(JOB_BYTES))
        sys.stdout.write(f"\n{job['marker']}\n")  # what was printed before may lack its line end
        with tempfile.TemporaryDirectory(prefix="nas-yolo-") as folder:
            job["settings"]["folder"] = folder
            if "files" in job:
                receive_files(job, source, say, Path(folder))
                for role in ("model", "reference"):
                    job[role] = str(Path(folder) / next(name for name in job["files"] if name.startswith(f"{role}.")))
            say({"event": "result", "result": run_job(job, say, wanted)})
    except BrokenPipeError:
        return 1
    except Exception as error:
        with contextlib.suppress(OSError):
            say(failure(error))
        return 1
    return 0


def main() -> int:
    """Measure by hand, one pair of files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="candidate, in the runtime's format")
    parser.add_argument("--reference", required=True, help="frozen reference model")
    parser.add_argument("--runtime", required=True, help="name of a file in the folder runtimes beside this one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", help="cpu, cuda or tensorrt; default: the first that the runtime has")
    parser.add_argument("--exclusive", action="store_true", help="nothing else runs on this device")
    parser.add_argument("--with-postprocess", action="store_true", help="time decoding and NMS too")
    arguments = parser.parse_args()
    source = Path(__file__).parent / "runtimes" / f"{arguments.runtime}.py"
    if not re.fullmatch(r"\w+", arguments.runtime) or not source.is_file():
        parser.error(f"there is no runtime {arguments.runtime!r} in {source.parent}")
    runtime = load_runtime(source.read_text(encoding="utf-8"))
    arguments.device = arguments.device or runtime.DEVICES[0]
    for name, known in (("precision", runtime.PRECISIONS), ("device", runtime.DEVICES)):
        if getattr(arguments, name) not in known:
            parser.error(f"--{name} must be {' or '.join(known)} with {arguments.runtime}")
    if arguments.threads < 1:
        parser.error("--threads must be at least 1")
    for path in (arguments.model, arguments.reference):
        if not Path(path).exists():
            parser.error(f"{path} does not exist")
    with tempfile.TemporaryDirectory(prefix="nas-yolo-") as folder:
        job = {
            "action": "measure",
            "runtime": arguments.runtime,
            "runtime_source": source.read_text(encoding="utf-8"),
            "settings": {
                "threads": arguments.threads,
                "precision": arguments.precision,
                "device": arguments.device,
                "exclusive": arguments.exclusive,
                "folder": folder,
            },
            "model": arguments.model,
            "reference": arguments.reference,
            "postprocess": arguments.with_postprocess,
            "limits": {"waiting": 60.0, "loading": 900.0, "measuring": 120.0},
        }
        try:
            result = run_job(job, lambda event: print(event.get("phase"), file=sys.stderr), lambda: True)
        except ProbeError as error:
            print(f"{error.cause}: {error}", file=sys.stderr)
            return 1
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

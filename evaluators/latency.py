"""Latency of one network on one target: the one timing protocol, whatever the runtime.

The candidate and a frozen reference, yolov8n at the same image size, are timed in interleaved blocks by a fresh process
(`probe.py`) that has the machine to itself (`host_lock.py`). The latency is the ratio of the two times the reference's
calibrated time, which is measured once per target and image size and kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from evaluators.evaluation import Latency
from evaluators.export import export_onnx
from evaluators.host_lock import measuring
from evaluators.target import Target

if TYPE_CHECKING:
    from torch import nn

PROTOCOL = "1"
REFERENCE = "yolov8n"
CALIBRATION_SESSIONS = 3
TIMEOUT_S = 120
PROBE = Path(__file__).parent / "probe.py"


class LatencyError(RuntimeError):
    """A measurement that gave no number; the message says why."""


@dataclass(frozen=True)
class Calibration:
    """The reference's time on a target when it was set up.

    Attributes:
        fingerprint: Of the target (see `fingerprint`).
        imgsz: Pixels.
        reference_ms: Median over fresh sessions of the reference's median time.
        spread: Largest relative deviation among these sessions: how far raw milliseconds can be trusted here.
    """

    fingerprint: str
    imgsz: int
    reference_ms: float
    spread: float


def fingerprint(target: Target) -> str:
    """Hash of everything that latency depends on besides the model: sixteen hexadecimal digits."""
    identity = {
        "machine": platform.node(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "runtime": target.runtime,
        "runtime_version": version(target.runtime),
        "precision": target.precision,
        "threads": target.threads,
        "reference": REFERENCE,
        "protocol": PROTOCOL,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def calibrate(target: Target, imgsz: int) -> Calibration:
    """Time the reference in fresh sessions. Do it once per target and image size, on a quiet machine.

    Raises:
        LatencyError: If it cannot be timed.
    """
    reference = reference_onnx(imgsz)
    times = []
    for _ in range(CALIBRATION_SESSIONS):
        times.append(_probe(reference, reference, target)["reference_ms"])
    middle = statistics.median(times)
    spread = max(abs(value / middle - 1) for value in times)
    return Calibration(fingerprint(target), imgsz, middle, spread)


def measure_latency(model: nn.Module, target: Target, calibration: Calibration, scratch: Path) -> Latency:
    """Export a network and time it.

    Args:
        model: A detector as Ultralytics builds it; left unchanged.
        target: Where.
        calibration: Of that target and the image size to use.
        scratch: An existing folder for the exported file.

    Raises:
        LatencyError: If it cannot be timed: the runtime crashed, hung, or produced values that are not finite.
    """
    candidate = scratch / f"candidate-{os.getpid()}.onnx"
    reference = reference_onnx(calibration.imgsz)
    export_onnx(model, calibration.imgsz, candidate)
    try:
        result = _probe(candidate, reference, target)
    finally:
        candidate.unlink()
    reference_ms = calibration.reference_ms
    return Latency(
        target=target.name,
        fingerprint=calibration.fingerprint,
        imgsz=calibration.imgsz,
        latency_ms=result["ratio"] * reference_ms,
        ci_low_ms=result["ratio_low"] * reference_ms,
        ci_high_ms=result["ratio_high"] * reference_ms,
        ratio=result["ratio"],
        reference_ms=reference_ms,
        median_ms=result["median_ms"],
        p90_ms=result["p90_ms"],
        samples=result["samples"],
        drift=result["drift"],
        load=result["load"],
        quality="noisy" if result["flags"] else "good",
        flags=tuple(result["flags"]),
    )


def reference_onnx(imgsz: int) -> Path:
    """The frozen reference model as ONNX, made once per image size and kept in the user's cache.

    Its weights are random but always the same; time does not depend on them.
    """
    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / "reference"
    path = folder / f"{REFERENCE}-{imgsz}-protocol{PROTOCOL}.onnx"
    if not path.exists():
        import torch

        from search_spaces import hook
        from search_spaces.space_file import load_preset

        folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = hook.build(hook.model_file(load_preset(REFERENCE), nc=80))
        export_onnx(model, imgsz, path)
    return path


def _probe(candidate: Path, reference: Path, target: Target) -> dict[str, Any]:
    """Load both models in a fresh process, then time them while nobody else computes."""
    runtime = Path(__file__).parent / "runtimes" / f"{target.runtime}.py"
    command = [sys.executable, "-I", str(PROBE), "--model", str(candidate), "--reference", str(reference)]
    command += ["--runtime", str(runtime), "--threads", str(target.threads), "--wait"]
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process:
            assert process.stdout is not None
            try:
                with _killed_after(TIMEOUT_S, process, target):
                    process.stdout.readline()  # "ready", or the end of a process that failed
                with measuring(), _killed_after(TIMEOUT_S, process, target):
                    output, _ = process.communicate("go\n")
            finally:
                process.kill()
        if process.returncode != 0:
            errors.seek(0)
            reason = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise LatencyError(f"{target.runtime} ended with status {process.returncode}: {reason[:200]}")
    try:
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise LatencyError(f"{target.runtime} printed no result") from error
    if not result.get("finite"):
        raise LatencyError(f"{target.runtime} computed values that are not finite")
    return result


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[str], target: Target) -> Iterator[None]:
    """Kill a process that does not come to its next step in time; waiting for the machine does not count."""
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    try:
        yield
    finally:
        timed_out = watchdog.finished.is_set()
        watchdog.cancel()
    if timed_out:
        raise LatencyError(f"{target.runtime} did not finish within {seconds} s")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model", "Hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()

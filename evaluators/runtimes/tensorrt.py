"""TensorRT, by NVIDIA's `trtexec`, which builds an engine on the device and times it.

What counts is the time that the GPU computes, without the copies to and from it. While it computes, trtexec already
asks for the next run: an application that takes one image after the other waits somewhat longer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PRECISIONS = ("fp32", "fp16", "int8")
DEVICES = ("cuda",)
PLACES = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")  # where it is when it is not on PATH
WARM_UP_MS = 1000
DURATION_S = 3
ITERATIONS = 200
MIN_SAMPLES = 190  # of these: trtexec counts a run that began before the end of the warm-up
BOUNDS_MS = (0.01, 60_000.0)  # of a believable time
UNSTABLE_PERCENT = 2.5  # from TensorRT 10 on, trtexec warns from 1 % on
TENSOR_TYPES = {"fp16": "fp16|half", "int8": "int8"}  # as layers are described: of TensorRT 8, and 10
MIN_TELLING_BYTES = 10_000_000  # of a model whose engine's size says something
LOG_CHARACTERS = 3000
# How versions, and the libraries below them, say that memory lacks. Where a build passes it is of no account: a kernel
# was skipped, and another one found. Workspace is another matter: it lacks, they say, wherever no kernel is known.
NO_MEMORY = re.compile(
    r"out ?of ?memory|memory is insufficient|insuff?icient (?:\w+ )?memory|memory \(?.*could not be allocated|"
    r"(?:cannot|fail\w*|unable) (?:to )?allocat|allocator error|_ALLOC_FAILED|MemoryAllocation|bad_alloc|"
    r"NvMapMem\w+: .*error 12\b",
    re.I,
)
# Errors that tell that a build failed, and not why.
FAILED = re.compile(
    r"could not find any implementation|skipping tactic|engine (?:set ?up|building) failed|building engine failed|"
    r"engine != nullptr|engine could not be created|failed to create (?:an? |the )?engine",
    re.I,
)


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Runtime and version."""
    return {"runtime": "tensorrt", "version": ".".join(map(str, _version(_trtexec())))}


def model_format(precision: str, identity: dict[str, Any]) -> str:
    """ONNX; from TensorRT 11 on in the precision that it is to be computed in, before that in fp32."""
    lowered = precision != "fp32" and int(identity["version"].split(".")[0]) >= 11
    return f"onnx-{precision}" if lowered else "onnx"


def load(model: str, settings: dict[str, Any]) -> Network:
    """Build an engine.

    Raises:
        RuntimeError: `config_mismatch` if it does not compute in the precision that is asked for; `unsupported` if
            there is no trtexec, or it cannot build this network; `crash` or `oom` if it fails.
    """
    return Network(model, settings)


class Network:
    """An engine."""

    def __init__(self, model: str, settings: dict[str, Any]):
        self.trtexec = _trtexec()
        self.version = _version(self.trtexec)
        self.folder = Path(tempfile.mkdtemp(dir=settings["folder"]))
        precision = settings["precision"]
        self._build(model, precision)
        self.settings = {"precision": precision, **self._read_back(precision, os.path.getsize(model))}

    def samples(self) -> tuple[list[float], list[str]]:
        """Time it for a session: milliseconds of single runs, and flags.

        If trtexec leaves no file of times there is but one, the median that it prints.
        """
        file = self.folder / "times.json"
        if file.exists():
            file.unlink()
        # These are the defaults from TensorRT 11 on.
        options = ["--useCudaGraph", "--useSpinWait", "--noDataTransfers"] if self.version[0] <= 10 else []
        log = self._run(
            f"--loadEngine={self.folder / 'engine'}",
            f"--warmUp={WARM_UP_MS}",
            f"--duration={DURATION_S}",
            f"--iterations={ITERATIONS}",
            "--avgRuns=1",
            "--percentile=50,90,99",
            f"--exportTimes={file}",
            *options,
        )
        times = _exported_times(file.read_text(errors="replace"), log) if file.exists() else [_printed_median(log)]
        for time in times:
            if not BOUNDS_MS[0] <= time <= BOUNDS_MS[1]:
                raise RuntimeError(f"garbage: a time of {time:g} ms is not believable") from _said(log)
        flags = []
        variation = re.search(r"unstable, with coefficient of variance = (\S+)%", log)
        if variation and float(variation[1]) > UNSTABLE_PERCENT:
            flags.append("unstable")
        if "bound by Enqueue Time" in log:
            flags.append("enqueue_bound")
        return times, flags

    def _build(self, model: str, precision: str) -> None:
        """Build the engine and describe its layers, with what was learnt about kernels in earlier builds."""
        kept = _timing_cache(self.version)
        cache = self.folder / "timing.cache"
        if kept.exists():
            shutil.copy(kept, cache)
        self._run(
            f"--onnx={model}",
            f"--saveEngine={self.folder / 'engine'}",
            f"--timingCacheFile={cache}",
            "--profilingVerbosity=detailed",
            f"--exportLayerInfo={self.folder / 'layers.json'}",
            "--skipInference" if self.version >= (8, 6) else "--buildOnly",
            # int8 without calibration: the ranges are made up, which is as fast, and of no use for accuracy.
            *([f"--{precision}"] if precision != "fp32" and self.version[0] <= 10 else []),
        )
        if cache.exists():  # as a whole, and only of a build that passed: a broken one would spoil all later builds
            temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
            shutil.copy(cache, temporary)
            os.replace(temporary, kept)

    def _read_back(self, precision: str, model_bytes: int) -> dict[str, Any]:
        """Whether the engine computes in the precision that was asked for; what is known of it.

        trtexec may keep silent about an engine that is all fp32. So some tensor between the layers must have the type.
        Where the layers are not described it is the size that tells: an fp32 engine holds all weights of the model, and
        is some 2 MB larger; an fp16 engine has half of that, and some 3.5 MB besides. Thus it tells nothing of a small
        model, nor from TensorRT 11 on, where the model itself is lowered and nothing else decides.
        """
        engine, layers = self.folder / "engine", self.folder / "layers.json"
        engine_bytes = engine.stat().st_size if engine.exists() else 0
        if not engine_bytes:
            raise RuntimeError("garbage: trtexec passed and left no engine")
        found: dict[str, Any] = {"engine_bytes": engine_bytes}
        if precision == "fp32":
            return found
        described = layers.read_text(errors="replace") if layers.exists() else ""
        types = re.findall(r'"Format/Datatype"\s*:\s*"([^"]*)"', described)
        if types:
            lowered = [name for name in types if re.search(TENSOR_TYPES[precision], name, re.I)]
            if not lowered:
                raise RuntimeError(f"config_mismatch: asked for {precision}, but no tensor of the engine has that type")
            found["tensors_in_precision"] = round(len(lowered) / len(types), 3)
        elif self.version[0] <= 10 and engine_bytes > model_bytes >= MIN_TELLING_BYTES:
            raise RuntimeError(
                f"config_mismatch: asked for {precision}, but the engine has {engine_bytes / 1e6:.1f} MB, more than "
                f"the {model_bytes / 1e6:.1f} MB of the weights in fp32"
            )
        return found

    def _run(self, *options: str) -> str:
        """What trtexec prints when it passes."""
        status, log = _call(self.trtexec, *options)
        if status != 0 or not re.search(r"^&&&& PASSED TensorRT\.trtexec", log, re.M):
            raise RuntimeError(_cause(status, log, ".".join(map(str, self.version)))) from _said(log)
        return log


def _trtexec() -> str:
    """Its path."""
    for place in ("trtexec", *PLACES):
        found = shutil.which(place)
        if found:
            return found
    raise RuntimeError(
        f"unsupported: there is no trtexec on PATH, nor {' or '.join(PLACES)}; install TensorRT with its samples "
        "(on a Jetson: apt install tensorrt), or put the folder of trtexec on PATH"
    )


def _version(trtexec: str) -> tuple[int, int, int]:
    """Major, minor and patch number, from the line that it begins with."""
    _, log = _call(trtexec, "--help")
    banner = re.search(r"TensorRT\.trtexec \[TensorRT v(\d+)\]", log)
    if not banner:
        raise RuntimeError(
            f"unsupported: {trtexec} does not say that it is of TensorRT 8 or later: {_last(log)}"
        ) from _said(log)
    number = int(banner[1])
    if number < 10_000:  # 8502 is 8.5.2
        return number // 1000, number // 100 % 10, number % 100
    return number // 10_000, number // 100 % 100, number % 100  # 101303 is 10.13.3


def _timing_cache(version: tuple[int, ...]) -> Path:
    """Where the timings of kernels are kept on the device."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "nas-yolo" / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{'.'.join(map(str, version))}.cache"


def _call(*command: str) -> tuple[int, str]:
    """Exit status of a program, and what it said; that is repeated as it comes, for whoever ends it."""
    log = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            log.append(line)
            sys.stderr.write(line)
            sys.stderr.flush()
    return process.returncode, "".join(log)


def _said(log: str) -> RuntimeError:
    """The end of a log, as the cause of an error, so that it is in the traceback."""
    return RuntimeError(f"trtexec said:\n{log[-LOG_CHARACTERS:]}")


def _last(log: str) -> str:
    return (log.strip().splitlines() or ["it said nothing"])[-1].strip()


def _cause(status: int, log: str, version: str) -> str:
    """Why trtexec did not pass, in one line that begins with a word for it."""
    unknown = re.findall(r"Unknown option: (--\w+)", log)
    if unknown:
        return f"config_mismatch: trtexec of TensorRT {version} does not know {', '.join(unknown)}"
    errors = re.findall(r"(?:\[E\] |(?=Cuda failure|terminate called ))(.*)", log)
    lacking = [line for line in errors if NO_MEMORY.search(line)]
    if not lacking and status >= 0 and all(map(FAILED.search, errors)):
        lacking = [re.sub(r"^.*?\[[A-Z]\] ", "", line) for line in log.splitlines() if NO_MEMORY.search(line)]
    if lacking or status == -signal.SIGKILL:
        reason = (lacking or errors or ["it was killed, as the system does then"])[0]
        return f"oom: trtexec had not enough memory: {reason}"
    first = errors[0] if errors else _last(log)
    if re.search(r"failed to parse|parsing model failed", log, re.I):
        operator = re.search(r"(?:While parsing node number \d+ \[|operator: |could not find plugin:? )(\w+)", log)
        if operator:
            return f"unsupported: TensorRT {version} cannot do operator {operator[1]}: {first}"
        return f"unsupported: TensorRT {version} cannot read the model: {first}"
    if status < 0:
        return f"crash: trtexec ended by {signal.Signals(-status).name}: {first}"
    if status == 0 and "&&&& FAILED" not in log:
        return f"garbage: trtexec ended without saying whether it passed: {first}"
    return f"crash: trtexec failed with status {status}: {first}"


def _exported_times(text: str, log: str) -> list[float]:
    """Milliseconds of all runs after the warm-up, from the file that trtexec writes.

    Raises:
        RuntimeError: `garbage` if it is not such a file, or has fewer runs than were asked for.
    """
    try:
        runs = json.loads(text)
        # Older versions write the runs of the warm-up too. What belongs to it, all versions decide like this.
        times = [float(run["computeMs"]) for run in runs if run["startComputeMs"] >= WARM_UP_MS]
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeError(f"garbage: trtexec's file of times cannot be read: {error!r}") from _said(log)
    if len(times) < MIN_SAMPLES:
        raise RuntimeError(f"garbage: trtexec timed {len(times)} runs; {ITERATIONS} were asked for") from _said(log)
    return times


def _printed_median(log: str) -> float:
    """The median of the GPU's time in milliseconds, as printed: in one line, or by old versions in several.

    Raises:
        RuntimeError: `garbage` if it is not there.
    """
    number = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?) ms"
    found = re.search(rf"\] GPU Compute(?: Time)?: .*\bmedian = {number}", log) or re.search(
        rf"\] GPU Compute *\n(?:.*\] (?:min|max|mean): .*\n)*.*\] median: {number}", log
    )
    if not found:
        raise RuntimeError(
            f"garbage: trtexec wrote no times and printed no median of the GPU's: {_last(log)}"
        ) from _said(log)
    return float(found[1])

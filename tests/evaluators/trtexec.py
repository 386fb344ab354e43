"""A stand-in for NVIDIA's trtexec, which needs a GPU: options and words of the real one, times that the models name.

A "model" is a file whose first line is the milliseconds that it takes; its engine is a copy. `trtexec.json` beside the
program says which version it plays, and what goes wrong; `calls.json` gets the arguments of each call.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

OPTIONS = {
    *("help", "onnx", "saveEngine", "loadEngine", "timingCacheFile", "profilingVerbosity", "exportLayerInfo"),
    *("warmUp", "duration", "iterations", "avgRuns", "percentile", "exportTimes"),
    *("useCudaGraph", "useSpinWait", "noDataTransfers"),
}
STAMP = "[05/27/2024-16:38:42]"
SUMMARY = """\
{stamp} [I] === Performance summary ===
{stamp} [I] Throughput: 32.7261 qps
{stamp} [I] Latency: min = 99 ms, max = 99 ms, mean = 99 ms, median = 99 ms, percentile(90%) = 99 ms
{stamp} [I] GPU Compute Time: min = {ms} ms, max = {ms} ms, mean = {ms} ms, median = {ms} ms, percentile(90%) = {ms} ms
{stamp} [I] Total Host Walltime: 3.08622 s"""


def options_of(version: int) -> set[str]:
    """The options that a version knows, of those that matter here."""
    precisions = {"fp16", "int8", "best", "calib"} if version < 110000 else set()
    return OPTIONS | precisions | {"skipInference" if version >= 8600 else "buildOnly"}


def play(script: dict[str, object]) -> None:
    """What the test wants to happen in this phase."""
    print(script.get("say", ""), flush=True)
    if "pid_file" in script:
        Path(str(script["pid_file"])).write_text(str(os.getpid()))
        time.sleep(600)
    if "signal" in script:
        os.kill(os.getpid(), signal.Signals[str(script["signal"])])
    if "status" in script:
        sys.exit(int(str(script["status"])))


def write_times(path: str, ms: float, given: dict[str, str], config: dict[str, object]) -> None:
    """The file of times, as C++ prints numbers, which is not always JSON."""
    warm_up_ms = float(given["warmUp"])
    count = int(config.get("samples", max(int(given["iterations"]), float(given["duration"]) * 1e3 // ms)))
    warm_ups = int(warm_up_ms // ms) if config.get("times_of_warm_up") else 0
    lines = []
    for run in range(-warm_ups, count):
        compute = f"{ms * (5.0 if run < 0 else 1 + 0.001 * (run % 5 - 2)):g}"
        if run == count // 2:
            compute = config.get("compute_ms", compute)
        lines.append(f'{{ "startComputeMs" : {warm_up_ms + run * ms:g}, "computeMs" : {compute}, "latencyMs" : 99 }}')
    Path(path).write_text("[\n  " + "\n, ".join(lines) + "\n]\n")


def main() -> None:
    here = Path(sys.argv[0]).resolve().parent
    config = json.loads((here / "trtexec.json").read_text())
    with open(here / "calls.json", "a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    given = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
    version = config["version"]
    command = f"TensorRT.trtexec [TensorRT v{version}] # {' '.join(sys.argv)}"
    print(f"&&&& RUNNING {command}")
    if "help" in given:
        print("=== Model Options ===")
        return
    if unknown := [name for name in given if name not in options_of(version)]:
        print("=== Model Options ===")
        for name in unknown:
            print(f"{STAMP} [E] Unknown option: --{name} {given[name]}")
        print(f"&&&& FAILED {command}")
        sys.exit(1)
    building = "onnx" in given
    play(config.get("build" if building else "inference", {}))
    source = Path(given["onnx" if building else "loadEngine"]).read_bytes()
    ms = float(source.split(b"\n")[0])
    if building:
        size = config.get("engine_bytes", len(source))
        Path(given["saveEngine"]).write_bytes(source[:size].ljust(size, b"\0"))
        if "layers" in config:
            layers = [
                {"Name": "conv", "Outputs": [{"Name": "x", "Format/Datatype": each}]} for each in config["layers"]
            ]
            Path(given["exportLayerInfo"]).write_text(json.dumps({"Layers": layers}, indent=2))
        with open(given["timingCacheFile"], "a") as cache:
            cache.write(f"{ms:g}\n")
    else:
        if config.get("writes_times", True):
            write_times(given["exportTimes"], ms, given, config)
        print(config.get("summary", SUMMARY.format(stamp=STAMP, ms=f"{ms:g}")))
    print(f"&&&& PASSED {command}")


main()

"""Times a candidate against a reference in this process and prints one line of JSON. Runs on the device.

Standard library only, plus the runtime file that it is given. By hand:

    python probe.py --model candidate.onnx --reference reference.onnx --runtime runtimes/onnxruntime.py

The machine's speed wanders by several per cent (frequency, neighbours) and takes both models with it; the ratio of the
two, timed in short alternating blocks, does not. So the ratio is the measurement.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import sys
import time
from typing import Any, Callable  # noqa: UP035  # devices may have Python 3.8

Run = Callable[[], bool]

BLOCK_RUNS = 5
REFILL_RUNS = 8  # a small model is 1.7 times slower right after another ran, and needs some six runs to be itself again
REFILL_S = 0.02  # a large one never fits the caches anyway
MIN_BLOCKS = 20  # 100 samples of each model
WARM_UP_S = 0.3
WARM_UP_LIMIT_S = 10.0
STEADY = 0.02  # warm-up ends when five runs differ from the five before by less
HALF_WIDTH = 0.01  # of the 95 % interval, relative: timing stops when it is reached ...
MIN_S = 1.0
MAX_S = 6.0  # ... or when this has passed
MANY = 200  # blocks from which the normal approximation of a rank is good enough, and exact sums take too long
TOO_WIDE = 0.03
TOO_MUCH_DRIFT = 0.03
TOO_MUCH_LOAD = 0.25  # cores


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
    """CPU seconds spent so far by this process, all threads."""
    times = os.times()
    return times.user + times.system


def time_block(run: Run) -> list[float]:
    """Milliseconds of each of `BLOCK_RUNS` consecutive runs, after some that bring the model back into the caches."""
    started = time.perf_counter()
    for _ in range(REFILL_RUNS):
        run()
        if time.perf_counter() - started >= REFILL_S:
            break
    times = []
    for _ in range(BLOCK_RUNS):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def warm_up(run: Run) -> float:
    """Run until the time is steady; milliseconds of the very first run."""
    started = time.perf_counter()
    run()
    first_ms = (time.perf_counter() - started) * 1e3
    last: float | None = None
    while True:
        block = time_block(run)
        now = statistics.median(block)
        passed = time.perf_counter() - started
        steady = last is not None and abs(now - last) <= STEADY * last
        if (passed >= WARM_UP_S and steady) or passed >= WARM_UP_LIMIT_S:
            return first_ms
        last = now


def measure(candidate: Run, reference: Run) -> dict[str, Any]:
    """Alternate blocks of both until the interval of the ratio is narrow; a dictionary of figures."""
    warm_up(reference)
    first_ms = warm_up(candidate)
    ratios: list[float] = []
    candidate_ms: list[float] = []
    reference_ms: list[float] = []
    busy, own, started = busy_core_seconds(), own_core_seconds(), time.perf_counter()
    while True:
        # Always in this order, so that each finds the caches as the other left them.
        r = time_block(reference)
        c = time_block(candidate)
        candidate_ms += c
        reference_ms += r
        ratios.append(statistics.median(c) / statistics.median(r))
        seconds = time.perf_counter() - started
        if len(ratios) >= MIN_BLOCKS and seconds >= MIN_S:
            ratio, low, high = median_interval(ratios)
            if (high - low) / 2 <= HALF_WIDTH * ratio or seconds >= MAX_S:
                break
        elif seconds >= 3 * MAX_S:  # a model so slow that even the fewest blocks take half a minute
            ratio, low, high = median_interval(ratios)
            break
    half = len(ratios) // 2
    drift = abs(statistics.median(ratios[:half]) / statistics.median(ratios[half:]) - 1) if half else 0.0
    busy_now = busy_core_seconds()
    load = None
    if busy is not None and busy_now is not None:
        load = max((busy_now - busy) - (own_core_seconds() - own), 0.0) / seconds
    flags = []
    if (high - low) / 2 > TOO_WIDE * ratio:
        flags.append("wide_interval")
    if drift > TOO_MUCH_DRIFT:
        flags.append("drift")
    if load is not None and load > TOO_MUCH_LOAD:
        flags.append("foreign_load")
    if len(ratios) < MIN_BLOCKS:
        flags.append("few_samples")
    candidate_ms.sort()
    return {
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "median_ms": statistics.median(candidate_ms),
        "p90_ms": candidate_ms[int(0.9 * (len(candidate_ms) - 1))] if len(candidate_ms) >= 64 else None,
        "reference_ms": statistics.median(reference_ms),
        "first_ms": first_ms,
        "samples": len(candidate_ms),
        "drift": drift,
        "load": load,
        "flags": flags,
        "seconds": seconds,
    }


def main() -> int:
    """Load, check, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="candidate, in the runtime's format")
    parser.add_argument("--reference", required=True, help="frozen reference model")
    parser.add_argument("--runtime", required=True, help="path of a runtime file with load() and identity()")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wait", action="store_true", help="once loaded, print 'ready' and wait for a line")
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("probed_runtime", arguments.runtime)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    runtime = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runtime)
    reference = runtime.load(arguments.reference, arguments.threads)
    candidate = runtime.load(arguments.model, arguments.threads)
    finite = candidate() and reference()
    if arguments.wait:  # everything so far may disturb others; what follows must not be disturbed
        print("ready", flush=True)
        sys.stdin.readline()
    result = measure(candidate, reference) if finite else {"flags": ["wrong_output"]}
    print(json.dumps({"identity": runtime.identity(), "finite": finite, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

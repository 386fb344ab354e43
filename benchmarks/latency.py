"""How well latencies repeat between fresh processes, against a naive loop and Ultralytics' own benchmark.

    python -m benchmarks.latency --json latency.json

Four networks at 320 px, one thread, in shuffled order, each several times: on a quiet machine, then while another
process keeps one core busy. Needs a machine that nobody else uses meanwhile. With an SSH server here (Debian:
openssh-server) also over SSH to this machine.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import click

from benchmarks.report import report
from benchmarks.ssh_server import PROGRAM, SshServer
from evaluators.errors import LatencyError
from evaluators.evaluation import combine
from evaluators.latency import Calibration, calibrate, measure_latency
from evaluators.target import BUILT_IN, Target
from search_spaces.image_size import ImageSize

MODELS = ("yolo11n", "yolov8n", "yolov9t", "yolov8s")  # by latency, on a CPU
IMAGE_SIZE = ImageSize(320, 320)
NAIVE_RUNS = 10

NAIVE = """
import sys, time, statistics
import numpy as np
runtime, path, runs = sys.argv[1:]
image = np.random.default_rng(0).random((1, 3, 320, 320), dtype=np.float32)
if runtime == "onnxruntime":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    run = lambda: session.run(None, {"images": image})
else:
    import openvino
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()
    run = lambda: request.infer([image])
times = []
for _ in range(int(runs)):
    start = time.perf_counter()
    run()
    times.append((time.perf_counter() - start) * 1e3)
print(statistics.fmean(times))
"""

ULTRALYTICS = """
import sys
from ultralytics.utils.benchmarks import benchmark
format, model, data = sys.argv[1:]
table = benchmark(model=model, data=data, imgsz=320, format=format, device="cpu", verbose=False)
(column,) = [name for name in table.columns if name.startswith("Inference time")]
(value,) = [value for value in table[column].to_list() if value is not None]
print("", value)
"""


@dataclass
class Sample:
    """What one method said of the networks, in one condition.

    Attributes:
        ms: By network, one value for each repetition; None where it was refused.
        seconds: Likewise, that it took.
    """

    ms: dict[str, list[float | None]] = field(default_factory=lambda: {model: [] for model in MODELS})
    seconds: dict[str, list[float]] = field(default_factory=lambda: {model: [] for model in MODELS})

    def add(self, model: str, ms: float | None, seconds: float) -> None:
        """One more value."""
        self.ms[model].append(ms)
        self.seconds[model].append(seconds)

    def document(self) -> dict[str, Any]:
        """Figures for the report."""
        kept = {model: [ms for ms in values if ms is not None] for model, values in self.ms.items()}
        rounds = [row for row in zip(*self.ms.values(), strict=True) if None not in row]
        return {
            "cv_percent": {
                model: round(100 * statistics.stdev(values) / statistics.fmean(values), 2)
                for model, values in kept.items()
                if len(values) > 1
            },
            "order_right": f"{sum(list(row) == sorted(row) for row in rounds)} of {len(rounds)}",
            "refused": sum(ms is None for values in self.ms.values() for ms in values),
            "median_ms": {model: round(statistics.median(values), 3) for model, values in kept.items() if values},
            "seconds_per_candidate": {
                model: round(statistics.median(values), 2) for model, values in self.seconds.items()
            },
            "seconds_per_candidate_max": round(max(max(values) for values in self.seconds.values()), 2),
        }


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def run(code: str, folder: Path, *arguments: str) -> tuple[float, float]:
    """The last number that a fresh process in a folder prints, and the seconds that it takes."""
    started = time.monotonic()
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return float(done.stdout.split()[-1]), time.monotonic() - started


def measure_condition(
    targets: Mapping[str, Target],
    calibrations: Mapping[str, Calibration],
    repeats: int,
    seed: int,
    folder: Path,
    data: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """All methods on all targets, in one condition of the machine.

    Args:
        targets: By name.
        calibrations: Likewise, made while the machine was quiet.
        repeats: Of each network.
        seed: Of their order.
        folder: Holds the files of `prepare`.
        data: Images for Ultralytics' benchmark; None: leave it out.
    """
    from search_spaces import hook
    from search_spaces.presets import load_preset

    networks = {model: hook.build(hook.model_file(load_preset(model), 80)) for model in MODELS}
    samples: dict[str, dict[str, Sample]] = {name: {} for name in targets}
    order = random.Random(seed)
    for turn, (name, target) in product(range(repeats), targets.items()):
        print(f"{name}: turn {turn + 1} of {repeats}", file=sys.stderr)
        for model in order.sample(MODELS, len(MODELS)):

            def add(method: str, ms: float | None, seconds: float, name: str = name, model: str = model) -> None:
                samples[name].setdefault(method, Sample()).add(model, ms, seconds)

            started = time.monotonic()
            try:
                sessions = list(measure_latency(networks[model], target, calibrations[name], folder))
                latency = combine(sessions)
            except LatencyError as error:
                print(f"{name}, {model}: {error.cause}: {error}", file=sys.stderr)
                sessions, latency = [], None
            seconds = time.monotonic() - started
            add("nas-yolo", latency.latency_ms if latency else None, seconds)
            add("its raw median", sessions[0].median_ms if sessions else None, seconds)
            if target.ssh:
                continue
            add(
                f"naive mean of {NAIVE_RUNS}",
                *run(NAIVE, folder, target.runtime, str(folder / f"{model}.onnx"), str(NAIVE_RUNS)),
            )
            if data:
                format = "onnx" if target.runtime == "onnxruntime" else target.runtime
                add("Ultralytics' benchmark", *run(ULTRALYTICS, folder, format, str(folder / f"{model}.pt"), str(data)))
    return {name: {method: one.document() for method, one in methods.items()} for name, methods in samples.items()}


def prepare(folder: Path) -> Path:
    """Files for the other methods: each network as ONNX and as Ultralytics' checkpoint; the data set's YAML."""
    from ultralytics import YOLO

    from evaluators.export import export_onnx
    from nas_yolo.digits import write_digits

    for model in MODELS:
        yolo = YOLO(f"{model}.yaml")
        yolo.save(folder / f"{model}.pt")
        export_onnx(yolo.model, IMAGE_SIZE, folder / f"{model}.onnx")
    return write_digits(folder / "data")


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Fresh processes for each network.")
@click.option("--runtime", "runtimes", multiple=True, default=("cpu", "openvino"), show_default=True)
@click.option("--ultralytics/--no-ultralytics", default=True, help="Its benchmark too.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(repeats: int, runtimes: tuple[str, ...], ultralytics: bool, file: Path | None) -> None:
    """Print the coefficient of variation between processes, and whether the order was right."""
    targets = {BUILT_IN[name].runtime: BUILT_IN[name] for name in runtimes}
    document: dict[str, Any] = {"repeats": repeats, "imgsz": IMAGE_SIZE.plain}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = prepare(folder)
        data = images if ultralytics else None
        calibrations = {name: calibrate(target, IMAGE_SIZE) for name, target in targets.items()}
        document["quiet"] = measure_condition(targets, calibrations, repeats, 0, folder, data)
        with busy_cores(1):
            document["one core busy"] = measure_condition(
                targets, calibrations, repeats, 1, folder, data if ultralytics else None
            )
        if PROGRAM:
            (folder / "server").mkdir()
            server = SshServer(folder / "server")
            server.start()
            try:
                both = {"local": BUILT_IN["cpu"], "over ssh": server.target}
                same = dict.fromkeys(both, calibrate(BUILT_IN["cpu"], IMAGE_SIZE))
                document["over ssh"] = measure_condition(both, same, repeats, 2, folder)
            finally:
                server.stop()
    rows = []
    for condition in ("quiet", "one core busy", "over ssh"):
        for target, methods in document.get(condition, {}).items():
            for method, figures in methods.items():
                cv = ", ".join(f"{model} {percent}" for model, percent in figures["cv_percent"].items())
                text = f"CV % {cv}; order {figures['order_right']}; refused {figures['refused']}"
                if method == "nas-yolo":
                    text += f"; {figures['seconds_per_candidate']} s, at most {figures['seconds_per_candidate_max']}"
                rows.append((f"{condition}, {target}, {method}", text))
    ours = {target: methods["nas-yolo"] for target, methods in document["quiet"].items()}
    for key in ("cv_percent", "order_right", "seconds_per_candidate"):
        document[key] = {target: figures[key] for target, figures in ours.items()}
    report(f"Latency between {repeats} fresh processes, {IMAGE_SIZE} px, 1 thread", rows, document, file)
    print(json.dumps({key: document[key] for key in ("cv_percent", "order_right", "seconds_per_candidate")}))


if __name__ == "__main__":
    main()

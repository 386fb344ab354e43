"""Trials an hour on one GPU: as many at once as the probe found, against one at a time.

Every trial is the product's own training of a random design on made-up photographs, in warm processes as a search has
them. Needs PyTorch, Ultralytics and platformdirs, but neither Ray nor Optuna: it runs on a bare GPU machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.accuracy.gpu_sharing import MadeUpTraining, measure_packing
from evaluators.accuracy.request import TrainingRequest
from evaluators.accuracy.training import prepare, train
from evaluators.complexity import largest
from evaluators.dataset import Dataset, load_dataset
from evaluators.evaluation import Failure
from search_spaces.architecture import Architecture
from search_spaces.families import get_family
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space

if TYPE_CHECKING:
    from evaluators.location import Location

GOAL_RATIO, GOAL_UTILISATION = 3.0, 90.0
CLASSES = ("one", "two", "three")

everyone_is_warm: Any = None  # of a process that trains: a barrier


@dataclass(frozen=True)
class Outcome:
    """Of some trials.

    Attributes:
        trials_per_hour: Higher is better.
        utilisation: Of the GPU, percent, mean of a sample a second; None where nvidia-smi does not tell.
        reserved_mb: By the process that trained it, after each trial.
        failures: One line each.
    """

    trials_per_hour: float
    utilisation: float | None
    reserved_mb: list[float]
    failures: list[str]


def write_images(folder: Path, images: int, imgsz: int) -> Dataset:
    """Noise with three bright rectangles on each image."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", max(images // 4, 1))):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 128, (imgsz, imgsz, 3), dtype=np.uint8)
            lines = []
            for label, (x, y) in enumerate(rng.uniform(0.2, 0.8, (len(CLASSES), 2))):
                left, top, half = int((x - 0.1) * imgsz), int((y - 0.1) * imgsz), int(0.2 * imgsz)
                pixels[top : top + half, left : left + half] |= 128
                lines.append(f"{label} {x:.4f} {y:.4f} 0.2 0.2\n")
            Image.fromarray(pixels).save(folder / "images" / split / f"{number}.jpg", quality=90)
            (folder / "labels" / split / f"{number}.txt").write_text("".join(lines))
    names = json.dumps(CLASSES)
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: {names}\n")
    return load_dataset(folder / "data.yaml")


def run_trials(requests: Sequence[TrainingRequest], at_once: int) -> Outcome:
    """Train all, so many at once, each process held to its share; what starts the processes is not timed."""
    context = multiprocessing.get_context("spawn")
    everyone_is_warm = context.Barrier(at_once)
    share = 1 / at_once
    with ProcessPoolExecutor(at_once, context, _join, (everyone_is_warm,)) as pool:
        first = [replace(requests[0], gpu_share=share, checkpoint=_warm(requests[0], n)) for n in range(at_once)]
        for failure in filter(None, pool.map(_warm_up, first)):
            raise SystemExit(f"Error: a training failed: {failure}")
        with _utilisation() as samples:
            started = time.monotonic()
            results = list(pool.map(_trial, [replace(request, gpu_share=share) for request in requests]))
            seconds = time.monotonic() - started
    failures = [failure for failure, _ in results if failure]
    ended = len(results) - len(failures)
    utilisation = statistics.mean(samples) if samples else None
    return Outcome(ended * 3600 / seconds, utilisation, [mb for _, mb in results], failures)


def _warm(request: TrainingRequest, number: int) -> Location:
    return request.checkpoint.with_name(f"warm-up-{number}.pt")


def _join(barrier: Any) -> None:
    global everyone_is_warm
    everyone_is_warm = barrier


def _warm_up(request: TrainingRequest) -> str:
    failure, _ = _trial(request)
    request.checkpoint.unlink(missing_ok=True)
    everyone_is_warm.wait()  # so that each process gets one of these
    return failure


def _trial(request: TrainingRequest) -> tuple[str, float]:
    """What went wrong, if anything, and the MB that this process has reserved on the GPU afterwards."""
    import torch

    failures = [report.message for report in train(request) if isinstance(report, Failure)]
    reserved = torch.cuda.memory_reserved() / 1e6 if request.gpu else 0.0
    return next(iter(failures), ""), reserved


@contextmanager
def _utilisation() -> Iterator[list[float]]:
    """Percent of the time in which the GPU computed, sampled every second by nvidia-smi."""
    samples: list[float] = []
    ended = threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]

    def sample() -> None:
        while not ended.wait(1.0):
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                samples.append(float(done.stdout))
            except (OSError, ValueError, subprocess.CalledProcessError):
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def requests_for(
    designs: Sequence[Architecture], dataset: Dataset, options: argparse.Namespace, folder: Path, gpu: bool
) -> list[TrainingRequest]:
    """A trial of each design."""
    folder.mkdir()
    return [
        TrainingRequest(
            architecture=design,
            dataset=dataset,
            imgsz=ImageSize.parse(options.imgsz),
            epochs=options.epochs,
            until=options.epochs,
            seed=0,
            checkpoint=folder / f"{number}.pt",
            scratch=folder,
            gpu=gpu,
            arguments={"batch": options.batch},
        )
        for number, design in enumerate(designs)
    ]


def text(outcome: Outcome) -> str:
    """One line."""
    used = "not known" if outcome.utilisation is None else f"{outcome.utilisation:.0f} %"
    failed = f", {len(outcome.failures)} failed: {outcome.failures[0]}" if outcome.failures else ""
    return f"{outcome.trials_per_hour:.0f} trials an hour, GPU utilisation {used}{failed}"


def main() -> None:
    """Print the ratio, and the memory after each trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="yolov8n")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3, help="of each trial")
    parser.add_argument("--trials", type=int, default=32, help="packed, and again one at a time")
    parser.add_argument("--memory-trials", type=int, default=100, help="whose memory is noted; one epoch each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("Error: benchmarks.packing needs a GPU that PyTorch can use, and there is none")
    os.environ.update({"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"})
    cores = len(os.sched_getaffinity(0))
    space, rng = load_space(options.space), np.random.default_rng(0)
    stock = load_preset(get_family(space.family).baseline)
    size = ImageSize.parse(options.imgsz)
    typical = MadeUpTraining(stock, len(CLASSES), size, options.batch, "cuda")
    most = largest(space, len(CLASSES), size, "gflops")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["YOLO_CONFIG_DIR"] = temporary
        packing = measure_packing(typical, replace(typical, architecture=most), cores, 1)
        for run in packing.runs:
            peak = f", at most {max(run.peak_bytes) / 2**30:.2f} GiB each" if run.peak_bytes else ""
            failed = f", {len(run.failures)} failed: {run.failures[0]}" if run.failures else ""
            print(f"{run.trainings} at once: {run.images_per_s:.0f} images/s together{peak}{failed}", flush=True)
        print(f"{packing.device}, room for {packing.limit} ({packing.limited_by}). {packing}", flush=True)
        dataset = write_images(folder / "data", options.images, options.imgsz)
        for failure in prepare(dataset, size, folder):
            sys.exit(f"Error: {failure.message}")
        designs = [space.architecture(space.sample(rng)) for _ in range(max(options.trials, options.memory_trials))]
        outcomes = {}
        for name, at_once in (("packed", packing.trainings), ("alone", 1)):
            requests = requests_for(designs[: options.trials], dataset, options, folder / name, gpu=True)
            outcomes[name] = run_trials(requests, at_once)
            print(f"{name}, {at_once} at once: {text(outcomes[name])}", flush=True)
        options.epochs = 1
        requests = requests_for(designs[: options.memory_trials], dataset, options, folder / "memory", gpu=True)
        memory = run_trials(requests, 1)
    ratio = outcomes["packed"].trials_per_hour / outcomes["alone"].trials_per_hour
    print(f"packed_ratio: {ratio:.2f} (goal {GOAL_RATIO:g}); utilisation goal {GOAL_UTILISATION:g} %")
    print("memory_reserved after each trial, MB:", " ".join(f"{mb:.0f}" for mb in memory.reserved_mb))
    if options.json:
        document = {
            "cores": cores,
            "probe": packing.document(),
            "packed_ratio": ratio,
            **{name: vars(outcome) for name, outcome in outcomes.items()},
            "memory_reserved_mb": memory.reserved_mb,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

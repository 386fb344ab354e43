"""What trials cost on a warm worker, against the same trainings by fresh `yolo train` processes.

All train on the embedded digits, 96 px, with the same arguments, on one thread each. Ultralytics is there twice: as it
comes (it validates after every epoch, plots, and loads images in processes of their own, on further cores), and at its
leanest (none of that). Its label cache is there. All take turns, so that a change of the machine's speed hits them all.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.report import report

if TYPE_CHECKING:
    from evaluators.accuracy.request import TrainingRequest
    from evaluators.evaluation import Epoch
    from evaluators.location import Location
    from search_spaces.architecture import Architecture

ARGUMENTS: dict[str, Any] = {"batch": 16, "nbs": 16, "optimizer": "AdamW", "lr0": 0.003, "mosaic": 0.0}
EPOCHS = 3  # of each of the different architectures
LEANEST = {"plots": False, "workers": 0, "deterministic": False, "val": False}


class Stopwatch:
    """When a trial in this process began, ended, and spent its time in training and validation steps."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.steps: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        """Of the trial."""
        return self.ended - self.began

    @property
    def overhead_s(self) -> float:
        """Of it, outside of steps."""
        return self.seconds - sum(end - start for start, end in self.steps)

    @contextmanager
    def watch(self) -> Iterator[Stopwatch]:
        """Time the trial that runs meanwhile."""
        from unittest.mock import patch

        from evaluators.accuracy.trainer import ProxyTrainer

        def timed(method: Any) -> Any:
            def run(*arguments: Any) -> Any:
                start = time.perf_counter()
                try:
                    return method(*arguments)
                finally:
                    self.steps.append((start, time.perf_counter()))

            return run

        train_epoch, validate = timed(ProxyTrainer.train_epoch), timed(ProxyTrainer.validate)
        with patch.object(ProxyTrainer, "train_epoch", train_epoch), patch.object(ProxyTrainer, "validate", validate):
            self.began = time.perf_counter()
            yield self
            self.ended = time.perf_counter()


def fresh(model: str, data: Path, folder: Path, epochs: int, lean: bool = True) -> tuple[float, float]:
    """Seconds of one `yolo train` process with our blocks known, and its mAP50-95."""
    options: dict[str, Any] = {**ARGUMENTS, "imgsz": 96, "epochs": epochs, "warmup_epochs": epochs / 10}
    options |= {"device": "cpu", **(LEANEST if lean else {})}
    home = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "nas_yolo", "yolo", "train", f"model={model}", f"data={data}"]
    command += [f"{key}={value}" for key, value in options.items()] + [f"project={home}", "name=run"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seconds = time.perf_counter() - started
    (results,) = home.rglob("results.csv")
    with open(results) as file:
        last = list(csv.DictReader(file))[-1]
    return seconds, float(last["metrics/mAP50-95(B)"])


def request_for(architecture: Architecture, data: Path, folder: Path, epochs: int) -> TrainingRequest:
    """A trial in a folder of its own; decoded images are shared."""
    from evaluators.accuracy.request import TrainingRequest
    from evaluators.dataset import load_dataset
    from search_spaces.image_size import ImageSize

    home = Path(tempfile.mkdtemp(dir=folder))
    return TrainingRequest(
        architecture=architecture,
        dataset=load_dataset(data),
        imgsz=ImageSize(96, 96),
        epochs=epochs,
        until=epochs,
        seed=0,
        checkpoint=home / "checkpoint.pt",
        scratch=home,
        images=folder / "images",
        arguments=ARGUMENTS,
    )


def warm(request: TrainingRequest) -> tuple[Stopwatch, list[Epoch]]:
    """Train in this process."""
    from evaluators.accuracy.training import train
    from evaluators.evaluation import Epoch, Failure

    with Stopwatch().watch() as watch:
        reports = list(train(request))
    epochs = [item for item in reports if isinstance(item, Epoch)]
    assert not any(isinstance(item, Failure) for item in reports), reports
    return watch, epochs


def same_weights(one: Location, other: Location) -> bool:
    """Whether two checkpoints hold equal weights and averages, to the bit."""
    import torch

    from evaluators.accuracy.checkpoints import load_checkpoint

    first, second = map(load_checkpoint, (one, other))
    return all(torch.equal(first[part][key], second[part][key]) for part in ("model", "ema") for key in first[part])


def validated_by_ultralytics(request: TrainingRequest, folder: Path) -> float:
    """mAP50-95 of a training's last weights with the batch statistics they came with: means over the last steps.

    After three epochs, Ultralytics' moving average is still almost the last weights.
    """
    from ultralytics.models.yolo.detect import DetectionValidator

    from evaluators.accuracy.checkpoints import load_checkpoint
    from search_spaces import hook

    network = hook.build(hook.model_file(request.architecture, len(request.dataset.names)))
    network.load_state_dict(load_checkpoint(request.checkpoint)["model"])
    settings = {
        "data": request.dataset.file,
        "imgsz": request.imgsz.width,
        "batch": ARGUMENTS["batch"] * 2,
        "device": "cpu",
    }
    settings |= {"workers": 0, "plots": False, "verbose": False, "mode": "val", "rect": True}
    validator = DetectionValidator(save_dir=folder, args=settings)
    return float(validator(model=network.float().eval())["metrics/mAP50-95(B)"])


def one_epoch(data: Path, folder: Path, rounds: int) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """A trial of one epoch of stock yolov8n."""
    from search_spaces.presets import load_preset

    request = request_for(load_preset("yolov8n"), data, folder, 1)
    pairs = []
    for _ in range(rounds):
        other, _ = fresh("yolov8n.yaml", data, folder, 1)
        home = Path(tempfile.mkdtemp(dir=folder))
        watch, _ = warm(replace(request, checkpoint=home / "checkpoint.pt", scratch=home))
        pairs.append((other, watch.seconds, watch.overhead_s))
    ratios = [one / other for other, one, _ in pairs]
    ratio, overhead = statistics.median(ratios), statistics.median(extra for *_, extra in pairs)
    rows = [
        ("fresh `yolo train`, s", " ".join(f"{other:.2f}" for other, *_ in pairs)),
        ("warm trial, s", " ".join(f"{one:.2f}" for _, one, _ in pairs)),
        ("of it beyond training and validation steps, s", " ".join(f"{extra:.2f}" for *_, extra in pairs)),
        ("one_epoch_ratio (median; lower is better)", f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"),
    ]
    document = {
        **{"one_epoch_ratio": ratio, "overhead_seconds": overhead},
        **{"fresh_seconds": [other for other, *_ in pairs], "warm_seconds": [one for _, one, _ in pairs]},
    }
    return rows, document


def pauses(data: Path, folder: Path) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Two epochs of stock yolov8n, in one piece and in two."""
    from search_spaces.presets import load_preset

    request = replace(request_for(load_preset("yolov8n"), data, folder, 2), rungs=(1, 2))
    warm(request)
    again = replace(request, checkpoint=request.checkpoint.with_name("paused.pt"))
    before, _ = warm(replace(again, until=1))
    after, _ = warm(replace(again, known=1))
    figures = {
        "pause_seconds": before.ended - before.steps[-1][1],
        "continue_seconds": after.steps[0][0] - after.began,
        "bit_identical": same_weights(request.checkpoint, again.checkpoint),
    }
    return [(name, f"{figure:.2f}" if name != "bit_identical" else str(figure)) for name, figure in figures.items()], (
        figures
    )


def different(data: Path, folder: Path, trials: int, lean_every: int) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """As many different architectures of the space yolov8n; every so many also by Ultralytics at its leanest."""
    import yaml

    from search_spaces import hook
    from search_spaces.space_file import load_space

    space, rng = load_space("yolov8n"), np.random.default_rng(0)
    plain, leanest, ours = list[tuple[float, float]](), dict[int, tuple[float, float]](), list[tuple[float, float]]()
    map50_95 = list[float]()
    for number in range(trials):
        architecture = space.architecture(space.sample(rng))
        file = folder / f"trial{number}.yaml"
        file.write_text(yaml.safe_dump(dict(hook.model_file(architecture, 10))))
        plain.append(fresh(str(file), data, folder, EPOCHS, lean=False))
        if number % lean_every == 0:
            leanest[number] = fresh(str(file), data, folder, EPOCHS)
        request = request_for(architecture, data, folder, EPOCHS)
        watch, epochs = warm(request)
        ours.append((watch.seconds, validated_by_ultralytics(request, folder)))
        map50_95.append(float(epochs[-1].map50_95 or 0.0))
        print(f"{number}: {plain[-1][0]:.1f} s, {watch.seconds:.1f} s", file=sys.stderr, flush=True)
    seconds = sum(one for one, _ in ours)
    ratio = seconds / sum(other for other, _ in plain)
    lean_ratio = sum(ours[number][0] for number in leanest) / sum(other for other, _ in leanest.values())
    rows = [
        (f"{trials} x `yolo train` for {EPOCHS} epochs, s", " ".join(f"{other:.1f}" for other, _ in plain)),
        ("at its leanest, s", " ".join(f"{number}: {other:.1f}" for number, (other, _) in leanest.items())),
        ("warm worker, s", " ".join(f"{one:.1f}" for one, _ in ours)),
        ("mAP50-95, `yolo train`", " ".join(f"{other:.4f}" for _, other in plain)),
        ("mAP50-95, at its leanest", " ".join(f"{number}: {other:.4f}" for number, (_, other) in leanest.items())),
        ("mAP50-95, warm, last weights, not averaged", " ".join(f"{one:.4f}" for _, one in ours)),
        ("mAP50-95, warm, batch statistics measured anew", " ".join(f"{one:.4f}" for one in map50_95)),
        ("twenty_trials_ratio (lower is better)", f"{ratio:.3f}"),
        (f"against the leanest, of {len(leanest)}", f"{lean_ratio:.3f}"),
    ]
    document = {
        **{"twenty_trials_ratio": ratio, "leanest_trials_ratio": lean_ratio, "trials": trials},
        **{"fresh": plain, "leanest": leanest, "warm": ours, "warm_map50_95": map50_95},
    }
    return rows, document


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Of one-epoch trials; 0: none.")
@click.option("--trials", default=20, show_default=True, help="Of different architectures; 0: none.")
@click.option("--lean-every", default=4, show_default=True, help="Of these, train one also by the leanest Ultralytics.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(rounds: int, trials: int, lean_every: int, file: Path | None) -> None:
    """Print the ratios of warm trials to fresh processes, and what a trial and a pause cost besides the steps."""
    from nas_yolo.environment import ultralytics_environment

    os.environ.update(ultralytics_environment())
    os.environ["OMP_NUM_THREADS"] = "1"
    from nas_yolo.digits import write_digits
    from search_spaces.presets import load_preset

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_digits(folder)
        fresh("yolov8n.yaml", data, folder, 1)  # leaves its label cache
        warm(request_for(load_preset("yolov8n"), data, folder, 1))  # the worker is warm from here on
        parts = [pauses(data, folder)]
        if rounds:
            parts.append(one_epoch(data, folder, rounds))
        if trials:
            parts.append(different(data, folder, trials, lean_every))
    rows = [row for part, _ in parts for row in part]
    document = {name: figure for _, part in parts for name, figure in part.items()}
    report("Trials on a warm worker against fresh processes", rows, document, file)


if __name__ == "__main__":
    main()

"""What a trial costs on a warm worker, against the same training by a fresh `yolo train` process.

Both train stock yolov8n for one epoch on the embedded digits, 96 px, with the same arguments and one thread, on the
same label cache, and validate once. They take turns, so that a change of the machine's speed hits both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.report import report

ARGUMENTS = {"batch": 16, "nbs": 16, "optimizer": "AdamW", "lr0": 0.003, "mosaic": 0.0}


def fresh(data: Path, folder: Path) -> float:
    """Seconds of one `yolo train` process, plots and integrations off: Ultralytics at its leanest."""
    options = {**ARGUMENTS, "imgsz": 96, "epochs": 1, "warmup_epochs": 0.1, "plots": False, "workers": 0}
    yolo = "from ultralytics.cfg import entrypoint; entrypoint()"  # what the console script `yolo` does
    command = [sys.executable, "-c", yolo, "train", "model=yolov8n.yaml", f"data={data}", "device=cpu"]
    command += [f"{key}={value}" for key, value in options.items()] + [f"project={folder}", "deterministic=False"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - started


def warm(data: Path, folder: Path, number: int) -> tuple[float, float]:
    """Seconds of a trial in this process, and those of them that are not the epoch itself."""
    from evaluators.accuracy.training import TrainingRequest, train
    from evaluators.dataset import load_dataset
    from evaluators.evaluation import Epoch
    from search_spaces.space_file import load_preset

    home = folder / str(number)
    home.mkdir()
    dataset = load_dataset(data)
    started = time.perf_counter()
    request = TrainingRequest(
        architecture=load_preset("yolov8n"),
        dataset=dataset,
        imgsz=96,
        epochs=1,
        until=1,
        seed=0,
        checkpoint=home / "checkpoint.pt",
        scratch=home,
        arguments=ARGUMENTS,
    )
    (epoch,) = list(train(request))
    assert isinstance(epoch, Epoch), epoch
    seconds = time.perf_counter() - started
    return seconds, seconds - epoch.seconds


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(rounds: int, file: Path | None) -> None:
    """Print the ratio of a warm one-epoch trial to a fresh `yolo train`."""
    from nas_yolo.environment import ultralytics_environment

    os.environ.update(ultralytics_environment())
    os.environ["OMP_NUM_THREADS"] = "1"
    from nas_yolo.digits import write_digits

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_digits(folder)
        fresh(data, folder)
        warm(data, folder, 0)  # the worker is warm from here on, the label cache is there
        pairs = [(fresh(data, folder), warm(data, folder, number + 1)[0]) for number in range(rounds)]
    ratios = [one / other for other, one in pairs]
    ratio = statistics.median(ratios)
    rows = [
        ("fresh `yolo train`, s", " ".join(f"{other:.2f}" for other, _ in pairs)),
        ("warm trial, s", " ".join(f"{one:.2f}" for _, one in pairs)),
        ("one_epoch_ratio (median; lower is better)", f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"),
    ]
    document = {
        "one_epoch_ratio": ratio,
        "fresh_seconds": [other for other, _ in pairs],
        "warm_seconds": [one for _, one in pairs],
    }
    report("One-epoch trial: warm worker against a fresh process", rows, document, file)


if __name__ == "__main__":
    main()

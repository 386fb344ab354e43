"""Whether a first rung on fewer or smaller images tells the order of designs as well as one that takes as long on all.

The designs, the parent and the truth are those of `python -m benchmarks.inheritance`: give its JSON. Each design begins
with the parent's weights and is trained below the last rung on half of the images, or on all at a smaller size, with
the learning rate of the whole training, for twice the epochs of a first rung: once as `--subset .5` and
`--small-imgsz` do it, and once for about the seconds that all images at full size take. Seconds are of the processor.
Begun again with the same --json, it goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import click
import numpy as np

SHARE = 0.5  # of the images
TIMED = 2  # designs that are also trained on all images for a while, to compare seconds and with the given JSON
BOOTSTRAPS = 4000


def run(work: dict[str, Any]) -> dict[str, Any]:
    """One training in a process of its own; mAP50-95 and seconds of each epoch."""
    from benchmarks import inheritance
    from evaluators.accuracy import training
    from evaluators.accuracy.fidelity import Fidelity
    from evaluators.accuracy.request import TrainingRequest
    from evaluators.accuracy.trainer import ProxyTrainer
    from search_spaces.image_size import ImageSize

    epochs_s, validations_s, began = list[float](), list[float](), [0.0]
    validate, end_epoch, train = ProxyTrainer.validate, ProxyTrainer._end_epoch, training.train

    def timed_validate(trainer: ProxyTrainer) -> tuple[dict[str, float], float]:
        start = time.process_time()
        found = validate(trainer)
        validations_s.append(time.process_time() - start)
        return found

    def timed_end(trainer: ProxyTrainer, loss: float) -> None:
        epochs_s.append(time.process_time() - began[0])
        end_epoch(trainer, loss)
        began[0] = time.process_time()

    def changed(request: TrainingRequest) -> Iterator[Any]:
        small = ImageSize.parse(work["small"]) if work["small"] else None
        # One rung more than is trained, and the last: what is below it is small.
        return train(replace(request, until=work["until"], rungs=(*request.rungs, 999), small_imgsz=small))

    share = SHARE if work["regime"] == "subset" else 1.0
    with (
        patch.object(training, "train", changed),
        patch.object(Fidelity, "_share", lambda _, epoch: share),
        patch.object(ProxyTrainer, "validate", timed_validate),
        patch.object(ProxyTrainer, "_end_epoch", timed_end),
    ):
        found = inheritance.train_one(work)
    return {**found, "epoch_s": fmean(epochs_s[1:]), "validation_s": fmean(validations_s[1:])}


def tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's tau-b; 0 where all are equal."""
    from scipy.stats import kendalltau

    return float(np.nan_to_num(kendalltau(one, other).statistic))


def interval(value: Callable[[list[int]], float], count: int) -> str:
    """A value of all designs, and its 95 % bootstrap interval over them."""
    rng = np.random.default_rng(0)
    drawn = [value(rng.integers(0, count, count).tolist()) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{value(list(range(count))):.2f} ({low:.2f} to {high:.2f})"


def rows(document: dict[str, Any], whole: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the trainings say, line by line."""
    trainings, first = document["trainings"], document["first"]
    count = sum(name.startswith("small") for name in trainings)
    curves = {"all": [whole["trainings"][f"inherited {number}"]["map50_95"] for number in range(count)]}
    for regime in ("subset", "small"):
        curves[regime] = [trainings[f"{regime} {number}"]["map50_95"] for number in range(count)]
    timed = range(min(TIMED, count))
    again = [trainings[f"all {number}"] for number in timed]
    apart = [abs(a - b) for n, one in enumerate(again) for a, b in zip(one["map50_95"], curves["all"][n], strict=False)]
    yield "all images, trained anew: largest difference to the given JSON", f"{max(apart):.4f}"
    final = [curve[-1] for curve in curves["all"]]
    spread = f"{np.mean(final):.3f}, standard deviation {np.std(final, ddof=1):.3f}"
    yield "final mAP50-95, all images", spread

    def seconds(regime: str, epochs: int) -> float:
        each = [trainings[f"{regime} {number}"] for number in timed]
        return fmean(one["epoch_s"] * epochs + one["validation_s"] for one in each)

    def order(regime: str, epoch: int, of: list[int]) -> float:
        return tau([curves[regime][number][epoch - 1] for number in of], [final[number] for number in of])

    for regime in ("all", "subset", "small"):
        for epoch in range(1, (first if regime == "all" else document["until"]) + 1):
            early = fmean(curve[epoch - 1] for curve in curves[regime])
            yield (
                f"{regime}, {epoch} epochs",
                f"{seconds(regime, epoch):.1f} s, mAP {early:.3f}, "
                f"tau {interval(lambda of, r=regime, e=epoch: order(r, e, of), count)}, less that of all images after "  # type: ignore[misc]
                f"{first}: {interval(lambda of, r=regime, e=epoch: order(r, e, of) - order('all', first, of), count)}",  # type: ignore[misc]
            )


@click.command()
@click.argument("whole", type=click.Path(exists=True, path_type=Path))
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Default: the embedded digits.")
@click.option("--small", required=True, type=int, help="Image size below the last rung.")
@click.option("--designs", "count", default=8, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), required=True)
def main(whole: Path, data: Path | None, small: int, count: int, file: Path) -> None:
    """Train the first rung of random designs on half of the images, and on smaller ones."""
    from nas_yolo.environment import ultralytics_environment

    os.environ.update(ultralytics_environment())
    os.environ["OMP_NUM_THREADS"] = "1"
    from benchmarks.inheritance import designs
    from benchmarks.report import report
    from nas_yolo.digits import write_digits
    from nas_yolo.schedulers import rungs
    from search_spaces.image_size import ImageSize
    from search_spaces.presets import load_preset

    given = json.loads(whole.read_text())
    first = rungs(given["epochs"])[0]
    asked = {"small": small, "first": first, "until": 2 * first}
    document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {**asked, "trainings": {}}
    if {key: document[key] for key in asked} != asked:
        raise click.ClickException(f"{file} is of other settings; give another --json")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoint = file.with_suffix(".parent.pt")  # kept beside the results, to go on
        common = {
            "data": str(data or write_digits(folder)),
            "imgsz": given["imgsz"],
            "epochs": given["epochs"],
            "arguments": given["arguments"],
        }

        def work(name: str, design: str, regime: str, until: int) -> dict[str, Any]:
            home = str(folder / name.replace(" ", "-"))
            size, parent = small if regime == "small" else None, "" if regime == "parent" else str(checkpoint)
            added = {"name": name, "design": design, "home": home, "regime": regime, "until": until}
            return {**common, **added, "small": size, "parent": parent}

        def keep(found: dict[str, Any]) -> None:
            document["trainings"][found["name"]] = found
            print(found["name"], " ".join(f"{value:.3f}" for value in found["map50_95"]), flush=True)
            file.write_text(json.dumps(document))

        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            if "parent" not in document["trainings"] or not checkpoint.exists():
                stock = work("parent", load_preset("yolov8n").document, "parent", given["epochs"])
                keep(pool.submit(run, stock).result())
                (Path(stock["home"]) / "checkpoint.pt").replace(checkpoint)
            for number, design in enumerate(designs(count, ImageSize.parse(given["imgsz"]), given["seed"])):
                for regime, until in (("all", 2), ("subset", 2 * first), ("small", 2 * first)):
                    name = f"{regime} {number}"
                    if name not in document["trainings"] and (regime != "all" or number < TIMED):
                        keep(pool.submit(run, work(name, design.document, regime, until)).result())
        report(f"First rungs, {data or 'digits'}", list(rows(document, given)), document, file)


if __name__ == "__main__":
    main()

"""What first weights from a trained parent are worth: random designs trained from scratch, and with inherited weights.

The parent is the stock model, trained from scratch with the same settings; designs are drawn from the space `yolov8n`,
between 0.4 and 0.95 of the stock model's operations. Every training is validated after every epoch. Reported are mean
accuracy by epoch, how many epochs inheritance saves, and how well early accuracies order designs of about equal latency
as the last ones do: as those of the same regime (what a search decides by), and as those from scratch. Every training
is written down when it ends; begun again with the same --json, it goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from search_spaces.architecture import Architecture

REGIMES = ("scratch", "inherited")
GFLOPS = (0.4, 0.95)  # of the stock model's
SETTINGS = ("batch=8", "nbs=8", "optimizer=AdamW", "lr0=0.003", "mosaic=0")  # the demo's


def designs(count: int, imgsz: int, seed: int) -> list[Architecture]:
    """So many random designs that are somewhat smaller than the stock model."""
    import numpy as np

    from evaluators.complexity import predict_size
    from search_spaces.space_file import load_preset, load_space

    space, rng, found = load_space("yolov8n"), np.random.default_rng(seed), list[Any]()
    stock = predict_size(load_preset("yolov8n"), 10, imgsz).gflops
    while len(found) < count:
        design = space.architecture(space.sample(rng))
        if GFLOPS[0] <= predict_size(design, 10, imgsz).gflops / stock <= GFLOPS[1]:
            found.append(design)
    return found


def run(work: dict[str, Any]) -> dict[str, Any]:
    """One training in a process of its own; mAP50-95 after every epoch."""
    from evaluators.accuracy.training import Parent, TrainingRequest, train
    from evaluators.dataset import load_dataset
    from evaluators.evaluation import Epoch, Failure, FirstWeights
    from search_spaces.architecture import Architecture

    home = Path(work["home"])
    home.mkdir(parents=True, exist_ok=True)
    request = TrainingRequest(
        architecture=Architecture.from_document(work["design"]),
        dataset=load_dataset(work["data"]),
        imgsz=work["imgsz"],
        epochs=work["epochs"],
        until=work["epochs"],
        seed=0,
        checkpoint=home / "checkpoint.pt",
        scratch=home,
        images=home.parent / "images",
        rungs=tuple(range(1, work["epochs"] + 1)),
        parents=(Parent("yolov8n", Path(work["parent"])),) if work["parent"] else (),
        arguments=work["arguments"],
    )
    items = list(train(request))
    failed = [item for item in items if isinstance(item, Failure)]
    if failed:
        raise RuntimeError(f"{work['name']}: {failed[0].message}")
    epochs = [item for item in items if isinstance(item, Epoch)]
    share = next((item.share for item in items if isinstance(item, FirstWeights)), 0.0)
    return {
        "name": work["name"],
        "design": work["design"],
        "share": share,
        "map50_95": [epoch.map50_95 for epoch in epochs],
        "seconds": [epoch.seconds for epoch in epochs],
    }


def latency_ms(design: str, imgsz: int, calibration: Any, scratch: Path) -> float:
    """On this machine's CPU."""
    from evaluators.evaluation import Latency
    from evaluators.measurement import MeasurementRequest, measure
    from evaluators.target import get_target
    from search_spaces.architecture import Architecture

    targets = ((get_target("cpu"), calibration),)
    items = list(measure(MeasurementRequest(Architecture.from_document(design), 10, imgsz, targets, scratch)))
    return next(item.latency_ms for item in items if isinstance(item, Latency))


def rows(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the trainings say, line by line."""
    from nas_yolo.schedulers import rungs
    from nas_yolo.trust import iso_latency_correlation

    count, epochs = document["designs"], document["epochs"]
    curves = {
        regime: [document["trainings"][f"{regime} {number}"]["map50_95"] for number in range(count)]
        for regime in REGIMES
    }
    final = {regime: [curve[-1] for curve in curves[regime]] for regime in REGIMES}
    parent = document["trainings"]["parent"]["map50_95"]
    yield "parent, mAP50-95 by epoch", " ".join(f"{value:.3f}" for value in parent)
    for regime in REGIMES:
        means = [statistics.fmean(curve[epoch] for curve in curves[regime]) for epoch in range(epochs)]
        yield f"{regime}, mean mAP50-95 by epoch", " ".join(f"{value:.3f}" for value in means)
    shares = [document["trainings"][f"inherited {number}"]["share"] for number in range(count)]
    yield "share of weights inherited", f"{statistics.fmean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
    needed = [
        next((epoch for epoch, value in enumerate(curve, start=1) if value >= goal), None)
        for curve, goal in zip(curves["inherited"], final["scratch"], strict=True)
    ]
    reached = [value for value in needed if value is not None]
    yield (
        f"epochs to the mAP that scratch has after {epochs}",
        f"median {statistics.median(reached)} of the {len(reached)} of {count} that reach it",
    )
    document["epochs_needed"] = needed
    document["correlations"] = {}
    first = rungs(epochs)[0]
    for early, late in (("scratch", "scratch"), ("inherited", "inherited"), ("inherited", "scratch")):
        found = {
            epoch: iso_latency_correlation(
                document["latencies_ms"], [curve[epoch - 1] for curve in curves[early]], final[late]
            )
            for epoch in range(1, epochs + (early != late))
        }
        document["correlations"][f"{early} with {late}"] = {
            epoch: None if c is None else [c.tau, c.low, c.high, c.pairs] for epoch, c in found.items()
        }
        texts = ["-" if c is None else f"{c.tau:.2f} ({c.low:.2f} to {c.high:.2f})" for c in found.values()]
        text = ", ".join(f"after {epoch}: {value}" for epoch, value in zip(found, texts, strict=True))
        yield f"iso-latency tau, {early} early with {late} last (first rung: {first})", text


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Default: the embedded digits.")
@click.option("--imgsz", default=96, show_default=True)
@click.option("--epochs", default=6, show_default=True)
@click.option("--designs", "count", default=16, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the designs.")
@click.option("--train", "given", multiple=True, default=SETTINGS, show_default=True, metavar="KEY=VALUE")
@click.option("--workers", default=2, show_default=True, help="Trainings at once, one thread each.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(
    data: Path | None,
    imgsz: int,
    epochs: int,
    count: int,
    seed: int,
    given: tuple[str, ...],
    workers: int,
    file: Path | None,
) -> None:
    """Train random designs with and without inherited weights, and compare."""
    from nas_yolo.environment import ultralytics_environment

    os.environ.update(ultralytics_environment())
    os.environ["OMP_NUM_THREADS"] = "1"
    from benchmarks.report import report
    from evaluators.latency import Calibration
    from evaluators.measurement import calibrate_target
    from evaluators.target import get_target
    from nas_yolo.cli.arguments import parse_arguments
    from nas_yolo.digits import write_digits
    from search_spaces.space_file import load_preset

    asked = {"imgsz": imgsz, "epochs": epochs, "designs": count, "seed": seed, "arguments": parse_arguments(given, {})}
    document: dict[str, Any] = json.loads(file.read_text()) if file and file.exists() else {**asked, "trainings": {}}
    if {key: document[key] for key in asked} != asked:
        raise click.ClickException(f"{file} is of other settings; give another --json")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = str(data or write_digits(folder))
        checkpoint = (file or folder / "x").with_suffix(".parent.pt")  # kept beside the results, to go on
        texts = [design.document for design in designs(count, imgsz, seed)]
        common = {"data": source, "imgsz": imgsz, "epochs": epochs, "arguments": asked["arguments"]}

        def work(name: str, design: str, parent: bool) -> dict[str, Any]:
            home = str(folder / name.replace(" ", "-"))
            return {**common, "name": name, "design": design, "home": home, "parent": str(checkpoint) if parent else ""}

        def keep(found: dict[str, Any]) -> None:
            document["trainings"][found["name"]] = found
            print(found["name"], " ".join(f"{value:.3f}" for value in found["map50_95"]), flush=True)
            if file:
                file.write_text(json.dumps(document))

        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context) as pool:
            if "parent" not in document["trainings"] or not checkpoint.exists():
                stock = work("parent", load_preset("yolov8n").document, False)
                keep(pool.submit(run, stock).result())
                (Path(stock["home"]) / "checkpoint.pt").replace(checkpoint)
            pairs = [(f"{regime} {n}", text, regime != "scratch") for n, text in enumerate(texts) for regime in REGIMES]
            left = [work(*pair) for pair in pairs if pair[0] not in document["trainings"]]
            for found in pool.map(run, left):
                keep(found)
        if "latencies_ms" not in document:
            target = get_target("cpu")
            calibration = next(c for c in calibrate_target(target, imgsz) if isinstance(c, Calibration))
            document["latencies_ms"] = [latency_ms(text, imgsz, calibration, folder) for text in texts]
        title = f"First weights: {count} designs, {epochs} epochs, {data or 'digits'} at {imgsz} px"
        report(title, list(rows(document)), document, file)


if __name__ == "__main__":
    main()

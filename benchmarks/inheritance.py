"""What first weights from a trained parent are worth: random designs trained from scratch, and with inherited weights.

The parent is the stock model, trained from scratch with the same settings; designs are drawn from the space `yolov8n`,
between 0.4 and 0.95 of the stock model's operations. Every training is validated after every epoch, as a search does
it, and as Ultralytics does, with batch statistics that lag behind the weights. Reported are mean accuracy by epoch, how
many epochs inheritance saves, and how well early accuracies order designs of about equal latency as the last ones do:
as those of the same regime (what a search decides by), and as those from scratch. Every training is written down when
it ends; begun again with the same --json, it goes on, also with further regimes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import click

if TYPE_CHECKING:
    from torch import Tensor
    from ultralytics.nn.tasks import DetectionModel

    from search_spaces.architecture import Architecture
    from search_spaces.image_size import ImageSize

REGIMES = {
    "scratch": "random",
    "inherited": "as a search does it by default",
    "gentle": "inherited, at a third of the learning rate",
    "neck": "of the parent's, only those of neck and head",
    "distilled": "inherited, and the parent's output is part of the loss",
}
GFLOPS = (0.4, 0.95)  # of the stock model's
SETTINGS = ("batch=8", "nbs=8", "optimizer=AdamW", "lr0=0.003", "mosaic=0")  # the demo's


def designs(count: int, imgsz: ImageSize, seed: int) -> list[Architecture]:
    """So many random designs that are somewhat smaller than the stock model."""
    import numpy as np

    from evaluators.complexity import predict_size
    from search_spaces.presets import load_preset
    from search_spaces.space_file import load_space

    space, rng, found = load_space("yolov8n"), np.random.default_rng(seed), list[Any]()
    stock = predict_size(load_preset("yolov8n"), 10, imgsz).gflops
    while len(found) < count:
        design = space.architecture(space.sample(rng))
        if GFLOPS[0] <= predict_size(design, 10, imgsz).gflops / stock <= GFLOPS[1]:
            found.append(design)
    return found


def distil(network: DetectionModel, parent: Path) -> None:
    """Add to a network's loss how far its output is from its parent's, where the parent is sure of an object.

    As much as the loss itself counts for the classes (0.5) and the distributions of the sides (1.5), per image.
    """
    import torch
    from torch.nn import functional

    from search_spaces import hook
    from search_spaces.architecture import Architecture

    saved = torch.load(parent, map_location="cpu", weights_only=True)
    teacher = hook.build(hook.model_file(Architecture.from_document(saved["architecture"]), network.model[-1].nc))
    teacher.load_state_dict(saved["ema"])
    bins = network.model[-1].reg_max
    teacher.train()  # the raw output; its batch normalisation keeps the statistics it has
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()

    def sides(predictions: dict[str, Tensor]) -> Tensor:
        logs: Tensor = predictions["boxes"].unflatten(1, (4, bins)).log_softmax(2)
        return logs

    def loss(batch: dict[str, Any], predictions: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        if getattr(network, "criterion", None) is None:
            network.criterion = network.init_criterion()
        if predictions is not None:  # of the moving average, in validation
            return network.criterion(predictions, batch)  # type: ignore[no-any-return]
        mine = network.forward(batch["img"])
        own, items = network.criterion(mine, batch)
        with torch.no_grad():
            theirs = teacher(batch["img"])
        sure = theirs["scores"].sigmoid()
        classes = functional.binary_cross_entropy_with_logits(mine["scores"], sure, reduction="sum")
        weights = sure.amax(1)
        distance = functional.kl_div(sides(mine), sides(theirs), reduction="none", log_target=True).sum(2).mean(1)
        total = weights.sum().clamp(min=1.0)
        extra = (0.5 * classes + 1.5 * (weights * distance).sum()) / total * len(batch["img"])
        return torch.cat((own, extra[None])), items

    network.loss = loss


def run(work: dict[str, Any]) -> dict[str, Any]:
    """One training in a process of its own; mAP50-95 after every epoch."""
    from ultralytics.engine.trainer import BaseTrainer

    from evaluators.accuracy.trainer import ProxyTrainer

    lagging, validate = list[float](), ProxyTrainer.validate

    def validate_twice(trainer: ProxyTrainer) -> tuple[dict[str, float], float]:
        lagging.append(float(BaseTrainer.validate(trainer)[0]["metrics/mAP50-95(B)"]))
        return validate(trainer)

    with ExitStack() as stack:
        stack.enter_context(patch.object(ProxyTrainer, "validate", validate_twice))
        if work["regime"] == "neck":
            from evaluators.accuracy.inheritance import _Match

            fits = _Match._fits

            def of_neck_or_head(match: _Match, name: str) -> bool:
                return name.startswith(("neck.", "detect")) and fits(match, name)

            stack.enter_context(patch.object(_Match, "_fits", of_neck_or_head))
        if work["regime"] == "distilled":
            setup = ProxyTrainer.setup_model

            def with_teacher(trainer: ProxyTrainer) -> None:
                setup(trainer)
                distil(trainer.model, Path(work["parent"]))

            stack.enter_context(patch.object(ProxyTrainer, "setup_model", with_teacher))
        if work["regime"] == "gentle":
            work = {**work, "arguments": {**work["arguments"], "lr0": work["arguments"]["lr0"] / 3}}
        return {**train_one(work), "lagging_map50_95": lagging}


def train_one(work: dict[str, Any]) -> dict[str, Any]:
    """One training; mAP50-95 after every epoch."""
    from evaluators.accuracy.request import Parent, TrainingRequest
    from evaluators.accuracy.training import train
    from evaluators.dataset import load_dataset
    from evaluators.evaluation import Epoch, Failure, FirstWeights
    from search_spaces.architecture import Architecture
    from search_spaces.image_size import ImageSize

    home = Path(work["home"])
    home.mkdir(parents=True, exist_ok=True)
    request = TrainingRequest(
        architecture=Architecture.from_document(work["design"]),
        dataset=load_dataset(work["data"]),
        imgsz=ImageSize.parse(work["imgsz"]),
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


def latency_ms(design: str, imgsz: ImageSize, calibration: Any, scratch: Path) -> float:
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
    from nas_yolo.fidelities import rungs
    from nas_yolo.trust import iso_latency_correlation

    count, epochs, trainings = document["designs"], document["epochs"], document["trainings"]
    regimes = [regime for regime in REGIMES if f"{regime} {count - 1}" in trainings]
    curves, lagging = (
        {regime: [trainings[f"{regime} {number}"][which] for number in range(count)] for regime in regimes}
        for which in ("map50_95", "lagging_map50_95")
    )
    final = {regime: [curve[-1] for curve in curves[regime]] for regime in regimes}
    parent = trainings["parent"]["map50_95"]
    yield "parent, mAP50-95 by epoch", " ".join(f"{value:.3f}" for value in parent)
    document["epochs_needed"], document["correlations"] = {}, {}
    for regime in regimes:
        for text, which in (("", curves), (" with statistics that lag", lagging)):
            means = [statistics.fmean(curve[epoch] for curve in which[regime]) for epoch in range(epochs)]
            yield f"{regime}, mean mAP50-95 by epoch{text}", " ".join(f"{value:.3f}" for value in means)
        spent = [sum(trainings[f"{regime} {number}"]["seconds"]) for number in range(count)]
        yield f"{regime}, mean seconds of a training", f"{statistics.fmean(spent):.1f}"
        if regime == "scratch":
            continue
        shares = [trainings[f"{regime} {number}"]["share"] for number in range(count)]
        yield f"{regime}, share taken", f"{statistics.fmean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        needed = [
            next((epoch for epoch, value in enumerate(curve, start=1) if value >= goal), None)
            for curve, goal in zip(curves[regime], final["scratch"], strict=True)
        ]
        reached = [value for value in needed if value is not None]
        document["epochs_needed"][regime] = needed
        yield (
            f"{regime}, epochs to the mAP that scratch has after {epochs}",
            f"median {statistics.median(reached)} of the {len(reached)} of {count} that reach it",
        )
    first = rungs(epochs)[0].epochs
    pairs = [(regime, regime, curves) for regime in regimes] + [(regime, regime, lagging) for regime in regimes]
    pairs += [(regime, "scratch", curves) for regime in regimes[1:]]
    for early, late, which in pairs:
        found = {
            epoch: iso_latency_correlation(
                document["latencies_ms"], [curve[epoch - 1] for curve in which[early]], final[late]
            )
            for epoch in range(1, epochs + (early != late))
        }
        name = f"{early}{' (lagging)' if which is lagging else ''} with {late}"
        document["correlations"][name] = {
            epoch: None if c is None else [c.tau, c.low, c.high, c.pairs] for epoch, c in found.items()
        }
        texts = ["-" if c is None else f"{c.tau:.2f} ({c.low:.2f} to {c.high:.2f})" for c in found.values()]
        text = ", ".join(f"after {epoch}: {value}" for epoch, value in zip(found, texts, strict=True))
        yield f"iso-latency tau of early with last, {name} (first rung: {first})", text


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Default: the embedded digits.")
@click.option("--imgsz", default=96, show_default=True)
@click.option("--epochs", default=6, show_default=True)
@click.option("--designs", "count", default=16, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the designs.")
@click.option("--train", "given", multiple=True, default=SETTINGS, show_default=True, metavar="KEY=VALUE")
@click.option(
    "--regime",
    "regimes",
    type=click.Choice(tuple(REGIMES)),
    multiple=True,
    default=("scratch", "inherited"),
    show_default=True,
    help="First weights: " + "; ".join(f"{name}: {text}" for name, text in REGIMES.items()) + ".",
)
@click.option("--workers", default=2, show_default=True, help="Trainings at once, one thread each.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(
    data: Path | None,
    imgsz: int,
    epochs: int,
    count: int,
    seed: int,
    given: tuple[str, ...],
    regimes: tuple[str, ...],
    workers: int,
    file: Path | None,
) -> None:
    """Train random designs with and without inherited weights, and compare."""
    from nas_yolo.environment import ultralytics_environment

    os.environ.update(ultralytics_environment())
    os.environ["OMP_NUM_THREADS"] = "1"
    from benchmarks.report import report
    from evaluators.latency import calibrate
    from evaluators.target import get_target
    from nas_yolo.application.arguments import parse_arguments
    from nas_yolo.digits import write_digits
    from search_spaces.image_size import ImageSize
    from search_spaces.presets import load_preset

    asked = {"imgsz": imgsz, "epochs": epochs, "designs": count, "seed": seed, "arguments": parse_arguments(given, {})}
    document: dict[str, Any] = json.loads(file.read_text()) if file and file.exists() else {**asked, "trainings": {}}
    if {key: document[key] for key in asked} != asked:
        raise click.ClickException(f"{file} is of other settings; give another --json")
    if any("lagging_map50_95" not in training for training in document["trainings"].values()):
        raise click.ClickException(f"{file} is of an earlier version; give another --json")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = str(data or write_digits(folder))
        checkpoint = (file or folder / "x").with_suffix(".parent.pt")  # kept beside the results, to go on
        texts = [design.document for design in designs(count, ImageSize.parse(imgsz), seed)]
        common = {"data": source, "imgsz": imgsz, "epochs": epochs, "arguments": asked["arguments"]}

        def work(name: str, design: str, regime: str) -> dict[str, Any]:
            home, parent = str(folder / name.replace(" ", "-")), "" if regime == "scratch" else str(checkpoint)
            return {**common, "name": name, "design": design, "home": home, "regime": regime, "parent": parent}

        def keep(found: dict[str, Any]) -> None:
            document["trainings"][found["name"]] = found
            print(found["name"], " ".join(f"{value:.3f}" for value in found["map50_95"]), flush=True)
            if file:
                file.write_text(json.dumps(document))

        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context) as pool:
            if "parent" not in document["trainings"] or not checkpoint.exists():
                stock = work("parent", load_preset("yolov8n").document, "scratch")
                keep(pool.submit(run, stock).result())
                (Path(stock["home"]) / "checkpoint.pt").replace(checkpoint)
            asked_for = [(f"{regime} {n}", text, regime) for regime in regimes for n, text in enumerate(texts)]
            left = [work(*one) for one in asked_for if one[0] not in document["trainings"]]
            for found in pool.map(run, left):
                keep(found)
        if "latencies_ms" not in document:
            target = get_target("cpu")
            size = ImageSize.parse(imgsz)
            calibration = calibrate(target, size)
            document["latencies_ms"] = [latency_ms(text, size, calibration, folder) for text in texts]
            if file:
                file.write_text(json.dumps(document))
        title = f"First weights: {count} designs, {epochs} epochs, {data or 'digits'} at {imgsz} px"
        report(title, list(rows(document)), document, file)


if __name__ == "__main__":
    main()

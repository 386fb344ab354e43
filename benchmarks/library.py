"""What a library of blocks that imitate the stock model takes and tells: entries, swaps, scores of random designs.

The stock model is trained from scratch; then an entry for each block at each place of a space is trained to imitate it.
Reported are the time of all entries in full trainings of stock; mAP50-95 of stock with one choice changed, for all of
them; how many designs are scored a minute; and how well the shares that changes leave, multiplied, predict scores of
random designs.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from scipy.stats import spearmanr

if TYPE_CHECKING:
    from evaluators.accuracy.imitation.library import Library
    from evaluators.accuracy.imitation.score import Scorer
    from evaluators.dataset import Dataset
    from nas_yolo.additive import Additive
    from search_spaces.architecture import Architecture
    from search_spaces.image_size import ImageSize
    from search_spaces.space import Choices, SearchSpace

LOWEST = 0.001  # scores below count as this
SETTINGS = ("batch=16", "nbs=16", "optimizer=AdamW", "lr0=0.003", "mosaic=0")  # the demo's


def train_stock(
    preset: str, dataset: Dataset, imgsz: ImageSize, epochs: int, arguments: dict[str, Any], home: Path
) -> tuple[float, float]:
    """Train the stock model, unless it is there; seconds and mAP50-95."""
    from evaluators.accuracy.request import TrainingRequest
    from evaluators.accuracy.training import train
    from evaluators.evaluation import Epoch
    from search_spaces.presets import load_preset

    request = TrainingRequest(
        architecture=load_preset(preset),
        dataset=dataset,
        imgsz=imgsz,
        epochs=epochs,
        until=epochs,
        seed=0,
        checkpoint=home / "checkpoint.pt",
        scratch=home,
        images=home / "images",
        rungs=(epochs,),
        arguments=arguments,
    )
    found = [item for item in train(request) if isinstance(item, Epoch)]
    if len(found) != epochs or found[-1].map50_95 is None:
        raise click.ClickException(f"the training of {preset} ended after {len(found)} epochs")
    return sum(epoch.seconds for epoch in found), found[-1].map50_95


def swaps(library: Library, scorer: Scorer, space: SearchSpace, start: Choices) -> dict[str, dict[str, float]]:
    """mAP50-95 of the parent with one choice changed, by choice and value."""
    return {
        name: {str(value): score(library, scorer, space.architecture({**start, name: value})) for value in values}
        for name, values in space.choices.items()
        if len(values) > 1
    }


def swap_model(swapped: dict[str, dict[str, float]], own: float, start: Choices) -> Additive:
    """What is left of the parent's score after each change, as logarithms that are added up."""
    from nas_yolo.additive import Additive

    own = max(own, LOWEST)
    effects: dict[tuple[str, ...], dict[tuple[str | int, ...], float]] = {}
    for name, values in swapped.items():
        shares = {value: float(np.log(max(known, LOWEST) / own)) for value, known in values.items()}
        effects[(name,)] = {(_value(name, value, start),): share for value, share in shares.items()}
    return Additive(float(np.log(own)), effects)


def _value(name: str, text: str, start: Choices) -> str | int:
    return int(text) if isinstance(start[name], int) else text


def score(library: Library, scorer: Scorer, architecture: Architecture) -> float:
    """mAP50-95 of an assembled design."""
    from evaluators.accuracy.imitation.assembly import assemble

    return scorer.score(assemble(library.interfaces.parent, architecture, library))["map50_95"]


def report(document: dict[str, Any]) -> None:
    """Print what was found."""
    entries, stock = document["entries"], document["stock"]
    seconds = sum(entry["seconds"] for entry in entries)
    click.echo(f"stock: mAP50-95 {stock['map50_95']:.3f} after {stock['seconds']:.0f} s; scored {document['own']:.3f}")
    click.echo(
        f"library: {len(entries)} entries in {seconds:.0f} s, {seconds / stock['seconds']:.2f} trainings of stock"
    )
    for name, values in document["swaps"].items():
        click.echo(f"  {name}: " + ", ".join(f"{value} {accuracy:.3f}" for value, accuracy in values.items()))
    scores, predicted = (np.array([one[key] for one in document["designs"]]) for key in ("score", "predicted"))
    rank = float(spearmanr(scores, predicted).statistic)
    error = float(np.sqrt(np.mean((scores - predicted) ** 2)))
    each = float(np.mean([one["seconds"] for one in document["designs"]]))
    click.echo(f"{len(scores)} random designs: {60 / each:.0f} scores a minute; mean {scores.mean():.3f}")
    click.echo(f"swaps multiplied: error {error:.3f} (scores vary by {scores.std():.3f}), rank correlation {rank:.2f}")


@click.command()
@click.option("--data", help="Data YAML; by default the embedded digits.")
@click.option("--imgsz", default=96, show_default=True)
@click.option("--epochs", default=12, show_default=True, help="Of the stock model.")
@click.option("--train", multiple=True, default=SETTINGS, show_default=True, help="Ultralytics training arguments.")
@click.option("--space", "space_name", default="yolov8n", show_default=True)
@click.option("--steps", default=100, show_default=True, help="Of the training of an entry.")
@click.option("--batch", default=16, show_default=True, help="Images in a step.")
@click.option("--images", default=128, show_default=True, help="Validation images of a score.")
@click.option("--designs", default=48, show_default=True, help="Random designs.")
@click.option("--home", type=click.Path(path_type=Path), help="Keeps the stock model's training, and entries.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(
    data: str | None,
    imgsz: int,
    epochs: int,
    train: tuple[str, ...],
    space_name: str,
    steps: int,
    batch: int,
    images: int,
    designs: int,
    home: Path | None,
    file: Path | None,
) -> None:
    """Build a library of blocks that imitate the stock model, and score designs that are made of it."""
    import torch

    from evaluators.accuracy.imitation.build import Workshop
    from evaluators.accuracy.imitation.score import Scorer
    from evaluators.accuracy.request import LibraryRequest
    from evaluators.dataset import load_dataset
    from nas_yolo.application.arguments import parse_training
    from nas_yolo.digits import write_digits
    from search_spaces.image_size import ImageSize
    from search_spaces.kinds import kinds_of
    from search_spaces.presets import load_preset
    from search_spaces.space_file import load_space

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        home = home or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        dataset, size = load_dataset(data or str(write_digits(home / "data"))), ImageSize(imgsz, imgsz)
        arguments, space = parse_training(train), load_space(space_name)
        seconds, accuracy = train_stock(space.baseline, dataset, size, epochs, arguments, home)
        start = space.choices_of(load_preset(space.baseline))
        if start is None:
            raise click.ClickException(f"{space.baseline} is no point of space {space_name}")
        request = LibraryRequest(
            name=space.baseline,
            parent=home / "checkpoint.pt",
            dataset=dataset,
            imgsz=size,
            space=space,
            start=start,
            folder=home / "library",
            images=home / "images",
            steps=steps,
            batch=batch,
            arguments=arguments,
        )
        workshop = Workshop(request)
        library, given = workshop.library, (workshop.decoded, dataset, size, arguments, workshop.statistics)
        scorer = Scorer(*given, images, home)
        entries = []
        for ready in workshop.build(kinds_of(space, start)):
            entries.append({**asdict(ready.kind), "error": ready.error, "seconds": ready.seconds})
            click.echo(f"{ready.kind.place} {ready.kind.block}: {ready.seconds:.1f} s", err=True)
        document: dict[str, Any] = {
            "stock": {"seconds": seconds, "map50_95": accuracy},
            "own": score(library, scorer, library.interfaces.parent.architecture),
            "entries": entries,
        }
        document["swaps"] = swaps(library, scorer, space, start)
        model = swap_model(document["swaps"], document["own"], start)
        rng, found = np.random.default_rng(0), []
        for _ in range(designs):
            choices = space.sample(rng)
            before = time.perf_counter()
            known = score(library, scorer, space.architecture(choices))
            taken = time.perf_counter() - before
            predicted = float(np.exp(model.predict(choices)))
            found.append({"choices": choices, "score": known, "predicted": predicted, "seconds": taken})
        document["designs"] = found
    report(document)
    if file:
        file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What a search finds that costs as much as some full trainings of the stock model, everything included.

Methods are whole searches as a user starts them: with blocks that imitate the stock model, or with inherited weights
alone. Each is compared with what it trained of the stock model scaled in width and depth. Reported are, per method, the
hypervolume (latency up to one and a half times stock's, shares of stock's latency and of mAP50-95 1), how much less
latency the front has at stock's accuracy less .01, and likewise for the scaled stock models alone; means over seeds and
their standard errors. Every search is kept in --home; begun again, what was done is not done again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from benchmarks.report import report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage import Trial

METHODS = {"library": None, "inherited": True, "scratch": False}  # what make_config is told of first weights
SETTINGS = ("batch=16", "nbs=16", "optimizer=AdamW", "lr0=0.003", "mosaic=0")
EQUAL = 0.01  # mAP50-95, less than what seeds differ by
BEYOND = 1.5  # times stock's latency, where nothing counts any more
Point = tuple[float, float]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        stock: Latency in ms and mAP50-95 of the stock model, trained as all others; None: it was not.
        designs: Of those that the engine proposed and trained to the end.
        scaled: Of the stock model and those that are it in other widths and depths.
        trained: Designs that were trained at all.
        scored: That were put together from the library.
    """

    stock: Point | None
    designs: list[Point]
    scaled: list[Point]
    trained: int
    scored: int


def outcome(trials: Sequence[Trial], target: str, scored: int) -> Found:
    """What a search's trials come to."""
    from nas_yolo.results import complete

    done = [(t, (t.latencies[target].latency_ms, t.map50_95 or 0.0)) for t in complete(trials, target)]
    stock = [point for trial, point in done if trial.preset == "yolov8n"]
    return Found(
        stock[0] if stock else None,
        [point for trial, point in done if trial.origin.startswith("sampler:")],
        [*stock, *(point for trial, point in done if trial.origin.startswith("scaled:"))],
        sum(bool(trial.epochs) for trial in trials if trial.is_design),
        scored,
    )


def hypervolume(points: Sequence[Point], stock_ms: float) -> float:
    """Of the front of these, in units of the stock model's latency and of mAP50-95 1."""
    from nas_yolo.pareto import front

    area, before = 0.0, BEYOND
    chosen = [points[i] for i in front([p[0] for p in points], [p[1] for p in points])] if points else []
    for latency, accuracy in sorted(chosen, key=lambda point: -point[0]):
        left = min(latency / stock_ms, before)
        area, before = area + (before - left) * accuracy, left
    return area


def saved(points: Sequence[Point], stock: Point) -> float:
    """How much less latency the fastest point has that is about as accurate as stock, as a share; 0: none is faster."""
    fast = min((latency for latency, accuracy in points if accuracy >= stock[1] - EQUAL), default=stock[0])
    return max(1 - fast / stock[0], 0.0)


def search_once(
    data: str, imgsz: int, epochs: int, train: Sequence[str], budget: str, method: str, seed: int, home: Path
) -> Found:
    """One search, from nothing; or what it found, if it was done."""
    from nas_yolo.application import create_search, make_config, run_search
    from storage import Repository

    home.mkdir(parents=True, exist_ok=True)
    repository = Repository(f"sqlite:///{home / 'search.db'}")
    if not repository.searches():
        config = make_config(
            data=data,
            targets=("cpu",),
            budgets=(budget,),
            imgsz=imgsz,
            epochs=epochs,
            training=train,
            inherit=METHODS[method],
            seed=seed,
            warm_start=False,
        )
        create_search(repository, "search", config)
    search = repository.search("search")
    if search.state != "done":
        search = run_search(repository, search)
    state = repository.state(search)
    repository.close()
    return outcome(state.trials, "cpu", len(state.assemblies))


@click.command()
@click.option("--data", help="Data YAML; by default the embedded digits.")
@click.option("--imgsz", default=96, show_default=True)
@click.option("--epochs", default=12, show_default=True, help="Of a full training.")
@click.option("--train", multiple=True, default=SETTINGS, show_default=True, help="Ultralytics training arguments.")
@click.option("--trainings", default=20.0, show_default=True, help="The budget, in full trainings of stock.")
@click.option("--stock-seconds", type=float, help="Of a full training of stock; by default it is trained to know.")
@click.option("--method", "methods", multiple=True, default=("library", "inherited"), show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--home", type=click.Path(path_type=Path), required=True, help="Keeps the searches.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(
    data: str | None,
    imgsz: int,
    epochs: int,
    train: tuple[str, ...],
    trainings: float,
    stock_seconds: float | None,
    methods: tuple[str, ...],
    seeds: int,
    home: Path,
    file: Path | None,
) -> None:
    """Search with a budget of some full trainings, by several methods, and compare what they find."""
    from benchmarks.library import train_stock
    from evaluators.dataset import load_dataset
    from nas_yolo.application.arguments import parse_training
    from nas_yolo.digits import write_digits
    from search_spaces.image_size import ImageSize

    data = data or str(write_digits(home / "data"))
    if stock_seconds is None:
        given = load_dataset(data), ImageSize(imgsz, imgsz), epochs, parse_training(train)
        stock_seconds, _ = train_stock("yolov8n", *given, home / "stock")
    budget = f"{trainings * stock_seconds:.0f}cpu-s"
    click.echo(f"A full training of stock takes {stock_seconds:.0f} s; the budget is {budget}", err=True)
    rows, document = [], {}
    for method in methods:
        found = []
        for seed in range(seeds):
            one = search_once(data, imgsz, epochs, train, budget, method, seed, home / f"{method}-{trainings:g}-{seed}")
            click.echo(f"{method}, seed {seed}: {json.dumps(asdict(one))}", err=True)
            found.append(one)
        document[method] = [asdict(one) for one in found]
        known = [(one, one.stock) for one in found if one.stock is not None]
        figures = {
            "hypervolume, all": [hypervolume([*f.designs, *f.scaled], s[0]) for f, s in known],
            "hypervolume, scaled stock alone": [hypervolume(f.scaled, s[0]) for f, s in known],
            "latency saved at stock's accuracy": [saved(f.designs, s) for f, s in known],
            "likewise, scaled stock alone": [saved(f.scaled, s) for f, s in known],
            "designs trained": [float(f.trained) for f, _ in known],
        }
        for name, values in figures.items():
            error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            rows.append((f"{method}: {name}", f"{np.mean(values):.3f} ± {error:.3f}" if values else "-"))
    report(f"Budget of {trainings:g} full trainings ({budget}), {imgsz} px", rows, {"searches": document}, file)


if __name__ == "__main__":
    main()

"""Replay the engine and its peers on a table, and compare the hypervolume that they reach at equal cost."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table as Shown

from benchmarks.replay import frontier, peers
from benchmarks.replay.simulation import NewMethod, Replay, replay
from benchmarks.replay.table import Table, TableError, load_table
from nas_yolo.environment import count_cores

CHECKPOINTS = (10, 20, 30, 50, 75, 100)  # percent of the budget
WIDTH = 130  # columns that the table needs
METHODS = "frontier,tpe,nsga2,gp,moasha,random"  # what needs no package of the extra `bench`

EXAMPLES = """
    \b
    Examples:
      python -m benchmarks.replay nb201_cifar10.npz --device pixel3 --json out.json --plot out.svg
      python -m benchmarks.replay nb201_cifar10.npz --methods frontier --workers 1,8,64
"""


def list_methods() -> list[str]:
    """`frontier` and the names of all peers."""
    return ["frontier", *(m.name for m in pkgutil.iter_modules(peers.__path__) if not m.name.startswith("_"))]


def get_peer(name: str) -> NewMethod:
    """A peer by its name."""
    new: NewMethod = importlib.import_module(f"benchmarks.replay.peers.{name}").new
    return new


_table = cache(load_table)


def run_one(
    path: Path,
    device: str | None,
    name: str,
    seed: int,
    budget: int,
    workers: int = 1,
    training_s: float = math.inf,
    fidelities: int | None = None,
) -> Replay:
    """One replay, in a process of its own."""
    table = _table(path, device, fidelities)
    if name == "frontier":
        return frontier.replay(table, seed, budget, workers, training_s)
    return replay(table, get_peer(name), seed, budget, workers, training_s)


def summary(table: Table, results: dict[str, list[Replay]], budget: int, workers: int) -> dict[str, Any]:
    """What several seeds of each method come to."""
    curves = {name: np.array([result.curve for result in found]) for name, found in results.items()}
    return {
        "table": table.name,
        "device": table.device,
        "workers": workers,
        "seeds": len(next(iter(results.values()))),
        "budget": budget,
        "curves": {name: curve.mean(axis=0).round(5).tolist() for name, curve in curves.items()},
        "std": {
            name: curve.std(axis=0, ddof=min(1, len(curve) - 1)).round(5).tolist() for name, curve in curves.items()
        },
        "seconds_per_ask": {
            name: float(np.mean([result.seconds_per_ask for result in found])) for name, found in results.items()
        },
        "trainings": {name: np.mean([r.jobs for r in found], axis=0).tolist() for name, found in results.items()},
        "busy": {name: float(np.mean([result.busy for result in found])) for name, found in results.items()},
    }


def cost_to_reach(document: dict[str, Any]) -> tuple[float | None, str, float]:
    """The cost at which `frontier` reaches what the best peer has at the end; that peer, and its hypervolume."""
    ends = {name: curve[-1] for name, curve in document["curves"].items() if name != "frontier"}
    peer = max(ends, key=lambda name: ends[name])
    reached = [cost for cost, value in enumerate(document["curves"]["frontier"], start=1) if value >= ends[peer]]
    return (float(reached[0]) if reached else None), peer, ends[peer]


def show(document: dict[str, Any]) -> None:
    """Print a table of the hypervolumes, with the standard error of their means."""
    title = f"{document['table']}, {document['device']}, {document['workers']} worker(s), {document['seeds']} seeds"
    shown = Shown("method", title=f"Normalised hypervolume: {title}", title_justify="left")
    costs = [max(round(document["budget"] * percent / 100), 1) for percent in CHECKPOINTS]
    for cost in costs:
        shown.add_column(f"at {cost}", justify="right")
    shown.add_column("s/ask", justify="right")
    shown.add_column("busy", justify="right")
    for name, curve in document["curves"].items():
        errors = [document["std"][name][cost - 1] / document["seeds"] ** 0.5 for cost in costs]
        cells = [f"{curve[cost - 1]:.3f} ± {error:.3f}" for cost, error in zip(costs, errors, strict=True)]
        shown.add_row(name, *cells, f"{document['seconds_per_ask'][name]:.4f}", f"{document['busy'][name]:.1%}")
    console = Console(width=max(Console().width, WIDTH))
    console.print(shown)
    if "frontier" in document["curves"] and len(document["curves"]) > 1:
        cost, peer, value = cost_to_reach(document)
        reached = f"at cost {cost:g}" if cost else "not within the budget"
        console.print(f"frontier reaches what the best peer ({peer}) has at the end, {value:.3f}: {reached}.")


def plot(documents: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw the curves with 95 % bands of their means."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(documents), figsize=(6 * len(documents), 4.5), squeeze=False)
    for axis, document in zip(axes[0], documents, strict=True):
        costs = np.arange(1, document["budget"] + 1)
        for name, curve in document["curves"].items():
            mean, error = np.array(curve), np.array(document["std"][name]) / document["seeds"] ** 0.5
            (line,) = axis.plot(costs, mean, label=name, linewidth=2.5 if name == "frontier" else 1.2)
            axis.fill_between(costs, mean - 1.96 * error, mean + 1.96 * error, color=line.get_color(), alpha=0.15)
        workers = f", {document['workers']} workers" if document["workers"] > 1 else ""
        axis.set(title=f"{document['device']}{workers}", xlabel="cost, full trainings", ylabel="normalised hypervolume")
        axis.set_ylim(bottom=max(0.0, min(min(c[4:]) for c in document["curves"].values() if len(c) > 4) - 0.05))
        axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


@click.command(epilog=EXAMPLES)
@click.argument("path", metavar="TABLE.npz", type=click.Path(path_type=Path))
@click.option("--device", "devices", multiple=True, help="Whose latencies. Repeatable. Default: the table's first.")
@click.option("--budget", default=100, show_default=True, type=click.IntRange(1), help="In full trainings.")
@click.option("--seeds", default=8, show_default=True, type=click.IntRange(1))
@click.option("--methods", default=METHODS, show_default=True, help="Separated by commas.")
@click.option("--workers", default="1", show_default=True, help="Asynchronous slots; several separated by commas.")
@click.option(
    "--training-seconds",
    "training_s",
    default=math.inf,
    help="Of a full training: workers then wait for decisions as long as those really take. Default: not at all.",
)
@click.option("--fidelities", type=click.IntRange(1), help="Only so many of the table's, the highest. Default: all.")
@click.option("--json", "file", type=click.Path(path_type=Path))
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="SVG or PNG.")
def main(
    path: Path,
    devices: tuple[str, ...],
    budget: int,
    seeds: int,
    methods: str,
    workers: str,
    training_s: float,
    fidelities: int | None,
    file: Path | None,
    picture: Path | None,
) -> None:
    """Compare methods on a table, each with several seeds, at the cost of so many full trainings."""
    names = [name.strip() for name in methods.split(",")]
    if strangers := [name for name in names if name not in list_methods()]:
        raise click.ClickException(f"no method {', '.join(strangers)}; there are {', '.join(list_methods())}")
    try:
        slots = [int(count) for count in workers.split(",")]
        tables = [load_table(path, device, fidelities) for device in devices or (None,)]
        for table in tables:
            if "frontier" in names:
                frontier.ladder(table)
    except (TableError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    documents = []
    with ProcessPoolExecutor(count_cores()) as pool:
        jobs = {
            (table.device, count, name): [
                pool.submit(run_one, path, table.device, name, seed, budget, count, training_s, fidelities)
                for seed in range(seeds)
            ]
            for table in tables
            for count in slots
            for name in names
        }
        for table in tables:
            for count in slots:
                try:
                    results = {name: [job.result() for job in jobs[table.device, count, name]] for name in names}
                except ModuleNotFoundError as error:
                    raise click.ClickException(str(error)) from error
                documents.append(summary(table, results, budget, count))
                show(documents[-1])
    if file:
        document = documents[0] if len(documents) == 1 else documents[0] | {"runs": documents}
        file.write_text(json.dumps(document) + "\n")
    if picture:
        plot(documents, picture)


if __name__ == "__main__":
    main()

"""What an earlier search is worth to the next one: the engine on a table, with and without."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.frontier import search
from benchmarks.replay.table import Table, load_table
from benchmarks.report import report
from nas_yolo.environment import count_cores
from storage import Repository

CHECKPOINTS = (2, 5, 10, 20)  # full trainings


def nothing(repository: Repository, table: Table, seed: int, budget: int) -> None:
    """No earlier search."""


def same_data(repository: Repository, table: Table, seed: int, budget: int) -> None:
    """A search on the same data for another device."""
    search(repository, table, 1000 + seed, budget)


def unrelated(repository: Repository, table: Table, seed: int, budget: int) -> None:
    """A search on other data that tells nothing of these: accuracies dealt anew."""
    dealt = np.random.default_rng(seed).permutation(table.accuracy)
    search(repository, replace(table, accuracy=dealt), 1000 + seed, budget, images="others")


def run_one(
    path: Path, device: str, earlier: Callable[[Repository, Table, int, int], None], other: str, seed: int, spent: int
) -> NDArray[np.float64]:
    """Hypervolume at costs 1, 2, .. of a search after an earlier one; in a process of its own."""
    with closing(Repository("sqlite://")) as repository:
        earlier(repository, load_table(path, other), seed, spent)
        return search(repository, load_table(path, device), seed, CHECKPOINTS[-1]).curve


@click.command()
@click.argument("path", metavar="TABLE.npz", type=click.Path(path_type=Path))
@click.option("--device", "devices", multiple=True, required=True, help="To search for. Repeatable.")
@click.option("--earlier", "other", required=True, help="Device of the earlier search.")
@click.option("--spent", default=20, show_default=True, help="By the earlier search, full trainings.")
@click.option("--seeds", default=8, show_default=True, type=click.IntRange(1))
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(path: Path, devices: tuple[str, ...], other: str, spent: int, seeds: int, file: Path | None) -> None:
    """Print the mean normalised hypervolume at equal cost after no, a related and an unrelated earlier search."""
    rows, document = [], {}
    with ProcessPoolExecutor(count_cores()) as pool:
        jobs = {
            (device, earlier.__name__): [
                pool.submit(run_one, path, device, earlier, other, seed, spent) for seed in range(seeds)
            ]
            for device in devices
            for earlier in (nothing, same_data, unrelated)
        }
        for (device, name), found in jobs.items():
            curves = np.array([job.result() for job in found])[:, np.array(CHECKPOINTS) - 1]
            error = curves.std(axis=0, ddof=min(1, seeds - 1)) / seeds**0.5
            cells = [f"{m:.3f} ± {e:.3f}" for m, e in zip(curves.mean(axis=0), error, strict=True)]
            rows.append((f"{device}, after {name.replace('_', ' ')}", ", ".join(cells)))
            document[f"{device} {name}"] = curves.mean(axis=0).round(4).tolist()
    report(f"Hypervolume at {', '.join(map(str, CHECKPOINTS))} full trainings", rows, document, file)


if __name__ == "__main__":
    main()

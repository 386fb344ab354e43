"""How long the engine takes to decide, by the number of trials that it knows."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from benchmarks.report import report
from nas_yolo.fidelities import ETA, rungs
from nas_yolo.samplers import Grid, Observation
from nas_yolo.samplers.frontier import Frontier
from search_spaces.space_file import load_space

EPOCHS = 100


def trials(grid: Grid, count: int, rng: np.random.Generator) -> list[Observation]:
    """Made-up trials: latency and accuracy follow from features of the design, with noise."""
    codes = grid.draw(count, rng)
    features = np.concatenate(grid.features(codes), axis=1)
    latency = np.exp(0.5 * features @ rng.random(features.shape[1]))
    final = 1 / (1 + np.exp(-features @ rng.normal(size=features.shape[1]) - np.log(latency)))
    last = len(rungs(EPOCHS))
    seen = []
    for number in range(count):
        reached = next((few for few in range(1, last) if rng.random() > 1 / ETA), last)
        accuracies = [float(final[number] * (index + 1) / last + rng.normal(0, 0.02)) for index in range(reached)]
        point = tuple(codes[number].tolist())
        seen.append(Observation(point, (float(latency[number]),), tuple(accuracies), over=reached == last))
    return seen


def seconds(grid: Grid, seen: list[Observation], decisions: int) -> list[float]:
    """Of each decision, proposal and order, after one more report each."""
    engine, found = Frontier(grid, [rung.cost for rung in rungs(EPOCHS)], 0), []
    for number in range(decisions):
        started = time.perf_counter()
        next(iter(engine.candidates(seen)))
        engine.order(seen)
        found.append(time.perf_counter() - started)
        seen = [*seen, replace(seen[number], codes=seen[-1 - number].codes)]
    return found


@click.command()
@click.option("--space", default="yolov8n", show_default=True, help="A search space of the library.")
@click.option("--decisions", default=10, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(space: str, decisions: int, file: Path | None) -> None:
    """Print the seconds of a decision at 200, 2,000 and 20,000 trials."""
    grid = Grid(load_space(space).choices)
    rows, document = [], {}
    for count in (200, 2_000, 20_000):
        found = seconds(grid, trials(grid, count, np.random.default_rng(0)), decisions)
        document[str(count)] = {"median_s": statistics.median(found), "largest_s": max(found)}
        rows.append((f"{count:,} trials, s (median, largest)", f"{statistics.median(found):.3f}, {max(found):.3f}"))
    report(f"A decision of the engine, space {space}", rows, {"seconds_per_decision": document}, file)


if __name__ == "__main__":
    main()

"""The swaps that people make by hand, measured against the stock model of each: writes `docs/seeds.md`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from nas_yolo.environment import count_cores

# Number of the document that shows the swap, the swap, the stock model, the preset.
SEEDS = (
    ("000", "GhostNetV2 bottlenecks (DFC attention) from P2 to P5", "yolov8n", "yolov8n-ghostv2"),
    ("001", "ShuffleNet V2 units, stride 2 and 1, from P2 to P5", "yolov8n", "yolov8n-shufflev2"),
    ("002", "focal modulation after the last backbone stage", "yolov9c", "yolov9c-focal"),
    ("003", "ghost convolutions in the whole backbone", "yolov8n", "yolov8n-ghost"),
    ("004", "ConvNeXt backbone: stem, downsamplings and blocks", "yolov8n", "yolov8n-convnext"),
)
TARGET = "cpu"


def profile(model: str) -> dict[str, Any]:
    """What `nas-yolo profile MODEL --target cpu --fresh --json` prints."""
    command = [sys.executable, "-m", "nas_yolo", "profile", model, "--target", TARGET, "--fresh", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def change(stock: float, swap: float) -> str:
    """In percent of the stock model's."""
    return f"{100 * (swap - stock) / stock:+.2f} %"


def page(profiles: dict[str, dict[str, Any]]) -> str:
    """The document, from profiles by model."""
    rows = []
    for number, what, stock, swap in SEEDS:
        base, other = profiles[stock], profiles[swap]
        before, after = base["latency_ms"][TARGET], other["latency_ms"][TARGET]
        params, gflops = change(base["params"], other["params"]), change(base["gflops"], other["gflops"])
        latency = change(before["latency"], after["latency"])
        rows += [
            f"| {number} | {what} | `{stock}` | {base['params']:,} | | {base['gflops']:.1f} | | {_shown(before)} | |",
            f"| | | `{swap}` | {other['params']:,} | {params} | {other['gflops']:.1f} | {gflops} "
            f"| {_shown(after)} | {latency} |",
        ]
    base, other = profiles["yolov8n"], profiles["yolov8n-ghost"]
    on = base["latency_ms"][TARGET]
    before, after = round(base["gflops"], 1), round(other["gflops"], 1)
    return f"""# Five swaps made by hand

Written by `python -m benchmarks.seeds --write docs/seeds.md`; every figure is what

    nas-yolo profile MODEL --target cpu --fresh --json

prints for the model named: 80 classes, 640 px; GFLOPs as Ultralytics counts them; latency of the network alone with its
95 % interval, by {on["runtime"]} in {on["precision"]}; threads: {on["threads"]}, cores: {count_cores()}.
Other machines give other latencies. Sizes say nothing about accuracy.

| document | swap | model | parameters | | GFLOPs | | latency, ms | |
|---|---|---|--:|--:|--:|--:|--:|--:|
{chr(10).join(rows)}

Document 003 states 3,157,200 -> 2,502,908 parameters, -20.72 %, and 8.9 -> 7.1 GFLOPs, -20.22 %. Measured here:
{base["params"]:,} -> {other["params"]:,}, {change(base["params"], other["params"])};
{before} -> {after}, {change(before, after)}, taken from the rounded GFLOPs as there.
From the unrounded ones ({base["gflops"]} -> {other["gflops"]}) it is {change(base["gflops"], other["gflops"])}.

The other documents give no sizes. 000, 001 and 004 show modules, not a whole model file: the presets put them into
every stage from P2 to P5, with the paper's own stride-2 form as downsampling. In 002 the auxiliary branch, which is
for training only, is left out, as Ultralytics does. What differs from the papers (activation, layer scale) is in the
header of each file in `search_spaces/blocks`.
"""


def _shown(latency: dict[str, Any]) -> str:
    low, high = latency["ci"]
    mark = "" if latency["quality"] == "good" else f" ({latency['quality']})"
    return f"{latency['latency']:.1f} ±{(high - low) / 2:.1f}{mark}"


@click.command()
@click.option("--write", "file", type=click.Path(path_type=Path), help="Where to write it; default: print it.")
def main(file: Path | None) -> None:
    """Measure the five swaps and their stock models."""
    models = dict.fromkeys(model for _, _, stock, swap in SEEDS for model in (stock, swap))
    profiles = {}
    for model in models:
        click.echo(f"profiling {model}", err=True)
        profiles[model] = profile(model)
    text = page(profiles)
    if file:
        file.write_text(text, encoding="utf-8")
    else:
        click.echo(text)


if __name__ == "__main__":
    main()

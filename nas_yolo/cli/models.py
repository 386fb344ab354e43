"""`profile`, `models` and `spaces`."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas_yolo.cli.options import (
    console,
    imgsz_option,
    json_option,
    open_repository,
    postprocess_option,
    print_json,
    storage_option,
    targets_option,
)

if TYPE_CHECKING:
    from search_spaces.image_size import ImageSize


@click.command("profile")
@click.argument("model")
@click.option("--target", "targets", multiple=True, metavar="NAME", help="Measure latency there. Repeatable.")
@imgsz_option(640)
@postprocess_option
@click.option("--fresh", is_flag=True, help="Measure again, whatever is in the database.")
@targets_option
@storage_option
@json_option
def profile_command(
    model: str,
    targets: tuple[str, ...],
    imgsz: ImageSize,
    with_postprocess: bool,
    fresh: bool,
    targets_file: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Measure a model: parameters, GFLOPs (as Ultralytics counts, and fused) and latency.

    MODEL is a known design (nas-yolo models), a model YAML of yours or Ultralytics' own (yolov8n.yaml), or a checkpoint
    (.pt) of a detector. Nothing in a file is executed, and nothing is downloaded.

    \b
    Examples:
      nas-yolo profile yolov8n-ghost
      nas-yolo profile best.yaml --target cpu --imgsz 320
      nas-yolo profile runs/detect/train/weights/best.pt
    """
    import tempfile

    from rich.table import Table

    from evaluators.complexity import measure_complexity
    from evaluators.errors import LatencyError
    from evaluators.evaluation import combine
    from evaluators.latency import calibrate, fingerprint_of, identify, measure_latency
    from evaluators.target import get_target, timed_text
    from nas_yolo.report.tables import latency_text
    from search_spaces import UserError
    from search_spaces.model_file import read_model

    named = [get_target(name, targets_file) for name in dict.fromkeys(targets)]
    chosen = [replace(target, postprocess=with_postprocess) for target in named]
    found = read_model(model)
    network, architecture, classes = found.build(), found.architecture, found.classes
    complexity = measure_complexity(network, imgsz)
    latencies: dict[str, Any] = {}
    for target in chosen:
        repository = open_repository(url)
        try:
            identity = identify(target)
            mark = fingerprint_of(identity)
            latency = None
            if architecture and not fresh:
                latency = repository.find_latency(architecture, classes, imgsz, mark)
            if latency is None:
                calibration = repository.calibration(mark, imgsz)
                if calibration is None:
                    calibration = calibrate(target, imgsz)
                    repository.add_calibration(calibration)
                calibration = replace(calibration, identity=identity)
                with tempfile.TemporaryDirectory() as scratch:
                    sessions = list(measure_latency(network, target, calibration, Path(scratch)))
                if architecture:
                    for session in sessions:
                        repository.add_latency(architecture, classes, session)
                latency = combine(sessions)
                assert latency is not None  # else there was an error
        except LatencyError as error:
            raise UserError(f"latency on {target.name} was not measured: {error}") from error
        latencies[target.name] = (target, latency)
    if as_json:
        return print_json(
            {
                "model": model,
                "origin": found.origin,
                "file": None if found.path is None else str(found.path),
                "scale": found.scale,
                "scale_from": found.scale_from,
                "names": found.names,
                "namesakes": found.namesakes,
                "imgsz": imgsz.plain,
                "classes": classes,
                "params": complexity.params,
                "gflops": round(complexity.gflops, 3),
                "params_fused": complexity.params_fused,
                "gflops_fused": round(complexity.gflops_fused, 3),
                "layers": complexity.layers,
                "latency_ms": {
                    name: {
                        "of": timed_text(target),
                        "latency": latency.latency_ms,
                        "ci": [latency.ci_low_ms, latency.ci_high_ms],
                        "median": latency.median_ms,
                        "p90": latency.p90_ms,
                        "quality": latency.quality,
                        "runtime": target.runtime,
                        "precision": target.precision,
                        "threads": target.threads,
                    }
                    for name, (target, latency) in latencies.items()
                },
            }
        )
    screen = console()
    screen.print(f"{model}: {found.text}", soft_wrap=True)
    table = Table(
        "", "as Ultralytics counts", "fused", title=f"{model}, {imgsz} px, {classes} classes", title_justify="left"
    )
    table.add_row("parameters", f"{complexity.params:,}", f"{complexity.params_fused:,}")
    table.add_row("GFLOPs", f"{complexity.gflops:.1f}", f"{complexity.gflops_fused:.1f}")
    table.add_row("modules", str(complexity.layers), "")
    screen.print(table)
    for name, (target, latency) in latencies.items():
        settings = f"{target.runtime} {target.precision}, {target.threads} thread(s), {latency.quality}"
        screen.print(
            f"latency of {timed_text(target)} on {name}: {latency_text(latency)} ms (95 %), "
            f"raw median {latency.median_ms:.3g} ms; {settings}",
            soft_wrap=True,
        )
    return None


@click.command("models")
@json_option
def models_command(as_json: bool) -> None:
    """List known designs: stock models, and the swaps that people make by hand. Each is a model for `profile`."""
    from rich.table import Table

    from search_spaces.presets import presets

    rows = [
        {
            "name": preset.name,
            "family": preset.architecture.family,
            "blocks": preset.architecture.blocks,
            "what": preset.description,
        }
        for preset in presets().values()
    ]
    if as_json:
        return print_json(rows)
    table = Table("names", "blocks", "what it is")
    for what, designs in groupby(presets().values(), key=lambda preset: preset.description):
        scales = list(designs)  # one design comes in several scales
        table.add_row(", ".join(one.name for one in scales), ", ".join(scales[0].architecture.blocks), what)
    console().print(table)
    return None


@click.command("spaces")
@json_option
def spaces_command(as_json: bool) -> None:
    """List search spaces. Copy a file, edit it, and give it to `search --space`."""
    from rich.table import Table

    from nas_yolo.report.tables import count_text
    from search_spaces.space_file import load_space
    from search_spaces.space_reader import LIBRARY, list_spaces

    rows: list[dict[str, Any]] = []
    for name in list_spaces():
        space = load_space(name)
        path = LIBRARY / "spaces" / f"{name}.yaml"
        rows.append({"name": name, "family": space.family, "architectures": space.size, "file": str(path)})
    if as_json:
        return print_json(rows)
    table = Table("name", "family", "architectures")
    for row in rows:
        table.add_row(str(row["name"]), str(row["family"]), count_text(row["architectures"]))
    console().print(table)
    for row in rows:
        console().print(f"{row['name']}: {row['file']}", soft_wrap=True)
    return None

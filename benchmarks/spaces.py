"""Whether random architectures of every family build, run and export, and how long the moves in a space take."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from benchmarks.report import report

IMAGE_SIZES = (96, 160)
MOVES = 10_000


def try_space(name: str, count: int, scratch: Path) -> dict[str, Any]:
    """Build, run at both sizes and export `count` random architectures; what failed, and seconds of each step."""
    import torch

    from evaluators.export import export_onnx
    from search_spaces import hook
    from search_spaces.image_size import ImageSize
    from search_spaces.space_file import load_space

    space, rng = load_space(name), np.random.default_rng(0)
    steps: dict[str, list[float]] = {"build": [], "forward": [], "export": []}
    failures: list[str] = []
    resident = {}

    def timed(step: str, work: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        result = work(*arguments)
        steps[step].append(time.perf_counter() - started)
        return result

    for number in range(count):
        architecture = space.architecture(space.sample(rng))
        try:
            file = hook.model_file(architecture, 80)
            network = timed("build", hook.build, file).eval()
            for size in IMAGE_SIZES:
                with torch.no_grad():
                    output = timed("forward", network, torch.rand(1, 3, size, size))
                if not output[0].isfinite().all():
                    raise FloatingPointError(f"output at {size} px is not finite")
            timed("export", export_onnx, network, ImageSize.parse(IMAGE_SIZES[0]), scratch / "net.onnx")
        except Exception as error:
            failures.append(f"{architecture.document}: {type(error).__name__}: {error}")
        if number + 1 in (count // 2, count):
            resident[number + 1] = psutil.Process().memory_info().rss / 2**20
    medians = {f"{step}_seconds": statistics.median(seconds) for step, seconds in steps.items() if seconds}
    return {"tried": count, "failures": failures, **medians, "resident_mb": resident}


def seconds_of_moves(name: str) -> float:
    """Of sampling and encoding `MOVES` architectures."""
    from search_spaces.space_file import load_space

    space, rng = load_space(name), np.random.default_rng(0)
    started = time.perf_counter()
    sampled = [space.sample(rng) for _ in range(MOVES)]
    for choices in sampled:
        space.architecture(choices)
    space.encode(sampled)
    return time.perf_counter() - started


@click.command()
@click.argument("spaces", nargs=-1)
@click.option("--count", default=200, show_default=True, help="Architectures of each space.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(spaces: tuple[str, ...], count: int, file: Path | None) -> None:
    """Try random architectures of SPACES; by default the small space of each family."""
    document: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in spaces or ("yolov8n", "yolov9t", "yolo11n", "yolo26n"):
            started = time.perf_counter()
            found = try_space(name, count, Path(folder))
            found |= {"seconds": time.perf_counter() - started, "moves_seconds": seconds_of_moves(name)}
            document[name] = found
            resident = " ".join(f"{mb:.0f}" for mb in found["resident_mb"].values())
            ok = f"{found['tried'] - len(found['failures'])} of {found['tried']} in {found['seconds']:.0f} s"
            rows += [
                (f"{name}: built, run at {IMAGE_SIZES} px, exported", ok),
                (f"{name}: median seconds to build one", f"{found['build_seconds']:.2f}"),
                (f"{name}: seconds to sample, define and encode {MOVES:,}", f"{found['moves_seconds']:.2f}"),
                (f"{name}: MB resident, half way and at the end", resident),
            ]
    report("Random architectures", rows, document, file)
    for found in document.values():
        for failure in found["failures"]:
            click.echo(failure, err=True)
    if any(found["failures"] for found in document.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

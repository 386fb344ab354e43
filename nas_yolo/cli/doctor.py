"""`doctor`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import click

from nas_yolo.cli.options import console, json_option, open_repository, print_json, storage_option
from nas_yolo.environment import count_cores


@click.command("doctor")
@storage_option
@json_option
def doctor_command(url: str | None, as_json: bool) -> None:
    """Check that everything that a search needs is there and works; exit 1 if not."""
    checks: dict[str, Callable[[], str]] = {
        "Python": lambda: sys.version.split()[0],
        "PyTorch": _torch,
        "Ultralytics": _ultralytics,
        "ONNX Runtime": lambda: version("onnxruntime"),
        "Ray": lambda: version("ray"),
        "Optuna": lambda: version("optuna"),
        "cores": lambda: str(count_cores()),
        "GPUs": _gpus,
        "MPS": _mps,
        "database": lambda: open_repository(url).shown_url,
        "targets": _targets,
    }
    rows = []
    for name, check in checks.items():
        try:
            rows.append({"what": name, "ok": True, "found": check()})
        except Exception as error:  # a doctor reports whatever is wrong
            rows.append({"what": name, "ok": False, "found": f"{type(error).__name__}: {error}"})
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            mark = "[green]ok[/green]" if row["ok"] else "[red]no[/red]"
            console().print(f"{mark}  {row['what']:<13} {row['found']}", soft_wrap=True)
    if not all(row["ok"] for row in rows):
        raise SystemExit(1)


def _torch() -> str:
    import torch
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails if the two do not match
    return f"{torch.__version__}, torchvision {torchvision.__version__}"


def _ultralytics() -> str:
    from search_spaces import hook
    from search_spaces.blocks import list_blocks

    hook.install()
    return f"{version('ultralytics')}, knows the blocks {', '.join(list_blocks())}"


def _gpus() -> str:
    import torch

    names = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return ", ".join(names) or "none: trainings run on the CPU"


def _mps() -> str:
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    if not (folder / "control").exists():
        return "not running: trainings on one GPU take turns (--gpus-per-trial; NVIDIA's Multi-Process Service)"
    return f"its pipe is in {folder}: trainings on one GPU compute side by side"


def _targets() -> str:
    from importlib.util import find_spec

    from evaluators.target import BUILT_IN, own_targets
    from nas_yolo.cli.target import how_to_install

    missing = [name for name, target in BUILT_IN.items() if find_spec(target.runtime) is None]
    found = [
        f"{name} (to have it: {how_to_install(BUILT_IN[name].runtime)})" if name in missing else name
        for name in BUILT_IN
    ]
    return ", ".join([*found, *(f"{name} ({target.where})" for name, target in own_targets().items())])

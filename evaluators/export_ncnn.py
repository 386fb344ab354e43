"""From a detector to ncnn's two files."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.errors import LatencyError
from evaluators.runtimes import ncnn as runtime
from evaluators.tracing import deployed

if TYPE_CHECKING:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    from search_spaces.image_size import ImageSize

CONVERT_S = 300.0  # it takes seconds
TOLERANCE = 1e-2  # of the largest output: Winograd's convolutions are exact to some 1e-4
# In a process of its own, since ncnn may crash on what pnnx writes.
RUN = """
import numpy, runpy, sys
runtime, model, image, output = sys.argv[1:]
settings = {"threads": 1, "precision": "fp32", "device": "cpu", "exclusive": False}
numpy.save(output, runpy.run_path(runtime)["load"](model, settings).infer(numpy.load(image))[0])
"""


def export_ncnn(model: DetectionModel, imgsz: ImageSize, folder: Path) -> None:
    """Write the fused network as `model.param`, its structure, and `model.bin`, its fp32 weights.

    Input `in0` (3, height, width) in [0, 1]; output `out0` (4 + classes, anchors) as of `export_onnx`. ncnn cannot
    select the best detections: a head that needs no NMS gives all its boxes, as corners, and scores, and the
    application takes those with a good score.

    Args:
        model: A detector as Ultralytics builds it; left unchanged.
        imgsz: Size of the image.
        folder: An existing folder.

    Raises:
        LatencyError: `unsupported`, if the converter is missing or ncnn lacks an operator; `export`, if the converter
            fails, or its result computes something else.
    """
    import torch
    from ultralytics.nn.modules import Detect

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work = Path(scratch)
        with deployed(model, imgsz, "ncnn") as (network, image):
            for module in network.modules():
                if isinstance(module, Detect) and module.end2end:
                    module.postprocess = _all_detections
            torch.jit.save(torch.jit.trace(network, image, strict=False, check_trace=False), str(work / "net.pt"))
            random = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
            expected = network(random)
        _convert(work, imgsz)
        text = (work / "net.ncnn.param").read_text()
        operators = {line.split()[0] for line in text.splitlines()[2:]}
        unknown = sorted(
            name for name in operators if "." in name or "::" in name
        )  # PyTorch's names, left as they were
        if unknown:
            raise LatencyError("unsupported", f"ncnn lacks operators of this network: {', '.join(unknown)}")
        # The size of its image is not in the file by itself, and a runtime needs it.
        text, found = re.subn(r"(?m)^(Input +in0 .*?) *$", rf"\1 0={imgsz.width} 1={imgsz.height} 2=3", text)
        assert found == 1
        (work / "net.ncnn.param").write_text(text)
        _check(work, random, expected)
        for suffix in ("param", "bin"):
            (work / f"net.ncnn.{suffix}").replace(folder / f"model.{suffix}")


def _all_detections(predictions: torch.Tensor) -> torch.Tensor:
    return predictions.permute(0, 2, 1)


def _convert(work: Path, imgsz: ImageSize) -> None:
    """Let pnnx convert `net.pt` in that folder; it leaves some more files there."""
    try:
        import pnnx
    except ImportError as error:
        raise LatencyError("unsupported", "the converter is missing: pip install 'nas-yolo[ncnn]'") from error
    command = [pnnx.EXEC_PATH, "net.pt", f"inputshape=[1,3,{imgsz.height},{imgsz.width}]f32", "fp16=0", "device=cpu"]
    try:
        done = subprocess.run(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CONVERT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise LatencyError("timeout", f"pnnx did not end within {CONVERT_S:g} s") from error
    if done.returncode != 0 or not (work / "net.ncnn.param").exists():
        said = (done.stdout + done.stderr).strip()
        last = (said.splitlines() or ["it said nothing"])[-1][:200]
        raise LatencyError("export", f"pnnx ended with status {done.returncode}: {last}", said[-4096:])


def _check(work: Path, image: torch.Tensor, expected: torch.Tensor) -> None:
    """Run what was converted: pnnx leaves out, with a mere message, what it does not understand.

    Raises:
        LatencyError: If it is not the same network.
    """
    import numpy as np

    np.save(work / "image.npy", image.numpy())
    paths = [Path(runtime.__file__), work / "net.ncnn.param", work / "image.npy", work / "output.npy"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN, *map(str, paths)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if "ModuleNotFoundError" in done.stderr:
        raise LatencyError("unsupported", "ncnn is missing: pip install 'nas-yolo[ncnn]'")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
        raise LatencyError("export", f"ncnn cannot run what pnnx made of this network: {last}", done.stderr[-4096:])
    output, wanted = np.load(work / "output.npy"), expected.numpy()
    if output.shape != wanted.shape:
        raise LatencyError("export", f"pnnx made a network with an output {output.shape}, not {wanted.shape}")
    finite = np.isfinite(wanted)  # weights may be broken; that is not the converter's fault
    error = np.abs(output - wanted)[finite].max(initial=0)
    if not error <= TOLERANCE * np.abs(wanted[finite]).max(initial=1):
        raise LatencyError("export", f"what pnnx made of this network computes something else, by up to {error:g}")

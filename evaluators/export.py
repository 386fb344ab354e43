"""From a detector to the files that are deployed and timed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.errors import LatencyError
from evaluators.export_ncnn import export_ncnn
from evaluators.tracing import deployed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn
    from ultralytics.nn.tasks import DetectionModel

    from search_spaces.image_size import ImageSize

    Images = Iterable[NDArray[np.float32]]

FORMATS = ("onnx", "onnx-fp16", "onnx-int8", "onnx-uint8", "ncnn", "torchscript")
STANDARD = ("", "ai.onnx")


def export(
    network: nn.Module, imgsz: ImageSize, format: str, folder: Path, images: Images | None = None
) -> dict[str, Path]:
    """Write the fused network for one image in a runtime's format.

    Args:
        network: A detector as Ultralytics builds it; left unchanged.
        imgsz: Size of the image.
        format: One of `FORMATS`. `onnx-int8` is for GPUs, `onnx-uint8` for runtimes on a CPU.
        folder: An existing folder, for `model` with the format's suffixes.
        images: What int8 is calibrated on: arrays (1, 3, height, width) in [0, 1]. By default random ones: right for
            timing, useless for accuracy.

    Returns:
        The files by name.

    Raises:
        LatencyError: `unsupported`, if there is no such format here, or it cannot express the network.
    """
    if format == "torchscript":
        export_torchscript(network, imgsz, folder / "model.torchscript")
    elif format == "ncnn":
        export_ncnn(network, imgsz, folder)
    elif format in FORMATS:
        path = folder / "model.onnx"
        export_onnx(network, imgsz, path)
        if format == "onnx-fp16":
            from evaluators.reduced_precision import to_fp16

            to_fp16(path)
        elif format != "onnx":
            from evaluators.reduced_precision import to_int8

            to_int8(path, images, signed=format == "onnx-int8")
        check_onnx(path)
    else:
        raise LatencyError("unsupported", f"there is no format {format!r}; known: {', '.join(FORMATS)}")
    return {path.name: path for path in sorted(folder.iterdir())}


def export_onnx(model: DetectionModel, imgsz: ImageSize, path: Path) -> None:
    """Write the fused network for one image, as Ultralytics' exporter would: same head and simplification.

    Input `images` (1, 3, height, width) in [0, 1]; output `output0` (1, 4 + classes, anchors): boxes in pixels as
    centre, width and height, then class scores. Decoding is inside, NMS is not. A head that needs none gives its final
    detections (1, at most 300, 6): corners in pixels, score, class.

    Args:
        model: A detector as Ultralytics builds it; left unchanged.
        imgsz: Size of the image.
        path: The file; replaced as a whole.

    Raises:
        LatencyError: `unsupported`, if ONNX lacks an operator of the network.
    """
    import onnx
    import onnxslim
    import torch
    from torch.onnx.errors import UnsupportedOperatorError

    with deployed(model, imgsz, "onnx") as (network, image), replacing(path) as temporary:
        try:
            # The TorchScript exporter: not every runtime reads torch.export's graphs yet.
            torch.onnx.export(
                network,
                (image,),
                str(temporary),
                opset_version=17,
                dynamo=False,
                input_names=["images"],
                output_names=["output0"],
            )
        except UnsupportedOperatorError as error:
            raise LatencyError(
                "unsupported", f"ONNX cannot express this network: {str(error).splitlines()[0]}"
            ) from error
        onnx.save(onnxslim.slim(str(temporary)), str(temporary))


def export_torchscript(model: DetectionModel, imgsz: ImageSize, path: Path) -> None:
    """Write the fused network as a traced program; inputs and outputs as of `export_onnx`.

    Args:
        model: A detector as Ultralytics builds it; left unchanged.
        imgsz: Size of the image; kept in the file under that name.
        path: The file; replaced as a whole.
    """
    import torch

    with deployed(model, imgsz, "torchscript") as (network, image), replacing(path) as temporary:
        traced = torch.jit.trace(network, image, strict=False, check_trace=False)
        torch.jit.save(traced, str(temporary), _extra_files={"imgsz": str(imgsz)})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of another once it is complete."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_onnx(path: Path) -> None:
    """Refuse a file that is not whole by itself, or needs more than a standard ONNX runtime.

    Raises:
        LatencyError: `unsupported`, with the name of the tensor or the operator.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    for function in model.functions:
        raise LatencyError("unsupported", f"{path.name} defines an operator of its own, {function.name}")
    graphs = [model.graph]
    for graph in graphs:  # grows by those inside nodes
        tensors = [*graph.initializer]
        tensors += [part for sparse in graph.sparse_initializer for part in (sparse.values, sparse.indices)]
        for node in graph.node:
            if node.domain not in STANDARD:
                raise LatencyError("unsupported", f"{path.name} needs the operator {node.domain}.{node.op_type}")
            for attribute in node.attribute:
                graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
                tensors += [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise LatencyError("unsupported", f"{path.name} keeps {tensor.name} in another file; save it as one")

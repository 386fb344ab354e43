"""From a detector to the ONNX file that is deployed and timed."""

from __future__ import annotations

import os
import warnings
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel


def export_onnx(model: DetectionModel, imgsz: int, path: Path) -> None:
    """Write the fused network for one image, as Ultralytics' exporter would: same head and simplification.

    Input `images` (1, 3, imgsz, imgsz) in [0, 1]; output `output0` (1, 4 + classes, anchors): boxes in pixels as
    centre, width and height, then class scores. Decoding is inside, NMS is not. A head that needs none gives its final
    detections (1, at most 300, 6): corners in pixels, score, class.

    Args:
        model: A detector as Ultralytics builds it; left unchanged.
        imgsz: Height and width, a multiple of the largest stride (32).
        path: The file; replaced as a whole.
    """
    import onnx
    import onnxslim
    import torch
    from ultralytics.nn.modules import C2f, Detect

    network = deepcopy(model).cpu().float().eval().fuse(verbose=False)
    for module in network.modules():
        if isinstance(module, Detect):
            module.dynamic, module.export, module.format = False, True, "onnx"
        elif isinstance(module, C2f):
            module.forward = module.forward_split  # a cleaner graph than chunk, as in Ultralytics' exporter
    image = torch.zeros(1, 3, imgsz, imgsz)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that shapes become constants is what is wanted
            network(image)  # computes the anchors, which become constants
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
        onnx.save(onnxslim.slim(str(temporary)), str(temporary))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

"""Parameters and floating-point operations of a detector."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from evaluators.evaluation import Complexity

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel


def measure_complexity(model: DetectionModel, imgsz: int) -> Complexity:
    """Count weights and operations, before and after fusing batch normalisation.

    Args:
        model: A detector as Ultralytics builds it, not fused; left unchanged.
        imgsz: Height and width of the image, pixels.

    Raises:
        RuntimeError: If operations cannot be counted. Ultralytics' own `get_flops` returns 0.0 then.
    """
    fused = deepcopy(model).eval().fuse(verbose=False)
    return Complexity(
        params=_params(model),
        gflops=_gflops(model, imgsz),
        params_fused=_params(fused),
        gflops_fused=_gflops(fused, imgsz),
        layers=len(list(model.modules())),
    )


def _params(model: DetectionModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _gflops(model: DetectionModel, imgsz: int) -> float:
    """By thop at the true image size; Ultralytics extrapolates from one stride, which is equal where it can be."""
    import thop
    import torch

    image = torch.zeros(1, 3, imgsz, imgsz)
    macs, _ = thop.profile(deepcopy(model).eval(), inputs=[image], verbose=False)
    if not macs > 0:
        raise RuntimeError("no operations were counted")
    return float(macs) * 2 / 1e9

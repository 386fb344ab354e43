"""A detector as it is deployed, for the exporters to trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    from search_spaces.image_size import ImageSize


@contextmanager
def deployed(model: DetectionModel, imgsz: ImageSize, format: str) -> Iterator[tuple[Any, torch.Tensor]]:
    """A fused copy of a detector with its head set for export, and an empty image; for tracing.

    Args:
        model: Left unchanged.
        imgsz: Size of the image.
        format: As Ultralytics calls it.
    """
    import torch
    from ultralytics.nn.modules import C2f, Detect

    network = deepcopy(model).cpu().float().eval().fuse(verbose=False)
    for module in network.modules():
        if isinstance(module, Detect):
            module.dynamic, module.export, module.format = False, True, format
        elif isinstance(module, C2f):
            module.forward = module.forward_split  # a cleaner graph than chunk, as in Ultralytics' exporter
    image = torch.zeros(1, 3, *imgsz.shape)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that shapes become constants is what is wanted
        network(image)  # computes the anchors, which become constants
        yield network, image

"""Ultralytics' own validation of an exported file and of the network that it was made from, on the same images.

As in a search's training, except that every image has the file's fixed size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import LOGGER

from evaluators.accuracy.checkpoints import trained_weights
from evaluators.accuracy.read_images import ReadImages, data_document
from evaluators.accuracy.request import DeployedRequest
from evaluators.accuracy.trainer import base_arguments
from evaluators.dataset import Dataset
from evaluators.errors import LatencyError
from evaluators.export import export
from evaluators.host_lock import TrainingSlot
from evaluators.target import get_runtime
from search_spaces import hook

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from search_spaces.image_size import ImageSize

CALIBRATION_IMAGES = 100
BATCH = 16  # for PyTorch: of a single image, its threads would spend their time waiting for each other


class LetterboxedImages(ReadImages):
    """Images with labels, letterboxed to one size, as validation has them."""

    def __init__(self, dataset: Dataset, split: str, imgsz: ImageSize, arguments: Any):
        super().__init__(dataset, split, imgsz=imgsz, augment=False, hyp=arguments, rect=False, batch_size=1)


def validate_both(
    request: DeployedRequest, file_format: str, slot: TrainingSlot, scratch: Path, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Export the trial's network, and validate both on all validation images.

    Args:
        request: What.
        file_format: That the runtime reads.
        slot: Given up between two images while somebody measures.
        scratch: An empty folder.
        progress: Is given the number of images so far.

    Returns:
        Those fields of `DeployedAccuracy`.

    Raises:
        LatencyError: `unsupported`.
        RuntimeError: As a runtime file says.
    """
    LOGGER.setLevel("ERROR")
    torch.set_num_threads(request.threads)
    weights = trained_weights(request.checkpoint)
    if weights is None:
        raise FileNotFoundError(f"{request.checkpoint} is gone")
    network = hook.build(hook.model_file(request.architecture, len(request.dataset.names)))
    network.load_state_dict(weights)
    network.float().eval()
    head = network.model[-1]
    here, there = (_validator(request, bool(head.end2end), scratch) for _ in range(2))
    calibration = _calibration_images(request, here.args, slot)
    (folder := scratch / "export").mkdir()
    files = export(network, request.imgsz, file_format, folder, calibration)
    settings = request.target.settings | {"threads": request.threads, "folder": str(scratch)}
    model = next(path for name, path in files.items() if name.startswith("model."))
    deployed = get_runtime(request.target.runtime).load(str(model), settings)
    if not hasattr(deployed, "infer"):
        raise LatencyError("unsupported", f"{request.target.runtime} times networks, its outputs cannot be had")
    images = LetterboxedImages(request.dataset, "val", request.imgsz, here.args)
    with torch.inference_mode():
        for first in range(0, len(images), BATCH):
            numbers = range(first, min(first + BATCH, len(images)))
            batch = here.preprocess(images.collate_fn([images[number] for number in numbers]))
            outputs = []
            for image in batch["img"].split(1):
                slot.give_way()
                output = torch.from_numpy(deployed.infer(image.numpy())[0]).float()
                if head.end2end and output.shape[-1] != 6:  # ncnn cannot choose: the application does
                    output = head.postprocess(output.transpose(1, 2))
                outputs.append(output)
            there.update_metrics(there.postprocess(torch.cat(outputs)), batch)
            slot.give_way()
            here.update_metrics(here.postprocess(network(batch["img"])), batch)
            progress(numbers.stop)
    found, expected = there.get_stats(), here.get_stats()
    return {
        "images": len(images),
        "map50_95": float(found["metrics/mAP50-95(B)"]),
        "map50": float(found["metrics/mAP50(B)"]),
        "torch_map50_95": float(expected["metrics/mAP50-95(B)"]),
        "torch_map50": float(expected["metrics/mAP50(B)"]),
    }


def _validator(request: DeployedRequest, nms_free: bool, scratch: Path) -> DetectionValidator:
    """Ultralytics' validator with the search's settings, fed by hand."""
    arguments = {**base_arguments(request.imgsz, scratch), **request.arguments, "save_json": False, "save_txt": False}
    validator = DetectionValidator(save_dir=scratch, args=arguments)
    validator.device = torch.device("cpu")
    validator.data = data_document(request.dataset)
    validator.init_metrics(SimpleNamespace(names=validator.data["names"], end2end=nms_free))
    return validator


def _calibration_images(request: DeployedRequest, arguments: Any, slot: TrainingSlot) -> Iterator[NDArray[np.float32]]:
    """Training images from all over the set; read when they are asked for."""
    images = LetterboxedImages(request.dataset, "train", request.imgsz, arguments)
    count = min(len(images), CALIBRATION_IMAGES)
    for number in range(count):
        slot.give_way()
        yield images[number * len(images) // count]["img"][None].float().div(255).numpy()

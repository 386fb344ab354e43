"""What an assembled detector finds, without any training of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.tasks import DetectionModel

from evaluators.accuracy.batch_statistics import measure_statistics
from evaluators.accuracy.cpu_convolutions import prepare_for_cpu
from evaluators.accuracy.decoded import Decoded
from evaluators.accuracy.images import DecodedImages
from evaluators.accuracy.imitation.stream import STRIDE
from evaluators.accuracy.read_images import data_document
from evaluators.accuracy.trainer import base_arguments
from evaluators.dataset import Dataset
from search_spaces.image_size import ImageSize

BATCH = 32


class Scorer:
    """Validates detectors on the same part of the validation images.

    Args:
        decoded: The data set's images.
        dataset: The data set.
        imgsz: Size of the images.
        arguments: Ultralytics training arguments.
        statistics: Batches of training images for the statistics of batch normalisation.
        images: At most so many validation images, spread over all.
        scratch: A folder.
    """

    def __init__(
        self,
        decoded: Decoded,
        dataset: Dataset,
        imgsz: ImageSize,
        arguments: dict[str, Any],
        statistics: Sequence[Tensor],
        images: int,
        scratch: Path,
    ):
        self._statistics = [_as_is_fastest(batch) for batch in statistics]
        self._scratch, self._dataset = scratch, dataset
        self._arguments = {**base_arguments(imgsz, scratch), **arguments, "save_json": False, "save_txt": False}
        validator = self._validator(False)
        data = DecodedImages(
            decoded,
            "val",
            img_path="",
            imgsz=imgsz,
            batch_size=BATCH,
            hyp=validator.args,
            data=data_document(dataset),
            stride=STRIDE,
            augment=False,
            rect=False,
            pad=0.5,
        )
        count = min(images, len(data))
        picks = [number * len(data) // count for number in range(count)]
        batches = (data.collate_fn([data[pick] for pick in picks[at : at + BATCH]]) for at in range(0, count, BATCH))
        self._batches = [validator.preprocess(batch) for batch in batches]
        for batch in self._batches:
            batch["img"] = _as_is_fastest(batch["img"])

    @torch.inference_mode()
    def score(self, network: DetectionModel) -> dict[str, float]:
        """`map50_95` and `map50` of a detector, whose statistics of batch normalisation are measured first."""
        prepare_for_cpu(network)
        measure_statistics(network, self._statistics)
        network.eval()
        validator = self._validator(bool(network.model[-1].end2end))
        for number, batch in enumerate(self._batches):
            validator.batch_i = number
            validator.update_metrics(validator.postprocess(network(batch["img"])), batch)
        found = validator.get_stats()
        return {"map50_95": float(found["metrics/mAP50-95(B)"]), "map50": float(found["metrics/mAP50(B)"])}

    def _validator(self, nms_free: bool) -> DetectionValidator:
        validator = DetectionValidator(save_dir=self._scratch, args=self._arguments)
        validator.device = torch.device("cpu")
        validator.data = data_document(self._dataset)
        validator.init_metrics(SimpleNamespace(names=validator.data["names"], end2end=nms_free))
        return validator


def _as_is_fastest(images: Tensor) -> Tensor:
    """In the layout that `prepare_for_cpu` gives weights."""
    return images.contiguous(memory_format=torch.channels_last)

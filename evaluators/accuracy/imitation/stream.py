"""Batches of the images that the parent is trained on, augmented as in its training, without their labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from ultralytics.cfg import get_cfg

from evaluators.accuracy.decoded import Decoded
from evaluators.accuracy.images import EpochBatches, TrainingImages
from evaluators.accuracy.read_images import data_document
from evaluators.accuracy.trainer import base_arguments
from evaluators.dataset import Dataset
from search_spaces.image_size import ImageSize

STRIDE = 32


def training_batches(
    decoded: Decoded, dataset: Dataset, imgsz: ImageSize, arguments: dict[str, Any], batch: int, seed: int
) -> Iterator[Tensor]:
    """Endless batches, (batch, 3, height, width) in [0, 1].

    Args:
        decoded: The data set's images.
        dataset: The data set.
        imgsz: Size of the images.
        arguments: Ultralytics training arguments.
        batch: Images.
        seed: Of their order and augmentation.
    """
    settings = get_cfg(overrides={**base_arguments(imgsz, Path()), **arguments})
    images = TrainingImages(
        seed,
        None,
        img_path="",
        imgsz=imgsz,
        batch_size=batch,
        hyp=settings,
        data=data_document(dataset),
        stride=STRIDE,
        decoded=decoded,
        split="train",
        augment=True,
        rect=False,
        pad=0.0,
    )
    batches = EpochBatches(seed, len(images), min(batch, len(images)), 0)
    while True:
        for picks in batches:
            yield images.collate_fn([images[pick] for pick in picks])["img"].float() / 255

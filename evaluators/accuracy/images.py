"""Ultralytics' data set and batches over decoded images, each a pure function of the seed and the epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from evaluators.accuracy.decoded import Decoded
from evaluators.accuracy.fitted import FittedImages


def mix(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_augmentation(*numbers: int) -> None:
    """Seed what Ultralytics' augmentations draw from."""
    seed = mix(*numbers)
    random.seed(seed)
    np.random.seed(seed)


class DecodedImages(FittedImages):
    """A split whose labels and pixels are there already.

    Args:
        decoded: The data set.
        split: `train` or `val`.
        arguments: Of `FittedImages`.
    """

    def __init__(self, decoded: Decoded, split: str, **arguments: Any):
        self._decoded, self._split = decoded, split
        # "ram": a mosaic's other images are drawn from all, not from those that happened to be read lately.
        super().__init__(**arguments, cache="ram")

    def get_img_files(self, img_path: Any) -> list[str]:
        """Those that were decoded."""
        return [label["im_file"] for label in self._decoded.splits[self._split].labels]

    def get_labels(self) -> list[dict[str, Any]]:
        """Copies, as far as Ultralytics changes them."""
        return [{**label, "cls": label["cls"].copy()} for label in self._decoded.splits[self._split].labels]

    def check_cache_ram(self, safety_margin: float = 1.0) -> bool:
        """Nothing to check: pages of the file are mapped, and shared."""
        return False

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Any:
        """A copy, since augmentations write in place."""
        return self._decoded.image(self._split, self.im_files[i]) or super().load_image(i, rect_mode, resize_short)


class TrainingImages(DecodedImages):
    """The training images, augmented as the seed, the epoch and the image say.

    So it does not matter which process loads an image, nor what was loaded before.

    Args:
        seed: Of the training.
        last_mosaic: The epoch from which on images are no longer mixed; None: always.
        arguments: Of `FittedImages`.
    """

    def __init__(self, seed: int, last_mosaic: int | None, **arguments: Any):
        self._seed, self._last_mosaic, self._settings = seed, last_mosaic, arguments["hyp"]
        super().__init__(**arguments)

    def __getitem__(self, pick: tuple[int, int]) -> dict[str, Any]:
        epoch, image = pick
        if self._last_mosaic is not None and epoch >= self._last_mosaic:
            self.close_mosaic(copy(self._settings))
            self._last_mosaic = None
        seed_augmentation(self._seed, epoch, image)
        augmented: dict[str, Any] = super().__getitem__(image)
        return augmented


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, image), one epoch after the other.

    Args:
        seed: Of the training.
        images: Number of them.
        batch: Images.
        epoch: The first, counted from 0.
    """

    def __init__(self, seed: int, images: int, batch: int, epoch: int):
        self.seed, self.images, self.batch, self.epoch = seed, images, batch, epoch

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        # A last batch of one image has no variance to normalise by where the map is a single pixel.
        alone = self.images % self.batch == 1 and self.images > 1
        return -(-self.images // self.batch) - alone

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = self.order(epoch)
        for number in range(len(self)):
            yield [(epoch, image) for image in order[number * self.batch : (number + 1) * self.batch]]

    def order(self, epoch: int) -> list[int]:
        """The order in which an epoch, counted from 0, sees the images."""
        order: list[int] = np.random.default_rng((self.seed, epoch)).permutation(self.images).tolist()
        return order

"""Ultralytics' data set and batches over decoded images, each a pure function of the seed and the epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from evaluators.accuracy.decoded import Decoded
from evaluators.accuracy.fidelity import Fidelity
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
    """The training images; those of an epoch's subset, augmented as the seed, the epoch and the image say.

    So it does not matter which process loads an image, nor what was loaded before.

    Args:
        fidelity: Which images an epoch sees.
        last_mosaic: The epoch from which on images are no longer mixed; None: always.
        arguments: Of `FittedImages`.
    """

    def __init__(self, fidelity: Fidelity, last_mosaic: int | None, **arguments: Any):
        self._fidelity, self._last_mosaic, self._settings = fidelity, last_mosaic, arguments["hyp"]
        self._epoch = -1
        self._shown: Any = range(fidelity.images)
        super().__init__(**arguments)

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, pick: tuple[int, int]) -> dict[str, Any]:
        epoch, position = pick
        if epoch != self._epoch:
            self._begin(epoch)
        seed_augmentation(self._fidelity.request.seed, epoch, int(self._shown[position]))
        augmented: dict[str, Any] = super().__getitem__(position)
        return augmented

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Also what a mosaic or a mix draws is of the epoch's subset."""
        found: dict[str, Any] = super().get_image_and_label(int(self._shown[index]))
        return found

    def _begin(self, epoch: int) -> None:
        self._epoch, self._shown = epoch, self._fidelity.subset(epoch)
        if self._last_mosaic is not None and epoch >= self._last_mosaic:
            self.close_mosaic(copy(self._settings))
            self._last_mosaic = None


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position in its subset), one epoch after the other.

    Args:
        fidelity: Which images an epoch sees, in which order.
        batch: Images.
        epoch: The first, counted from 0.
    """

    def __init__(self, fidelity: Fidelity, batch: int, epoch: int):
        self.fidelity, self.batch, self.epoch = fidelity, batch, epoch

    def __len__(self) -> int:
        """Number of batches of an epoch that sees all images."""
        return self._batches(self.fidelity.images)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = self.fidelity.order(epoch).tolist()
        for number in range(self._batches(len(order))):
            yield [(epoch, position) for position in order[number * self.batch : (number + 1) * self.batch]]

    def count(self, epoch: int) -> int:
        """Batches of an epoch."""
        return self._batches(len(self.fidelity.subset(epoch)))

    def _batches(self, images: int) -> int:
        # A last batch of one image has no variance to normalise by where the map is a single pixel.
        alone = images % self.batch == 1 and images > 1
        return -(-images // self.batch) - alone

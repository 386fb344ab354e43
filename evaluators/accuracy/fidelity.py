"""What an epoch of a training sees: which images, at which size. Pure functions of the request and the epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.accuracy.request import TrainingRequest
from search_spaces.image_size import ImageSize

DRAW = 2**32 - 1  # in the place of an epoch, which is never so large: the draw of the subset is another than its order


@dataclass(frozen=True)
class Fidelity:
    """How much of the data each epoch sees.

    Attributes:
        request: Its seed, rungs, `subset` and `small_imgsz` are what counts.
        images: Of the training set.
    """

    request: TrainingRequest
    images: int

    def subset(self, epoch: int) -> NDArray[np.intp]:
        """Numbers of the images that an epoch sees, counted from 0, ascending."""
        drawn = np.random.default_rng((self.request.seed, DRAW)).permutation(self.images)
        return np.sort(drawn[: max(round(self.images * self._share(epoch)), 1)])

    def order(self, epoch: int) -> NDArray[np.intp]:
        """The order in which an epoch sees them: positions in its subset."""
        return np.random.default_rng((self.request.seed, epoch)).permutation(len(self.subset(epoch)))

    def imgsz(self, epoch: int) -> ImageSize:
        """Size at which an epoch trains."""
        below = len(self.request.rungs) > 1 and epoch < self.request.rungs[-2]
        return self.request.small_imgsz or self.request.imgsz if below else self.request.imgsz

    def _share(self, epoch: int) -> float:
        rungs = self.request.rungs
        if len(rungs) < 2:
            return 1.0
        level = sum(epoch >= rung for rung in rungs[:-1])
        share: float = self.request.subset ** (1 - level / (len(rungs) - 1))
        return share

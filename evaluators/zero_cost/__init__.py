"""One file per score of an untrained network, found by name: what may tell accuracy before the first epoch.

Each is a function `score` (see `Score`); what it returns is not finite where it cannot be had. It takes well under a
second on one CPU core, gives the same for the same network and leaves it as it was. Whether a score tells anything is
for the search's own trials to show.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from evaluators.evaluation import Scores
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from torch import Tensor, nn

    from evaluators.location import Location
    from search_spaces.architecture import Architecture

IMAGES = 16
SIZE = 64  # pixels of a side at most, of the images that scores see: enough for five halvings, in a tenth of a second


class Score(Protocol):
    """What a score's file defines."""

    def __call__(self, network: nn.Module, images: Tensor, imgsz: ImageSize, baseline: nn.Module | None) -> float:
        """One number, higher meaning better.

        Args:
            network: With random weights; left unchanged.
            images: Of the user, (N, 3, H, W), in [0, 1].
            imgsz: Size at which the network is meant to run; `images` are smaller.
            baseline: The stock model, trained on the user's images, if there is one yet.
        """


def list_scores() -> tuple[str, ...]:
    """All names, sorted."""
    names = (found.name for found in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if not name.startswith("_")))


def get_score(name: str) -> Score:
    """The score of that name."""
    found: Score = importlib.import_module(f"{__name__}.{name}").score
    return found


def compute_scores(
    network: nn.Module,
    files: Sequence[str],
    classes: int,
    imgsz: ImageSize,
    baseline: tuple[Architecture, Location] | None = None,
) -> Scores:
    """All scores of a network; what cannot be computed is left out.

    Args:
        network: With random weights; left unchanged.
        files: Images; those that cannot be read are left out.
        classes: Number of classes.
        imgsz: Size at which the network is meant to run.
        baseline: The trained stock model and its checkpoint, if there is one yet.
    """
    from evaluators.zero_cost._inputs import load_baseline, load_images

    begun = time.monotonic()
    images = load_images(files, ImageSize(min(imgsz.width, SIZE), min(imgsz.height, SIZE)))
    trained = load_baseline(*baseline, classes) if baseline else None
    values = {}
    for name in list_scores():
        try:
            value = get_score(name)(network, images, imgsz, trained)
        except Exception:  # a block may not bear what a score does to it; it can be measured and trained all the same
            continue
        if math.isfinite(value):
            values[name] = value
    return Scores(values, time.monotonic() - begun)

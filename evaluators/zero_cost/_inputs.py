"""What scores are computed from besides the network: the user's images and the trained stock model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from evaluators.accuracy.checkpoints import trained_weights
from search_spaces import hook
from search_spaces.architecture import Architecture

if TYPE_CHECKING:
    from evaluators.location import Location
    from search_spaces.image_size import ImageSize


def load_images(files: Sequence[str], size: ImageSize) -> Tensor:
    """Those that can be read, squeezed to that size, (N, 3, height, width) in [0, 1]."""
    sides = (size.width, size.height)
    images = [np.zeros((0, *size.shape, 3), dtype=np.uint8)]
    for file in files:
        try:
            with Image.open(file) as image:
                image.draft("RGB", sides)  # a JPEG is decoded no larger than needed
                images.append(np.asarray(image.convert("RGB").resize(sides, Image.Resampling.BILINEAR))[None])
        except (OSError, ImportError):  # Ultralytics has PIL look for a library for what it cannot read
            continue
    return torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2).float() / 255


@lru_cache(maxsize=1)  # it is the same for all designs of a search
def load_baseline(architecture: Architecture, checkpoint: Location, classes: int) -> nn.Module | None:
    """The network of a complete training; None if its checkpoint is gone or cannot be used."""
    try:
        if (weights := trained_weights(checkpoint)) is None:
            return None
        network: nn.Module = hook.build(hook.model_file(architecture, classes))
        network.load_state_dict(weights)
    except Exception:  # a store has errors of its own, and so has a damaged file; scores are not worth a trial
        return None
    return network.eval()

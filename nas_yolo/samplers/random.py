"""Every choice uniformly: the baseline that other samplers must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_yolo.samplers import Observation
from nas_yolo.samplers._grid import Grid


def ask(grid: Grid, seen: Sequence[Observation], seed: int) -> tuple[int, ...]:
    """Draw from the space; what was seen does not matter."""
    return tuple(grid.draw(1, np.random.default_rng(seed))[0].tolist())

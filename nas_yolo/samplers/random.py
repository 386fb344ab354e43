"""Every choice uniformly: the baseline that other samplers must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_yolo.samplers import Observation
from search_spaces.space import Choices, SearchSpace


def ask(space: SearchSpace, observations: Sequence[Observation], seed: int) -> Choices:
    """Draw from the space; the observations do not matter."""
    return space.sample(np.random.default_rng(seed))

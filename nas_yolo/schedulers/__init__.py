"""One file per scheduler: pure decisions about which trial to train on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluators.evaluation import TIE
from nas_yolo.samplers import Earlier, Grid, Strategy, get_ask
from nas_yolo.samplers.frontier import Frontier
from nas_yolo.schedulers.asha import Halving

__all__ = ["get_strategy"]


def get_strategy(
    sampler: str,
    grid: Grid,
    costs: tuple[float, ...],
    seed: int,
    limit_ms: float = math.inf,
    earlier: Sequence[Earlier] = (),
) -> Strategy:
    """What goes with a sampler: `frontier` decides on trainings too; designs of others are promoted by halving.

    Args:
        sampler: Its name.
        grid: The space.
        costs: Of each fidelity from nothing, ascending, in epochs.
        seed: Of everything random.
        limit_ms: Latency beyond which a design is of no use.
        earlier: Designs of earlier searches; only `frontier` learns from them.

    Raises:
        UnknownNameError: If there is no such sampler.
    """
    if sampler == "frontier":
        return Frontier(grid, costs, seed, limit_ms, earlier, TIE)
    return Halving(get_ask(sampler), grid, len(costs), seed)

"""Optuna's Gaussian process: expected hypervolume improvement in accuracy and latency, both modelled."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.samplers import GPSampler

from nas_yolo.samplers import Observation, _optuna
from nas_yolo.samplers._grid import Grid


def ask(grid: Grid, seen: Sequence[Observation], seed: int) -> tuple[int, ...]:
    """Propose the point of largest expected improvement; at random until ten are known."""
    return _optuna.ask(GPSampler, grid, seen, deterministic_objective=False, seed=seed)

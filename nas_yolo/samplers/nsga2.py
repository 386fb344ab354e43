"""Optuna's NSGA-II: a genetic algorithm that sorts by fronts.

Paper: A fast and elitist multiobjective genetic algorithm, IEEE Transactions on Evolutionary Computation 6 (2002).
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.samplers import NSGAIISampler

from nas_yolo.samplers import Observation, _optuna
from nas_yolo.samplers._grid import Grid


def ask(grid: Grid, seen: Sequence[Observation], seed: int) -> tuple[int, ...]:
    """Propose a child of the fittest of the last generation."""
    return _optuna.ask(NSGAIISampler, grid, seen, population_size=_optuna.POPULATION, seed=seed)

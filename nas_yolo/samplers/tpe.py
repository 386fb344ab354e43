"""Optuna's multivariate tree-structured Parzen estimator on accuracy and latency.

Paper: Multiobjective Tree-Structured Parzen Estimator, Journal of Artificial Intelligence Research 73 (2022).
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.samplers import TPESampler

from nas_yolo.samplers import Observation, _optuna
from nas_yolo.samplers._grid import Grid


def ask(grid: Grid, seen: Sequence[Observation], seed: int) -> tuple[int, ...]:
    """Propose the point most likely to be among the better ones; at random until ten are known."""
    return _optuna.ask(TPESampler, grid, seen, multivariate=True, constant_liar=True, seed=seed)

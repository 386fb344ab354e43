"""Optuna's multivariate tree-structured Parzen estimator.

Paper: Multiobjective Tree-Structured Parzen Estimator, Journal of Artificial Intelligence Research 73 (2022).
Source: https://github.com/optuna/optuna (5.0).
"""

from __future__ import annotations

import optuna

from benchmarks.replay.peers._optuna import OptunaSearch
from benchmarks.replay.simulation import Method
from benchmarks.replay.table import Table

TRIES = 3  # as good as 50 where nearly every configuration exists, better and quicker where few do


def new(table: Table, seed: int, budget: float, workers: int) -> Method:
    """TPE."""
    sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=workers > 1, seed=seed)
    return OptunaSearch(table, seed, sampler, TRIES)

"""Optuna's NSGA-II.

Paper: A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE Transactions on Evolutionary Computation 6
(2002). Source: https://github.com/optuna/optuna (5.0).
"""

from __future__ import annotations

import optuna

from benchmarks.replay.peers._optuna import OptunaSearch
from benchmarks.replay.simulation import Method
from benchmarks.replay.table import Table

# Optuna's default of 50 leaves a single generation to learn from in 100 trainings. Hypervolume there, mean of three
# devices of NAS-Bench-201 and 16 seeds: 0.872 with 6, 0.863 with 4, 0.854 with 10, 0.846 with 8, 0.824 with 20.
POPULATION = 6
TRIES = 50


def new(table: Table, seed: int, budget: float, workers: int) -> Method:
    """NSGA-II."""
    return OptunaSearch(table, seed, optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed), TRIES)

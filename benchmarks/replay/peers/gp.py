"""Optuna's Gaussian processes with expected hypervolume improvement.

Source: https://github.com/optuna/optuna (5.0), `GPSampler`.
"""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning

from benchmarks.replay.peers._optuna import OptunaSearch
from benchmarks.replay.simulation import Method
from benchmarks.replay.table import Table

TRIES = 1  # asked again, it proposes nearly the same


def new(table: Table, seed: int, budget: float, workers: int) -> Method:
    """Gaussian processes. A table always gives the same accuracy, so they are told that there is no noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = optuna.samplers.GPSampler(deterministic_objective=True, seed=seed)
    return OptunaSearch(table, seed, sampler, TRIES)

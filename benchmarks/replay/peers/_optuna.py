"""Optuna's samplers on a table, all of them driven alike.

Source: https://github.com/optuna/optuna (5.0).
"""

from __future__ import annotations

import math
import warnings

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import Trial, TrialState

from benchmarks.replay.peers._rows import ROUNDING, Rows
from benchmarks.replay.simulation import Job
from benchmarks.replay.table import Table


class OptunaSearch:
    """Trains in full what a sampler proposes, and tells it accuracy and log-latency.

    A proposal that is no part of the space, or was made before, costs nothing: it fails, and the sampler is asked
    again; after some tries the new row nearest to its last proposal is trained in its place. Choices are categorical:
    a table does not say which have an order.
    """

    def __init__(self, table: Table, seed: int, sampler: optuna.samplers.BaseSampler, tries: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._table = table
        self._tries = tries
        self._rows = Rows(table, seed)
        self._study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        self._distributions: dict[str, BaseDistribution] = {
            f"choice{i}": CategoricalDistribution(range(count)) for i, count in enumerate(table.cardinality.tolist())
        }
        self._running: dict[int, Trial] = {}

    def ask(self, left: float) -> Job | None:
        """The row that the sampler proposes."""
        if left < 1.0 - ROUNDING or not self._rows.left:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental samplers
            row, trial = self._propose()
        self._running[row] = trial
        return Job(row, len(self._table.costs) - 1)

    def tell(self, job: Job, accuracy: float) -> None:
        """Both values of a row."""
        latency = math.log(self._table.latency_ms[job.row])
        self._study.tell(self._running.pop(job.row), [accuracy, latency])

    def _propose(self) -> tuple[int, Trial]:
        for _ in range(self._tries):
            trial = self._study.ask(self._distributions)
            config = [trial.params[name] for name in self._distributions]
            row = self._rows.find(config)
            if row is not None:
                return row, trial
            self._study.tell(trial, state=TrialState.FAIL)
        row = self._rows.nearest(config)
        self._study.enqueue_trial(dict(zip(self._distributions, self._table.configs[row].tolist(), strict=True)))
        return row, self._study.ask(self._distributions)

"""Syne Tune's MOASHA: random search, stopped early when a trial is not among the best third of a rung.

Paper: Multi-objective Asynchronous Successive Halving, https://arxiv.org/abs/2106.12639.
Source: https://github.com/syne-tune/syne-tune (0.16), `optimizer/schedulers/multiobjective/moasha.py`. Used as it is:
its non-dominated sort gives indices in sorted order where a rank of each trial is needed; `moasha.py` ranks correctly.
"""

from __future__ import annotations

import math

from benchmarks.replay.peers._packages import library
from benchmarks.replay.peers._rows import ROUNDING, Rows
from benchmarks.replay.peers._syne_tune import OwnRandom, Space, trial
from benchmarks.replay.simulation import Job, Method
from benchmarks.replay.table import Table

TRIES = 50


class SyneMoasha:
    """Tells a scheduler of each fidelity that a trial comes to, and trains on unless it says stop."""

    def __init__(self, table: Table, seed: int) -> None:
        self._table = table
        self._rows = Rows(table, seed)
        self._random = OwnRandom(seed)
        self._space = Space(table)
        self._times = (table.costs / table.costs[0]).tolist()
        self._scheduler = library("syne_tune.optimizer.schedulers.multiobjective.moasha").MOASHA(
            config_space=self._space.domains,
            metrics=["error", "latency"],
            time_attr="time",
            max_t=self._times[-1],
            grace_period=self._times[0],
            random_seed=seed,
        )
        self._next: list[Job] = []  # what goes on

    def ask(self, left: float) -> Job | None:
        """What was not stopped, or something new."""
        for job in self._next:
            if self._table.costs[job.fidelity] - self._table.costs[job.fidelity - 1] <= left + ROUNDING:
                self._next.remove(job)
                return job
        if self._table.costs[0] > left + ROUNDING or not self._rows.left:
            return None
        with self._random.as_global():
            row = self._propose()
            self._scheduler.on_trial_add(trial(row, {}))
        return Job(row, 0)

    def tell(self, job: Job, accuracy: float) -> None:
        """Both values, to be minimised; the error is a share, so that both have a range of about 1."""
        latency = math.log(self._table.latency_ms[job.row])
        result = {"error": 1.0 - accuracy / 100.0, "latency": latency, "time": self._times[job.fidelity]}
        told = trial(job.row, {})
        if self._scheduler.on_trial_result(told, result) == "CONTINUE":
            self._next.append(Job(job.row, job.fidelity + 1))
        else:
            self._scheduler.on_trial_remove(told)

    def _propose(self) -> int:
        for _ in range(TRIES):
            config = self._space.plain(self._scheduler.suggest().config)
            row = self._rows.find(config)
            if row is not None:
                return row
        return self._rows.nearest(config)


def new(table: Table, seed: int, budget: float, workers: int) -> Method:
    """Syne Tune's MOASHA."""
    return SyneMoasha(table, seed)

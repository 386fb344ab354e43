"""Syne Tune's expected hypervolume improvement, on BoTorch.

Paper: Differentiable Expected Hypervolume Improvement, https://arxiv.org/abs/2006.05078.
Source: https://github.com/syne-tune/syne-tune (0.16), `optimizer/baselines.py`.
"""

from __future__ import annotations

import math
import warnings

from benchmarks.replay.peers._packages import library
from benchmarks.replay.peers._rows import ROUNDING, Rows
from benchmarks.replay.peers._syne_tune import OwnRandom, Space, trial
from benchmarks.replay.simulation import Job, Method
from benchmarks.replay.table import Table

FIRST = 10  # random ones; its default of 3 did worse


class SyneEhvi:
    """Trains in full what the scheduler proposes."""

    def __init__(self, table: Table, seed: int) -> None:
        library("botorch")  # without it Syne Tune fails late, with a NameError
        self._table = table
        self._rows = Rows(table, seed)
        self._random = OwnRandom(seed)
        self._space = Space(table)
        folder = "syne_tune.optimizer.schedulers"
        with self._random.as_global():
            self._searcher = library(
                f"{folder}.multiobjective.expected_hyper_volume_improvement"
            ).ExpectedHyperVolumeImprovement(self._space.domains, num_init_random=FIRST, random_seed=seed)
            self._scheduler = library(f"{folder}.single_fidelity_scheduler").SingleFidelityScheduler(
                self._space.domains, metrics=["error", "latency"], searcher=self._searcher, random_seed=seed
            )
        self._trials: dict[int, object] = {}

    def ask(self, left: float) -> Job | None:
        """The row that the scheduler proposes."""
        if left < 1.0 - ROUNDING or not self._rows.left:
            return None
        with self._random.as_global(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = self._propose()
        self._trials[row] = trial(len(self._trials), self._space.named(self._table.configs[row].tolist()))
        return Job(row, len(self._table.costs) - 1)

    def tell(self, job: Job, accuracy: float) -> None:
        """Both values, to be minimised.

        It maximises what they are below -2, a reference point with a wrong sign: so -2 is the benchmark's own here.
        """
        latency_ms, worst = self._table.reference
        error = (worst - accuracy) / 10.0
        latency = math.log(self._table.latency_ms[job.row] / latency_ms)
        self._scheduler.on_trial_complete(self._trials[job.row], {"error": error - 2.0, "latency": latency - 2.0})

    def _propose(self) -> int:
        config = self._space.plain(self._scheduler.suggest().config)
        row = self._rows.find(config)
        if row is None:  # as if it had proposed the nearest new row; asked again, it proposes nearly the same
            number, _ = self._searcher.trial_configs.popitem()
            self._searcher.pending_trials.discard(number)
            row = self._rows.nearest(config)
            self._searcher.points_to_evaluate.append(self._space.named(self._table.configs[row].tolist()))
            self._scheduler.suggest()
        return row


def new(table: Table, seed: int, budget: float, workers: int) -> Method:
    """Syne Tune's EHVI."""
    return SyneEhvi(table, seed)

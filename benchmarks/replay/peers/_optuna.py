"""An Optuna study that proposes rows of a table."""

from __future__ import annotations

import math
from typing import Literal

import optuna
import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import Trial, TrialState

from benchmarks.replay.peers._rows import ROUNDING, Rows
from benchmarks.replay.simulation import Job
from benchmarks.replay.table import Table


class OptunaSearch:
    """Trains in full what a sampler proposes, and tells it accuracy and log-latency."""

    def __init__(
        self, table: Table, seed: int, sampler: optuna.samplers.BaseSampler, repeats: str, tries: int, off="fail"
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._table = table
        self._rows = Rows(table, seed)
        self._study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        self._distributions: dict[str, BaseDistribution] = {
            f"choice{i}": CategoricalDistribution(range(count)) for i, count in enumerate(table.cardinality.tolist())
        }
        self._repeats = repeats
        self._tries = tries
        self._trials: dict[int, Trial] = {}
        self._values: dict[int, list[float]] = {}
        self._off = off
        self._jit = np.random.default_rng(seed).random(len(table.configs)) * 0.5
        self.nrep = self.noff = self.nfall = 0

    def ask(self, left: float) -> Job | None:
        """The row of the first proposal that is new; a random one when the sampler only repeats itself."""
        if left < 1.0 - ROUNDING:
            return None
        held = []
        row = None
        for _ in range(self._tries):
            trial = self._study.ask(self._distributions)
            if self._off == "cons":
                trial.set_constraint("valid", -1.0)
            found = self._rows.row([trial.params[name] for name in self._distributions])
            if found is not None and self._rows.take(found):
                row = found
                break
            if found is None:
                self.noff += 1
                if self._off == "snap":
                    c = np.array([trial.params[n] for n in self._distributions])
                    d = (self._table.configs != c).sum(1).astype(float) + self._jit
                    d[list(self._rows.taken)] = np.inf
                    row = int(d.argmin())
                    self._rows.take(row)
                    self._study.tell(trial, state=TrialState.FAIL)
                    self._study.enqueue_trial(
                        dict(zip(self._distributions, self._table.configs[row].tolist(), strict=True))
                    )
                    trial = self._study.ask(self._distributions)
                    break
                if self._off == "cons":
                    v = list(self._values.values()) or [[0.0, 0.0]]
                    trial.set_constraint("valid", 1.0)
                    self._study.tell(trial, [min(x[0] for x in v), max(x[1] for x in v)])
                elif self._off == "median" and self._values:
                    v = np.median(list(self._values.values()), axis=0)
                    self._study.tell(trial, v.tolist())
                elif self._off == "worst" and self._values:
                    v = list(self._values.values())
                    self._study.tell(trial, [min(x[0] for x in v), max(x[1] for x in v)])
                elif self._off == "hold":
                    held.append(trial)
                else:
                    self._study.tell(trial, state=TrialState.PRUNED if self._off == "prune" else TrialState.FAIL)
            else:
                self.nrep += 1
                if self._repeats == "tell" and found in self._values:
                    self._study.tell(trial, self._values[found])
                elif self._repeats == "hold":
                    held.append(trial)
                else:
                    self._study.tell(trial, state=TrialState.FAIL)
        else:
            self.nfall += 1
            if getattr(self, "near", False):
                c = np.array([trial.params[n] for n in self._distributions])
                d = (self._table.configs != c).sum(1).astype(float) + self._jit
                d[list(self._rows.taken)] = np.inf
                row = int(d.argmin())
                self._rows.take(row)
            else:
                row = self._rows.draw()
            if row is not None:
                self._study.enqueue_trial(
                    dict(zip(self._distributions, self._table.configs[row].tolist(), strict=True))
                )
                trial = self._study.ask(self._distributions)
                if self._off == "cons":
                    trial.set_constraint("valid", -1.0)
        for h in held:
            self._study.tell(h, state=TrialState.FAIL)
        if row is None:
            return None
        self._trials[row] = trial
        return Job(row, len(self._table.costs) - 1)

    def tell(self, job: Job, accuracy: float) -> None:
        """Both values of a row."""
        values = [accuracy, math.log(self._table.latency_ms[job.row])]
        self._values[job.row] = values
        self._study.tell(self._trials.pop(job.row), values)

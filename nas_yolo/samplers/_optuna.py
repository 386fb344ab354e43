"""A search in Optuna's terms, for its samplers and its dashboard."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from nas_yolo.samplers import Observation
from nas_yolo.samplers._grid import Grid
from search_spaces.space import Value

POPULATION = 20  # of NSGA-II: a search affords a few hundred trials, larger ones would see few generations
GENERATION = "NSGAIISampler:generation"  # where NSGA-II keeps what a study that is made anew would miss
FEW = 8  # observations from which a fidelity is worth learning from


def distributions(choices: Mapping[str, Sequence[Value]]) -> dict[str, BaseDistribution]:
    """One distribution per choice: integers in even steps are ordered, everything else is categorical."""
    return {name: _distribution(tuple(values)) for name, values in choices.items()}


def _distribution(values: tuple[Value, ...]) -> BaseDistribution:
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) == len(values) > 1:
        step = numbers[1] - numbers[0]
        if all(b - a == step for a, b in pairwise(numbers)):
            return IntDistribution(numbers[0], numbers[-1], step=step)
    return CategoricalDistribution(values)


def ask(sampler: type[BaseSampler], grid: Grid, seen: Sequence[Observation], **arguments: object) -> tuple[int, ...]:
    """What one of Optuna's samplers proposes, for accuracy and log-latency on the first target.

    Accuracies are those at the highest fidelity that enough trials have reached: they are not comparable between
    fidelities. Trials that have not come so far count as running.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler(**arguments))
        ranges = distributions(grid.choices)
        reached = [len(one.accuracies) for one in seen]
        level = next((i for i in range(max(reached, default=0), 1, -1) if sum(r >= i for r in reached) >= FEW), 1)
        complete = 0
        for one in seen:
            attributes = {}
            if one.latencies_ms and len(one.accuracies) >= level:
                state, values = TrialState.COMPLETE, [one.accuracies[level - 1], math.log(one.latencies_ms[0])]
                attributes = {GENERATION: complete // POPULATION}
                complete += 1
            elif not one.over:
                state, values = TrialState.RUNNING, None
            else:
                continue
            params = grid.values(one.codes)
            study.add_trial(
                create_trial(state=state, values=values, params=params, distributions=ranges, system_attrs=attributes)
            )
        return grid.codes(study.ask(ranges).params)

"""The search engine as a sampler for any Optuna study of one costly and one early objective."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas_yolo.samplers import Grid, Observation
from nas_yolo.samplers.frontier import Frontier

MEASURED = 16  # of the best candidates, the early objective is asked for

Early = Callable[[dict[str, Any]], float]


class FrontierSampler(BaseSampler):
    """Proposes what is expected to add most hypervolume, given that one objective is known before a trial is run.

    For studies with two objectives: one maximised (accuracy) and one minimised and positive (latency). Categorical and
    integer parameters are modelled; real ones are drawn at random. Trials in what is believed to be the least accurate
    quarter of the space count for nothing.

    Args:
        early: The minimised objective of some parameters, if it can be had without running them: measured, or looked
            up. It is asked for the best candidates of each proposal. Without it the objective is predicted.
        seed: Of everything random.
    """

    def __init__(self, early: Early | None = None, seed: int = 0):
        self._early, self._seed = early, seed
        self._space = IntersectionSearchSpace()
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all trials have and that have few values."""
        found = self._space.calculate(study)
        return {name: d for name, d in found.items() if isinstance(d, (CategoricalDistribution, IntDistribution))}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """All of these parameters at once.

        Raises:
            ValueError: If the study does not have one objective to maximise and one to minimise.
        """
        if sorted(direction.name for direction in study.directions) != ["MAXIMIZE", "MINIMIZE"]:
            raise ValueError("FrontierSampler needs two objectives: one to maximize and one to minimize")
        if not search_space:
            return {}
        grid = Grid({name: _values(distribution) for name, distribution in search_space.items()})
        seen = self._seen(study, grid)
        engine = Frontier(grid, [1.0], self._seed)
        tried = {one.codes for one in seen}
        fresh = list(islice((codes for codes in engine.candidates(seen) if codes not in tried), MEASURED))
        if not fresh:
            return {}
        if self._early is not None:
            measured = [Observation(codes, (self._early(dict(grid.values(codes))),)) for codes in fresh]
            fresh = [fresh[i] for i in engine.ranked(seen, measured)]
        return dict(grid.values(fresh[0]))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _seen(self, study: Study, grid: Grid) -> list[Observation]:
        accuracy = study.directions.index(StudyDirection.MAXIMIZE)
        seen = []
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING)):
            if not all(name in trial.params and trial.params[name] in grid.choices[name] for name in grid.choices):
                continue
            codes = grid.codes(trial.params)
            if trial.state == TrialState.COMPLETE and trial.values is not None:
                seen.append(Observation(codes, (trial.values[1 - accuracy],), (trial.values[accuracy],), over=True))
            elif self._early is not None:
                seen.append(Observation(codes, (self._early(dict(trial.params)),), coming_fidelity=0))
            else:
                seen.append(Observation(codes))
        return seen


def _values(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, IntDistribution)
    return tuple(range(distribution.low, distribution.high + 1, distribution.step))

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optuna
import pytest

from nas_yolo.integrations.optuna_sampler import FrontierSampler
from nas_yolo.pareto import hypervolume

BLOCKS = "abcdef"


def cost(params: dict[str, Any]) -> float:
    return 1.0 + params["width"] * params["depth"] * (1 + 0.2 * BLOCKS.index(params["block"]))


def value(params: dict[str, Any]) -> float:
    quality = params["width"] ** 0.5 * params["depth"] ** 0.3 * (1 + 0.3 * "cafebd".index(params["block"]))
    return quality / (1 + quality)


def objective(trial: optuna.Trial) -> tuple[float, float]:
    params = {
        "width": trial.suggest_int("width", 1, 12),
        "depth": trial.suggest_int("depth", 1, 6),
        "block": trial.suggest_categorical("block", BLOCKS),
    }
    trial.suggest_float("rate", 0.0, 1.0)  # of no effect
    return value(params), cost(params)


def search(sampler: optuna.samplers.BaseSampler, trials: int = 40) -> list[optuna.trial.FrozenTrial]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return study.trials


EVERYTHING = [
    {"width": width, "depth": depth, "block": block}
    for width, depth, block in itertools.product(range(1, 13), range(1, 7), BLOCKS)
]
# What counts, as everywhere: faster than all but one in a hundred, more accurate than one in four.
REFERENCE = (
    float(np.quantile([cost(params) for params in EVERYTHING], 0.99)),
    float(np.quantile([value(params) for params in EVERYTHING], 0.25)),
)


def reached(found: Iterable[dict[str, Any]]) -> float:
    params = list(found)
    return hypervolume([cost(one) for one in params], [value(one) for one in params], *REFERENCE)


@pytest.mark.parametrize("early", [cost, None])
def test_it_searches_better_than_chance_and_than_tpe(early: Any) -> None:
    def mean(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> float:
        found = [reached(trial.params for trial in search(sampler(seed))) for seed in range(3)]
        return sum(found) / len(found) / reached(EVERYTHING)

    found = mean(lambda seed: FrontierSampler(early, seed))
    assert found > 0.98
    assert found > 1.05 * mean(lambda seed: optuna.samplers.TPESampler(seed=seed))
    assert found > 1.15 * mean(optuna.samplers.RandomSampler)


def test_the_same_seed_gives_the_same_trials() -> None:
    one, other = (search(FrontierSampler(cost, 5), 12) for _ in range(2))
    assert [trial.params for trial in one] == [trial.params for trial in other]


def test_trials_asked_for_together_differ() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FrontierSampler(cost))
    study.optimize(objective, n_trials=10)
    asked = []
    for _ in range(6):
        trial = study.ask()
        objective(trial)
        asked.append(tuple(value for name, value in trial.params.items() if name != "rate"))
    assert len(set(asked)) == 6


@pytest.mark.parametrize("directions", [["maximize", "maximize"], ["minimize"]])
def test_other_directions_are_refused(directions: list[str]) -> None:
    study = optuna.create_study(directions=directions, sampler=FrontierSampler(cost))
    with pytest.raises(ValueError, match="one to maximize and one to minimize"):
        study.optimize(lambda trial: (trial.suggest_int("width", 1, 9),) * len(directions), n_trials=3)

"""Optuna's multivariate tree-structured Parzen estimator on accuracy and latency.

Paper: Multiobjective Tree-Structured Parzen Estimator, Journal of Artificial Intelligence Research 73 (2022).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial

from nas_yolo.samplers import Observation
from nas_yolo.samplers._distributions import distributions
from search_spaces.space import Choices, SearchSpace


def ask(space: SearchSpace, observations: Sequence[Observation], seed: int) -> Choices:
    """Propose the point most likely to be among the better ones; at random until ten are known."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    ranges = distributions(space)
    for seen in observations:
        if seen.accuracy is not None and seen.latency_ms is not None:
            state, values = TrialState.COMPLETE, [seen.accuracy, seen.latency_ms]
        elif seen.running:
            state, values = TrialState.RUNNING, None
        else:
            continue
        study.add_trial(create_trial(state=state, values=values, params=dict(seen.choices), distributions=ranges))
    return dict(study.ask(ranges).params)

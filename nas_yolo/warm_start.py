"""What earlier searches in the same database tell a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nas_yolo.config import SearchConfig
from nas_yolo.fidelities import accuracies_of
from nas_yolo.pareto import regrets
from nas_yolo.results import designs
from nas_yolo.samplers import Earlier, normal_ranks
from search_spaces.architecture import Architecture
from storage import Repository, Search

MIN_TRAINED = 3  # of which the order tells something
MIN_COMPLETE = 3  # from which what is reached early is carried on to the end


def earlier_designs(
    repository: Repository, search: Search, codes_of: Callable[[Architecture], tuple[int, ...] | None]
) -> list[Earlier]:
    """All trained designs of the searches before this one that are points of its space.

    Args:
        repository: Holds them.
        search: The new one.
        codes_of: Point of an architecture in the new search's space; None if it is not in it.
    """
    found: list[Earlier] = []
    dataset = SearchConfig.from_document(search.config).dataset
    for other in repository.searches():
        if other.id >= search.id or other.config["space"]["family"] != search.config["space"]["family"]:
            continue
        config = SearchConfig.from_document(other.config)
        same_data = config.dataset.meaning == dataset.meaning
        target = other.config["targets"][0]["name"]
        found_of = [(trial, accuracies_of(trial, config.fidelities)) for trial in designs(repository.trials(other))]
        evaluated = [(trial, reached) for trial, reached in found_of if reached and target in trial.latencies]
        if len(evaluated) < MIN_TRAINED:
            continue
        trials = [trial for trial, _ in evaluated]
        standing = standings([reached for _, reached in evaluated])
        regret = regrets([trial.latencies[target].latency_ms for trial in trials], standing.tolist())
        for trial, value, behind in zip(trials, standing.tolist(), regret, strict=True):
            if (codes := codes_of(trial.architecture)) is not None:
                found.append(Earlier(codes, value, behind, same_data))
    return found


def standings(reached: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Where each trial of a search stands among the others in final accuracy: about standard normal, higher is better.

    What has not reached the end is carried on to it as the complete trials were, on average; before enough are
    complete, all are compared by what they showed first.

    Args:
        reached: Accuracies of each trial at the fidelities that it has reached, at least one, cheapest first.
    """
    depth = np.array([len(accuracies) for accuracies in reached])
    shown = np.full((len(reached), depth.max()), np.nan)
    for row, accuracies in zip(shown, reached, strict=True):
        row[: len(accuracies)] = accuracies
    done = shown[depth == depth.max()]
    if len(done) < MIN_COMPLETE:
        return normal_ranks(shown[:, 0])
    final = done[:, -1]
    values = final.mean() + np.zeros(len(reached))
    for fidelity, early in enumerate(done.T):
        if early.std() > 0:
            here = depth == fidelity + 1
            slope = max(float(np.cov(early, final)[0, 1] / early.var(ddof=1)), 0.0)
            values[here] += slope * (shown[here, fidelity] - early.mean())
    return normal_ranks(values)

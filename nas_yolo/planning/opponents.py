"""A fair opponent: the model to beat in other widths and depths, measured early and trained in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas_yolo.planning.actions import Action, Note
from nas_yolo.planning.complete import has_rivals, of_confirming
from nas_yolo.planning.situation import Situation
from nas_yolo.planning.trainings import train
from nas_yolo.proposals import over_limit
from nas_yolo.results import front_trials
from storage import Trial
from storage.events import TrialAdded

TO_CHOOSE_FROM = 2  # measured for each that may be trained; where each takes a trial of the budget, one
OPEN = math.log(1000)  # counts as that much: a side of a latency on which no opponent is known


def new_opponent(situation: Situation) -> Action | None:
    """One more to measure, in turns with what the strategy wants, once the budget is known to afford a training."""
    costs, spending = situation.costs, situation.spending
    if situation.state.phase != "exploring" or not costs.of_another() or not spending.trials_left:
        return None
    there = [trial for trial in situation.designs if trial.scaled]
    in_trials = any(budget.kind == "trials" for budget in spending.budgets)
    room = costs.opponents(spending) * (1 if in_trials else TO_CHOOSE_FROM)
    if len(there) >= room or any(trial.state in ("new", "measuring") for trial in there):
        return None
    if 2 * len(there) >= len(situation.designs) and situation.wants_design:
        return None
    tried = {trial.architecture.key for trial in situation.designs}
    for name, design in situation.config.scaled_designs.items():
        if design.key not in tried and not over_limit(situation.config, design):
            return Note((TrialAdded(len(situation.trials), design, f"scaled:{name}"),))
    return None


def train_opponent(situation: Situation) -> Action | None:
    """Train the one to the end that tells most about the front, once no finalist is left that could be.

    One that is slower than another that is slower than all of the front would be dear, and tell nothing. Where nothing
    of the search's own is on a front, nothing beats the model itself, and none is needed.
    """
    if situation.state.phase != "finishing" or not situation.may_train or not has_rivals(situation):
        return None
    costs, spending = situation.costs, situation.spending
    kept = costs.of_repeats(spending) + of_confirming(situation)
    affordable = [t for t in costs.affordable_opponents(spending) if spending.fits(costs.of(t) + kept)]
    rivals, known = _rivals_and_opponents(situation)
    waiting = [t for t in affordable if rivals.keys() <= t.latencies.keys()]
    if not waiting or not any(rivals.values()):
        return None

    def left_open(*more: Trial) -> float:
        return sum(
            _open(math.log(rival), [math.log(ms) for ms in [*known[target], *(_ms(one, target) for one in more)]])
            for target, latencies in rivals.items()
            for rival in latencies
        )

    def is_beyond(trial: Trial) -> bool:
        """Whether on each target one that was trained lies between it and all of the front, which is faster."""
        return all(
            any(max(latencies, default=0.0) <= other <= _ms(trial, target) for other in known[target])
            for target, latencies in rivals.items()
        )

    near = [trial for trial in waiting if not is_beyond(trial)]
    return train(situation, min(near, key=left_open)) if near else None


def _rivals_and_opponents(situation: Situation) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Latencies by target: of what is on the front, or trained to the end for it; and of opponents that were or are."""
    opponents = situation.config.opponents
    rivals, known = {}, {}
    for target, _ in situation.context.devices:
        running = [t for t in situation.designs if t.state == "training" and target.name in t.latencies]
        shown = [*front_trials(situation.trials, target.name), *running]
        done = [*running, *(t for t in situation.designs if t.state == "complete" and target.name in t.latencies)]
        rivals[target.name] = [_ms(t, target.name) for t in shown if t.architecture.key not in opponents]
        known[target.name] = [_ms(t, target.name) for t in done if t.architecture.key in opponents]
    return rivals, known


def _ms(trial: Trial, target: str) -> float:
    return trial.latencies[target].latency_ms


def _open(rival: float, opponents: Sequence[float]) -> float:
    """How far the neighbours of a latency are from each other: between these one interpolates. All are logarithms."""
    faster = min((rival - other for other in opponents if other <= rival), default=OPEN)
    slower = min((other - rival for other in opponents if other >= rival), default=OPEN)
    return faster + slower

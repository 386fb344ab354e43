"""Training to the end: the stock model, and whoever may be on the front."""

from __future__ import annotations

import math

from nas_yolo.budget import RESERVE
from nas_yolo.finalists import inside_first
from nas_yolo.planning.actions import Action
from nas_yolo.planning.confirm import FINAL_SESSIONS, finalist_pairs
from nas_yolo.planning.situation import Situation
from nas_yolo.planning.trainings import train
from storage import Trial


def last_words(situation: Situation) -> Action | None:
    """What was stopped between its last epoch and its end: little is left to do."""
    epochs = situation.config.epochs
    if situation.may_train:
        for trial in situation.trials:
            if trial.state == "paused" and len(trial.epochs) >= epochs:
                return train(situation, trial)
    return None


def finalists(situation: Situation) -> Action | None:
    """The trial to train to the end, once nothing new is begun: the stock model first."""
    if situation.state.phase != "finishing" or not situation.may_train:
        return None
    costs, spending = situation.costs, situation.spending
    stock, kept = situation.config.space.baseline, kept_for_the_end(situation)

    def fits(trial: Trial) -> bool:
        return spending.fits(costs.of(trial) + (0.0 if trial.preset == stock else kept))

    waiting = [t for t in situation.trials if t.state in ("ready", "paused") and not t.scaled and fits(t)]
    first = [t for t in waiting if t.preset == stock]
    if not first and any(t.state == "paused" for t in waiting):  # else there is nothing to rank, which takes its time
        numbers, seen = list(situation.observations), list(situation.observations.values())
        ranked = inside_first(seen, situation.context.strategy.finalists(seen, situation.assembled))
        first = [t for i in ranked[: _room(situation)] if fits(t := situation.trials[numbers[i]])]
    return train(situation, first[0]) if first else None


def has_rivals(situation: Situation) -> bool:
    """Whether there is a comparison to be sure of: until then repeats get nothing."""
    opponents = situation.config.opponents
    return any(t.state in ("complete", "training") and t.architecture.key not in opponents for t in situation.designs)


def kept_for_the_end(situation: Situation) -> float:
    """Seconds of training that opponents, repeats and confirmations need."""
    return (situation.costs.of_the_end(situation.spending) if has_rivals(situation) else 0.0) + of_confirming(situation)


def of_confirming(situation: Situation) -> float:
    """Seconds of training that confirmations need."""
    pairs = ((trial, target.name) for trial, target in finalist_pairs(situation))
    return situation.costs.of_confirming(situation.spending, pairs, FINAL_SESSIONS)


def _room(situation: Situation) -> int:
    """How many may be completed: with a budget in trials, a share of these."""
    if any(budget.kind != "trials" for budget in situation.spending.budgets):
        return len(situation.designs)
    designs = [trial for trial in situation.designs if not trial.scaled]
    ended = sum(trial.state in ("complete", "training") for trial in designs)
    return max(math.ceil(RESERVE * len(designs)) - ended, 0)

"""Training to the end: the stock model, and whoever may be on the front."""

from __future__ import annotations

import math

from nas_yolo.budget import RESERVE
from nas_yolo.finalists import inside_first
from nas_yolo.planning.actions import Action
from nas_yolo.planning.confirm import FINAL_SESSIONS, finalist_pairs
from nas_yolo.planning.situation import Situation
from nas_yolo.planning.trainings import train


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
    stock, numbers, seen = situation.config.space.baseline, list(situation.seen), list(situation.seen.values())
    first = [t for t in situation.trials if t.preset == stock and t.state in ("ready", "paused")]
    ranked = inside_first(seen, situation.context.strategy.finalists(seen))
    first += [situation.trials[numbers[i]] for i in ranked[: _room(situation)]]
    kept = kept_for_the_end(situation)
    for trial in first:
        if spending.fits(costs.of(trial) + (0.0 if trial.preset == stock else kept)):
            return train(situation, trial)
    return None


def has_rivals(situation: Situation) -> bool:
    """Whether there is a comparison to be sure of: until then repeats get nothing."""
    stock = situation.config.space.baseline
    return any(t.state in ("complete", "training") and t.preset != stock for t in situation.designs)


def kept_for_the_end(situation: Situation) -> float:
    """Seconds of training that repeats and confirmations need."""
    pairs = ((trial, target.name) for trial, target in finalist_pairs(situation))
    confirming = situation.costs.of_confirming(situation.spending, pairs, FINAL_SESSIONS)
    return (situation.costs.of_repeats(situation.spending) if has_rivals(situation) else 0.0) + confirming


def _room(situation: Situation) -> int:
    """How many may be completed: with a budget in trials, a share of these."""
    if any(budget.kind != "trials" for budget in situation.spending.budgets):
        return len(situation.designs)
    ended = sum(trial.state in ("complete", "training") for trial in situation.designs)
    return max(math.ceil(RESERVE * len(situation.designs)) - ended, 0)

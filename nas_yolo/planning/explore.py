"""Exploring: the trial to evaluate at its next fidelity, for as long as that leaves enough for the end."""

from __future__ import annotations

from nas_yolo.planning.actions import Action, Note
from nas_yolo.planning.propose import comes_first
from nas_yolo.planning.situation import Situation
from nas_yolo.planning.trainings import evaluate
from storage import Trial
from storage.events import PhaseEntered


def end_exploring(situation: Situation) -> Action | None:
    """Once there is no budget, or nothing new to find, beyond what is kept for the end."""
    if situation.state.phase != "exploring" or not situation.may_train or may_explore(situation):
        return None
    return Note((PhaseEntered("finishing"),))


def next_fidelity(situation: Situation) -> Action | None:
    """Known designs that are no points of the space first, then what the strategy holds to be worth most."""
    if situation.state.phase != "exploring" or not situation.may_train or comes_first(situation):
        return None
    costs, spending, seen = situation.costs, situation.spending, situation.observations
    stock, trials, numbers = situation.config.space.baseline, situation.trials, list(situation.observations)
    outside = [t for t in trials if t.number not in seen and waits_for_first(situation, t)]
    fidelities = situation.context.config.fidelities
    reserve = costs.reserve(spending)
    last = costs.of_baseline() + costs.of_the_end(spending)
    order = situation.context.strategy.order(list(seen.values()), situation.assembled)
    for trial in outside + [trials[numbers[i]] for i in order]:
        fidelity = next(one for one in fidelities if one.left(trial))
        cost = costs.of(trial, fidelity)
        # The last one may use what is kept for completing, all but what the stock model, opponents and repeats need.
        ends = fidelity is fidelities[-1] and trial.preset != stock
        if spending.fits(cost + last) if ends else spending.fits(cost, reserve):
            return evaluate(situation, trial, fidelity)
    return None


def may_explore(situation: Situation) -> bool:
    """Whether there is budget, and something new to find, beyond what is kept for the end."""
    costs, spending = situation.costs, situation.spending
    waiting = [trial for trial in situation.trials if waits_for_first(situation, trial)]
    coming = any(trial.state in ("new", "measuring", "training") for trial in situation.trials)
    first = max((costs.of(trial, costs.config.fidelities[0]) for trial in waiting), default=costs.of_first())
    if not spending.fits(first, costs.reserve(spending)):
        return False
    return bool(waiting) or coming or (spending.trials_left and not situation.state.exhausted)


def waits_for_first(situation: Situation, trial: Trial) -> bool:
    """Whether it is a design that waits to be evaluated at all: nothing was begun, or it was stopped on the way.

    What is only there to be compared with does not: it is trained once it is known who needs it.
    """
    waits = trial.state in ("ready", "paused") and trial.is_design and not trial.scaled
    return waits and situation.context.config.fidelities[0].left(trial) > 0

"""What is left is too little to complete another trial: a first look tells a later resume more than idling does."""

from __future__ import annotations

from nas_yolo.planning.actions import Action
from nas_yolo.planning.complete import has_rivals, kept_for_the_end
from nas_yolo.planning.explore import waits_for_first
from nas_yolo.planning.situation import Situation
from nas_yolo.planning.trainings import evaluate
from nas_yolo.results import due_repeats


def first_fidelity(situation: Situation) -> Action | None:
    """A design that was never trained."""
    if situation.state.phase != "finishing" or not situation.may_train:
        return None
    first, costs = situation.context.config.fidelities[0], situation.costs
    due = due_repeats(situation.trials, situation.config, costs.repeats(situation.spending))
    if has_rivals(situation) and due and situation.spending.fits(costs.of_another(due[0])):
        return None  # they begin once what runs has ended, and say more
    waiting = [trial for trial in situation.designs if waits_for_first(situation, trial)]
    kept = kept_for_the_end(situation) if waiting else 0.0
    for trial in waiting:
        if situation.spending.fits(costs.of(trial, first) + kept):
            return evaluate(situation, trial, first)
    return None

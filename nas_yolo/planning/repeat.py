"""Training finalists once more with another seed, to know which differences are chance."""

from __future__ import annotations

from nas_yolo.planning.actions import Action
from nas_yolo.planning.complete import has_rivals
from nas_yolo.planning.situation import Situation
from nas_yolo.planning.trainings import train, train_new
from nas_yolo.results import due_repeats
from storage.events import TrialAdded, TrialMoved


def repeats(situation: Situation) -> Action | None:
    """A repeat that was begun, or a trial to repeat, once no finalist is being trained."""
    if situation.state.phase != "finishing" or not situation.may_train or not has_rivals(situation):
        return None
    if any(trial.state == "training" for trial in situation.designs):
        return None
    costs, spending, config = situation.costs, situation.spending, situation.config
    for trial in situation.trials:
        if trial.repeat_of is not None and trial.state in ("ready", "paused"):
            return train(situation, trial) if spending.fits(costs.of(trial)) else None
    for trial in due_repeats(situation.trials, config, costs.repeats(spending)):
        if spending.fits(costs.of_another(trial)):
            number = len(situation.trials)
            origin = f"repeat:{trial.number}"
            added = TrialAdded(number, trial.architecture, origin, trial.batch, trial.complexity)
            return train_new(situation, (added, TrialMoved(number, "ready")))
    return None

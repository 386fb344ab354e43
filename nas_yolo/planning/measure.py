"""Measuring new designs: size, scores, latency on every target, before their first epoch."""

from __future__ import annotations

from evaluators.target import Target
from nas_yolo.planning.actions import Action, Begin
from nas_yolo.planning.devices import are_ready
from nas_yolo.planning.situation import Situation
from storage import Job, Trial


def new_trials(situation: Situation) -> Action | None:
    """The first that can be measured now."""
    if situation.free_probes <= 0:
        return None
    for trial in situation.trials:
        if trial.state == "new" and are_ready(situation, unknown(situation, trial)):
            return Begin(Job(f"measure {trial.number}", "measure", "measure", situation.now_s, trial.number, cpus=1.0))
    return None


def unknown(situation: Situation, trial: Trial) -> list[Target]:
    """Targets on which no search has measured it yet; of several names of the same, the first."""
    return [target for target, _ in situation.context.devices if target.name not in trial.latencies]

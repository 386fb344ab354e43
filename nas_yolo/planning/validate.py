"""Validating the exported files of finalists, in the end."""

from __future__ import annotations

from nas_yolo.planning.actions import Action, Begin
from nas_yolo.planning.confirm import finalist_pairs, only_finalists_left
from nas_yolo.planning.situation import Situation
from storage import Job


def finalists(situation: Situation) -> Action | None:
    """One that was not validated on a target yet, nor tried."""
    if situation.free_probes <= 0 or not only_finalists_left(situation):
        return None
    state, threads = situation.state, float(situation.context.threads)
    for trial, target in finalist_pairs(situation):
        key = f"validate {trial.number} {target.name}"
        if target.name not in trial.deployed and key not in state.attempts and key not in state.jobs:
            return Begin(Job(key, "validate", "measure", situation.now_s, trial.number, target.name, cpus=threads))
    return None

"""Looking after devices that may be to blame for what failed on them."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.target import Target
from nas_yolo.devices import is_ready, is_suspect
from nas_yolo.planning.actions import Action, Begin
from nas_yolo.planning.situation import Situation
from storage import Job


def suspects(situation: Situation) -> Action | None:
    """The reference model is measured on a device that may be to blame for what failed there."""
    for target, _ in situation.context.devices:
        measured_on = any(job.target == target.name for job in situation.running("measure"))
        if is_suspect(situation.state.device(target.name)) and not measured_on:
            key = f"check {target.name}"
            return Begin(Job(key, "check", "measure", situation.now_s, target=target.name, cpus=1.0))
    return None


def are_ready(situation: Situation, targets: Sequence[Target]) -> bool:
    """Whether all can be measured on now."""
    return all(is_ready(situation.state.device(target.name), situation.now_s) for target in targets)

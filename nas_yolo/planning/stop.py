"""Ending the search, and trainings that hang."""

from __future__ import annotations

import math

from evaluators.evaluation import Failure
from nas_yolo.devices import is_given_up
from nas_yolo.planning.actions import Action, Cancel, Stop
from nas_yolo.planning.devices import are_ready
from nas_yolo.planning.outcomes import after_failures
from nas_yolo.planning.situation import Situation
from storage.events import AttemptFailed
from storage.state import apply

SLOWER, SETTING_UP_S = 10.0, 600.0


def at_budgets_end(situation: Situation) -> Action | None:
    """At a limit in time everything stops at once."""
    return Stop() if situation.spending.exhausted else None


def what_hangs(situation: Situation) -> Cancel | None:
    """A training that takes many times what it should is ended; asked once results were taken in, which may tell."""
    for job in situation.running("train"):
        if job.purpose != "train" or job.trial is None:
            continue
        trial = situation.trials[job.trial]
        # A training of which nothing was expected tells what to expect once it reports an epoch.
        expected_s = job.expected_s
        if not expected_s and trial.epochs:
            expected_s = situation.costs.per_epoch(trial) * situation.config.epochs
        if situation.now_s - job.started_s > (limit := time_limit_s(expected_s, situation.config.trial_time_s)):
            expected = f"{expected_s:.0f} s were expected" if expected_s else "as --trial-time says"
            failure = Failure("timeout", f"its training was ended after {limit:.0f} s; {expected}")
            failed = AttemptFailed(trial.number, failure)
            state = apply(situation.state, failed)
            return Cancel(job.key, (failed, *after_failures(state, situation.config, job, [failure])))
    return None


def time_limit_s(expected_s: float, given_s: float | None) -> float:
    """Seconds after which a training is ended, since it hangs.

    A neighbour on the same cores or memory swapped to disk slows trainings down several times and they still end, and
    setting one up (imports, decoding images) may take minutes: neither should be mistaken for hanging, and a training
    that hangs costs no more than a few others do.

    Args:
        expected_s: What it should take; 0 if nothing tells.
        given_s: The user's limit for that case.
    """
    if expected_s > 0:
        return max(SLOWER * expected_s, expected_s + SETTING_UP_S)
    return math.inf if given_s is None else given_s


def when_idle(situation: Situation) -> Action | None:
    """Nothing runs and nothing is left to do: done; unless a device is waited for, which ends some time, too."""
    if situation.state.work:
        return None
    waiting = situation.state.phase == "exploring" and any(trial.state == "new" for trial in situation.trials)
    if not waiting:
        return Stop()
    for name, device in situation.state.devices.items():
        if is_given_up(device, situation.now_s):
            return Stop(
                f"target {name} is away: {device.reason}; nothing is lost: see nas-yolo target check {name}, then "
                f"nas-yolo resume {situation.context.name}"
            )
    return Stop() if are_ready(situation, [target for target, _ in situation.config.targets]) else None

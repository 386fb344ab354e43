"""Timing what matters in more fresh processes: the front while the search runs, finalists in the end."""

from __future__ import annotations

from collections.abc import Iterator

from evaluators.target import Target
from nas_yolo.planning.actions import Action, Begin
from nas_yolo.planning.devices import are_ready
from nas_yolo.planning.situation import Situation
from nas_yolo.results import baselines, complete, front_trials, opponents_curve, seeds
from storage import Job, Trial

FRONT_SESSIONS, FINAL_SESSIONS = 2, 5  # fresh processes in which what is on the front is timed, and in the end
TRIES = FRONT_SESSIONS + 1


def sessions(situation: Situation) -> Action | None:
    """The first that was timed in fewer processes than it should be, on a device that can be measured on."""
    if situation.free_probes <= 0:
        return None
    wanted = FINAL_SESSIONS if only_finalists_left(situation) else FRONT_SESSIONS
    measured = {job.trial for job in situation.running("measure")}
    for target, _ in situation.context.devices:
        for trial, missing in sessions_missing(situation, target.name, wanted):
            key = f"confirm {trial.number} {target.name}"
            if trial.number in measured or situation.state.attempts.get(key, 0) >= TRIES:
                continue
            if are_ready(situation, [target]):
                now_s, number = situation.now_s, trial.number
                return Begin(Job(key, "confirm", "measure", now_s, number, target.name, cpus=1.0, sessions=missing))
    return None


def sessions_missing(situation: Situation, target: str, wanted: int) -> Iterator[tuple[Trial, int]]:
    """What should be timed on a target in more processes, and in how many.

    All that lost its latency, since the device was not as it should be; and what is on the front.

    Args:
        situation: Of the search.
        target: The target's name.
        wanted: Processes in which the front is to be timed.
    """
    shown = on_front(situation, target)
    for trial in situation.designs:
        if trial.state in ("new", "measuring", "rejected", "failed"):
            continue
        known = trial.latencies.get(target)
        missing = 1 if known is None else wanted - known.sessions if trial.number in shown else 0
        if missing > 0:
            yield trial, missing


def on_front(situation: Situation, target: str) -> set[int]:
    """Numbers of the front's members on a target, and of what they are compared with once it is complete."""
    trials, config = situation.trials, situation.config
    curve = opponents_curve(trials, config, target, seeds(trials))
    members = [*front_trials(trials, target), *baselines(complete(trials, target), config, target), *curve]
    return {trial.number for trial in members}


def finalist_pairs(situation: Situation) -> Iterator[tuple[Trial, Target]]:
    """What is on the front of each target, and what that is compared with once it is complete, with the target."""
    for target, _ in situation.context.devices:
        for number in sorted(on_front(situation, target.name)):
            yield situation.trials[number], target


def only_finalists_left(situation: Situation) -> bool:
    """Whether there is nothing left to train."""
    return situation.state.phase == "finishing" and not situation.running("train")

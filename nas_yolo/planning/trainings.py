"""Beginning a training: the same for all policies."""

from __future__ import annotations

from dataclasses import replace

from nas_yolo.fidelities import Fidelity
from nas_yolo.planning.actions import Begin
from nas_yolo.planning.situation import Situation
from storage import Job, Trial
from storage.events import Event
from storage.state import fold


def evaluate(situation: Situation, trial: Trial, fidelity: Fidelity) -> Begin:
    """Evaluate a trial at a fidelity, from where it stands."""
    return Begin(_job(situation, trial, fidelity))


def train(situation: Situation, trial: Trial) -> Begin:
    """Train a trial on to the end."""
    return evaluate(situation, trial, situation.context.config.fidelities[-1])


def train_new(situation: Situation, events: tuple[Event, ...]) -> Begin:
    """Add a trial that needs no measuring, by these events, and train it to the end."""
    trial = fold(events, situation.state).trials[-1]
    return Begin(_job(situation, trial, situation.context.config.fidelities[-1]), events)


def _job(situation: Situation, trial: Trial, fidelity: Fidelity) -> Job:
    context, expected_s = situation.context, situation.costs.of(trial, fidelity)
    job = fidelity.job(trial, situation.now_s)
    return replace(job, gpus=context.gpus, cpus=float(context.threads), expected_s=expected_s)

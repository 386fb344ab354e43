"""Beginning a training: the same for all policies."""

from __future__ import annotations

from nas_yolo.planning.actions import Begin
from nas_yolo.planning.situation import Situation
from storage import Job, Trial
from storage.events import Event
from storage.state import fold


def train(situation: Situation, trial: Trial, until: int) -> Begin:
    """Train a trial on to an epoch."""
    return Begin(_job(situation, trial, until))


def train_new(situation: Situation, events: tuple[Event, ...]) -> Begin:
    """Add a trial that needs no measuring, by these events, and train it to the end."""
    trial = fold(events, situation.state).trials[-1]
    return Begin(_job(situation, trial, situation.config.epochs), events)


def _job(situation: Situation, trial: Trial, until: int) -> Job:
    context = situation.context
    return Job(
        f"train {trial.number}",
        "train",
        "train",
        situation.now_s,
        trial.number,
        gpus=context.gpus,
        cpus=float(context.threads),
        expected_s=situation.costs.of(trial, until),
        until=until,
    )

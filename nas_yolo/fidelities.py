"""What can be evaluated of a design, cheapest first, each better known and dearer than the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from storage import Job, Trial

ETA = 3  # each rung costs so many times what the one below does, and one in so many is promoted to it
MAX_RUNGS = 3


class Fidelity(Protocol):
    """One way to evaluate a design."""

    @property
    def name(self) -> str:
        """For people, and in documents."""

    @property
    def cost(self) -> float:
        """What it takes from nothing, in epochs of training."""

    def left(self, trial: Trial) -> float:
        """What it still takes for a trial as it stands, in epochs; 0: it has been evaluated so."""

    def accuracy(self, trial: Trial) -> float | None:
        """What it gave for a trial, more is better; None: nothing yet."""

    def job(self, trial: Trial, now_s: float) -> Job:
        """The work that evaluates a trial so, from where it stands; what it may hold is for others to say."""


@dataclass(frozen=True)
class Rung:
    """Training for so many epochs of the whole schedule, on from wherever a trial stands; it gives mAP50-95.

    Attributes:
        epochs: At the end of which the training pauses.
    """

    epochs: int

    @property
    def name(self) -> str:
        """`11 epochs`."""
        return f"{self.epochs} epochs"

    @property
    def cost(self) -> float:
        """Its epochs."""
        return float(self.epochs)

    def left(self, trial: Trial) -> float:
        """The epochs to go."""
        return float(max(self.epochs - len(trial.epochs), 0))

    def accuracy(self, trial: Trial) -> float | None:
        """After its last epoch, in [0, 1]."""
        return trial.epochs[self.epochs - 1].map50_95 if self.epochs <= len(trial.epochs) else None

    def job(self, trial: Trial, now_s: float) -> Job:
        """A training up to its last epoch."""
        return Job(f"train {trial.number}", "train", "train", now_s, trial.number, until=self.epochs)


def rungs(epochs: int) -> tuple[Rung, ...]:
    """A full training, a third and a ninth of it, shortest first; none under two epochs, except the full one."""
    lower = {round(epochs / ETA**power) for power in range(1, MAX_RUNGS)}
    return tuple(map(Rung, sorted({epochs, *(rung for rung in lower if rung >= 2)})))


def accuracies_of(trial: Trial, evaluated: Sequence[Fidelity]) -> tuple[float, ...]:
    """What each fidelity gave for a trial, cheapest first, up to the first that gave nothing yet."""
    found = []
    for fidelity in evaluated:
        if (accuracy := fidelity.accuracy(trial)) is None:
            break
        found.append(accuracy)
    return tuple(found)

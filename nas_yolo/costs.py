"""What trainings and measurements of a search are expected to take, from those it has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np

from nas_yolo.budget import Spending
from nas_yolo.config import SearchConfig
from nas_yolo.fidelities import Fidelity
from nas_yolo.results import due_repeats
from storage import Trial

SAFETY = 1.1  # trainings are planned as that much longer than measured
VALIDATION_S = 6.0  # what it takes to begin to validate an exported file, about
FINAL_SHARE = 0.1  # of the budget, at most, that is kept for these
OPPONENTS = 4  # the model to beat in other widths and depths, so often trained to the end
OPPONENTS_SHARE = 0.2  # of the budget, at most, that these may take; of one in trials, likewise


@dataclass(frozen=True)
class Costs:
    """Expected seconds, on one slot, as the trials stand.

    Attributes:
        trials: All, by number.
        config: Of the search.
    """

    trials: Sequence[Trial]
    config: SearchConfig

    def per_epoch(self, trial: Trial | None = None) -> float:
        """Of an epoch of this trial, or else typical of those trained so far (upper quartile); 0 before any."""
        return (trial and trial.epoch_s) or self._typical_s

    @cached_property
    def _typical_s(self) -> float:
        known = [other.epoch_s for other in self.trials if other.epoch_s]
        return float(np.quantile(known, 0.75)) if known else 0.0

    def of(self, trial: Trial, fidelity: Fidelity | None = None) -> float:
        """Of evaluating `trial` at a fidelity, from where it stands; by default the last."""
        return SAFETY * self.per_epoch(trial) * (fidelity or self.config.fidelities[-1]).left(trial)

    def of_another(self, trial: Trial | None = None) -> float:
        """Of training `trial` once more from the start, or a typical one."""
        return SAFETY * self.per_epoch(trial) * self.config.fidelities[-1].cost

    def of_first(self) -> float:
        """Of a typical design at the first fidelity."""
        return SAFETY * self.per_epoch() * self.config.fidelities[0].cost

    def of_baseline(self) -> float:
        """Until the stock model is complete; 0 once it is being completed."""
        stock = self.config.space.baseline
        for trial in self.trials:
            if trial.preset == stock and trial.state in ("new", "measuring", "ready", "paused"):
                return self.of(trial)
        return 0.0

    def repeats(self, spending: Spending) -> int:
        """How many trainings to repeat in all."""
        return spending.repeats(self.of_another()) if self.config.repeats is None else self.config.repeats

    def of_repeats(self, spending: Spending) -> float:
        """Of the repeats that are still to do, those that run not counted."""
        count = self.repeats(spending)
        begun = [trial for trial in self.trials if trial.repeat_of is not None]
        due = due_repeats(self.trials, self.config, count)
        unknown = max(count - len(begun) - len(due), 0)  # of what is not complete yet
        return (
            sum(self.of(trial) for trial in begun if trial.state in ("ready", "paused"))
            + sum(map(self.of_another, due))
            + unknown * self.of_another()
        )

    def opponents(self, spending: Spending) -> int:
        """How many times the model to beat is to be trained to the end in other widths and depths, as far as known."""
        bounds = [OPPONENTS_SHARE * budget.limit for budget in spending.budgets if budget.kind == "trials"]
        if share := spending.share(self.of_another()):
            bounds.append(OPPONENTS_SHARE / share)
        return int(min([OPPONENTS, *bounds]))

    def affordable_opponents(self, spending: Spending) -> list[Trial]:
        """Those of the trials that wait to be compared with that could be trained to the end next."""
        known = [trial for trial in self.trials if trial.scaled]
        begun = [trial for trial in known if trial.state in ("training", "complete")]
        if len(begun) >= OPPONENTS:
            return []
        spent = sum(map(self.of_another, begun))
        waiting = [trial for trial in known if trial.state in ("ready", "paused")]
        return [t for t in waiting if spending.share(spent + self.of(t)) <= OPPONENTS_SHARE]

    def of_opponents(self, spending: Spending) -> float:
        """Of those that are still to be trained to the end."""
        begun = sum(bool(trial.scaled) and trial.state in ("training", "complete") for trial in self.trials)
        left = max(self.opponents(spending) - begun, 0)
        return sum(sorted(map(self.of, self.affordable_opponents(spending)))[:left])

    def of_the_end(self, spending: Spending) -> float:
        """Of what follows once the finalists are complete: opponents for them, and repeats."""
        return self.of_opponents(spending) + self.of_repeats(spending)

    def reserve(self, spending: Spending) -> float:
        """Share of the budget to keep for the end."""
        last = self.of_the_end(spending)
        if len(self.config.fidelities) == 1:
            return spending.share(last)  # every training is a full one
        completion = self.of_another() - self.of_first()
        kept = spending.reserve(completion, last)
        if self.config.weights != "library":
            return kept
        # Few designs are trained at all, since scores chose them: no more is kept than these need, and one more.
        begun = [trial for trial in self.trials if trial.is_design and trial.state in ("training", "paused")]
        return min(kept, spending.share(sum(map(self.of, begun)) + completion + last))

    def of_measuring(self) -> float | None:
        """Of measuring a design that is typical of those measured so far (median); None before any."""
        known = [trial.measuring_s for trial in self.trials if trial.measuring_s is not None]
        return median(known) if known else None

    def of_confirming(self, spending: Spending, finalists: Iterable[tuple[Trial, str]], sessions: int) -> float:
        """Of timing finalists, each on a target, and validating them; 0 where that takes much of the budget.

        Args:
            spending: The budget.
            finalists: Each with a target's name.
            sessions: Fresh processes in which each is timed in the end.
        """
        seconds = 0.0
        for trial, target in finalists:
            latency = trial.latencies[target]
            took = sum(latency.conditions.get("seconds", {}).values())
            seconds += took * max(sessions - latency.sessions, 0)
            if target not in trial.deployed:  # about as long again in PyTorch
                seconds += VALIDATION_S + 2 * self.config.dataset.val_images * latency.median_ms / 1e3
        return seconds if spending.share(seconds, alone=True) <= FINAL_SHARE else 0.0

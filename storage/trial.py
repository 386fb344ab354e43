"""What the database returns: plain, immutable records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from evaluators.evaluation import Complexity, DeployedAccuracy, Epoch, Failure, FirstWeights, Latency
from search_spaces.architecture import Architecture

TrialState = Literal["new", "measuring", "ready", "training", "paused", "complete", "rejected", "failed"]
"""A trial's life: new -> measuring -> ready -> training -> paused -> training ... -> complete.

`ready` is measured and waiting for its first epoch, `paused` waits at a rung. `rejected` (over a limit) and `failed`
(its training or measurement died) are ends, as `complete` (all epochs) is.
"""


@dataclass(frozen=True)
class Trial:
    """An architecture in a search, with everything measured of it.

    Attributes:
        id: Of the row, unique in the database.
        number: Within its search, from 0, in order of proposal.
        origin: Who proposed it: `preset:NAME` or `sampler:NAME`; `repeat:NUMBER` trains the architecture of that trial
            once more, with another seed; `parent:NAME` trains a stock model from scratch, for others to begin with its
            weights.
        reason: Why it was rejected or failed; empty otherwise.
        latencies: By target name, each from all sessions that may be used.
        epochs: In order, from 1, without gaps.
        failures: All so far, also those that a retry mended.
        deployed: Newest accuracy of its exported file, by target name.
        weights: What its training began with; None before that.
        batch: Images in a batch of its training, if that is not the search's: memory had run out.
        scores: Zero-cost scores by name; empty before they are computed.
    """

    id: int
    number: int
    architecture: Architecture
    origin: str
    state: TrialState
    reason: str
    complexity: Complexity | None
    latencies: dict[str, Latency]
    epochs: tuple[Epoch, ...]
    failures: tuple[Failure, ...]
    deployed: dict[str, DeployedAccuracy] = field(default_factory=dict)
    weights: FirstWeights | None = None
    batch: int | None = None
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def preset(self) -> str | None:
        """The known design that it is, if it was tried as one."""
        return self.origin.removeprefix("preset:") if self.origin.startswith("preset:") else None

    @property
    def repeat_of(self) -> int | None:
        """The number of the trial that it repeats with another seed, if it does."""
        return int(self.origin.removeprefix("repeat:")) if self.origin.startswith("repeat:") else None

    @property
    def is_parent(self) -> bool:
        """Whether it is trained only for others to begin with its weights."""
        return self.origin.startswith("parent:")

    @property
    def map50_95(self) -> float | None:
        """After the last epoch that was validated, in [0, 1]."""
        return next((e.map50_95 for e in reversed(self.epochs) if e.map50_95 is not None), None)

    @property
    def validated_epochs(self) -> int:
        """The epoch that `map50_95` is of; 0 before there is one."""
        return max((epoch.epoch for epoch in self.epochs if epoch.map50_95 is not None), default=0)

    def reached(self, levels: Iterable[int]) -> tuple[float, ...]:
        """mAP50-95 after so many epochs each, ascending, as far as it was trained and validated there."""
        ends = (self.epochs[level - 1].map50_95 for level in levels if level <= len(self.epochs))
        return tuple(found for found in ends if found is not None)

    @property
    def alive(self) -> bool:
        """Whether there is still something to do with it."""
        return self.state not in ("complete", "rejected", "failed")


@dataclass(frozen=True)
class Search:
    """A search as it was asked for.

    Attributes:
        id: Of the row.
        name: Unique in the database.
        created_at: UTC.
        state: `running` (or killed while running), `stopped` by its user, or `done`: its budget is spent.
        config: All that was asked for, as JSON data.
    """

    id: int
    name: str
    created_at: datetime
    state: Literal["running", "stopped", "done"]
    config: dict[str, Any]


@dataclass(frozen=True)
class Spent:
    """What a search has used so far, failed and repeated work included.

    Attributes:
        wall_seconds: While a process worked on it.
        gpu_seconds: Number (or share) of GPUs times the time each was held.
        cpu_seconds: CPU threads times the time each was held for training or measuring.
    """

    wall_seconds: float = 0.0
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0

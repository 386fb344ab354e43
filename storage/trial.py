"""What the database returns: plain, immutable records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from evaluators.evaluation import Complexity, DeployedAccuracy, Epoch, Failure, FirstWeights, Latency
from search_spaces.architecture import Architecture

TrialState = Literal["new", "measuring", "ready", "training", "paused", "complete", "rejected", "failed"]
"""A trial's life: new -> measuring -> ready -> training -> paused -> training ... -> complete.

`ready` is measured and waiting for its first epoch, `paused` waits at a rung. `rejected` (over a limit) and `failed`
(its training or measurement died) are ends, as `complete` (all epochs) is.
"""
TRANSITIONS: Mapping[TrialState, frozenset[TrialState]] = {
    "new": frozenset({"measuring", "ready", "failed"}),  # `ready` at once: measured as the trial that it repeats was
    "measuring": frozenset({"new", "ready", "rejected", "failed"}),
    "ready": frozenset({"new", "training", "paused", "rejected", "failed"}),  # `new`: its latency was taken back
    "training": frozenset({"ready", "paused", "complete", "rejected", "failed"}),
    "paused": frozenset({"training", "complete", "rejected", "failed"}),
    "complete": frozenset(),
    "rejected": frozenset(),
    "failed": frozenset(),
}
SearchState = Literal["running", "stopped", "done"]
Phase = Literal["preparing", "exploring", "finishing", "done"]
JobKind = Literal["train", "measure", "copy", "session"]
Purpose = Literal[
    "prepare",
    "calibrate",
    "check",
    "measure",
    "confirm",
    "validate",
    "train",
    "copy",
    "imitate",
    "assemble",
    "session",
]


class TransitionError(RuntimeError):
    """A trial cannot go from one state to another: a fault of this program."""


@dataclass(frozen=True)
class Trial:
    """An architecture in a search, with everything measured of it.

    Attributes:
        number: Within its search, from 0, in order of proposal.
        origin: Who proposed it: `preset:NAME` or `sampler:NAME`; `scaled:NAME` is the model to beat in other widths and
            depths, to compare with; `repeat:NUMBER` trains the architecture of that trial once more, with another seed;
            `parent:NAME` trains a stock model from scratch, for others to begin with its weights.
        reason: Why it was rejected or failed; empty otherwise.
        latencies: By target name, each from all sessions that may be used.
        epochs: In order, from 1, without gaps.
        failures: All so far, also those that a retry mended.
        deployed: Newest accuracy of its exported file, by target name.
        weights: What its training began with; None before that.
        batch: Images in a batch of its training, if that is not the search's: memory had run out.
        scores: Zero-cost scores by name; empty before they are computed.
        predicted_epoch_s: What an epoch of it takes, from the first batches of its training; None: not known.
        assembled: mAP50-95 as it was put together from the library, with no training of its own; None: it was not.
    """

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
    predicted_epoch_s: float | None = None
    assembled: float | None = None

    @cached_property
    def preset(self) -> str | None:
        """The known design that it is, if it was tried as one."""
        return self.origin.removeprefix("preset:") if self.origin.startswith("preset:") else None

    @cached_property
    def scaled(self) -> str | None:
        """The name of the model to beat in other widths and depths, if it is tried only to compare with."""
        return self.origin.removeprefix("scaled:") if self.origin.startswith("scaled:") else None

    @cached_property
    def repeat_of(self) -> int | None:
        """The number of the trial that it repeats with another seed, if it does."""
        return int(self.origin.removeprefix("repeat:")) if self.origin.startswith("repeat:") else None

    @cached_property
    def is_parent(self) -> bool:
        """Whether it is trained only for others to begin with its weights."""
        return self.origin.startswith("parent:")

    @cached_property
    def is_design(self) -> bool:
        """Whether it is neither a repeat nor trained for its weights only."""
        return self.repeat_of is None and not self.is_parent

    @cached_property
    def map50_95(self) -> float | None:
        """After the last epoch that was validated, in [0, 1]."""
        return next((e.map50_95 for e in reversed(self.epochs) if e.map50_95 is not None), None)

    @cached_property
    def epoch_s(self) -> float | None:
        """Seconds that an epoch takes, as measured; in the first one, as its first batches predict.

        Those are a little too few, without set-up and validation.
        """
        timed = self.epochs[1:] or self.epochs  # the first includes set-up
        return sum(epoch.seconds for epoch in timed) / len(timed) if timed else self.predicted_epoch_s

    @cached_property
    def measuring_s(self) -> float | None:
        """Seconds that it took to time it last, on all targets; None: it was not, or that is not known."""
        took = [latency.conditions.get("seconds") for latency in self.latencies.values()]
        return sum(sum(parts.values()) for parts in took if parts) if took and all(took) else None

    @cached_property
    def validated_epochs(self) -> int:
        """The epoch that `map50_95` is of; 0 before there is one."""
        return max((epoch.epoch for epoch in self.epochs if epoch.map50_95 is not None), default=0)

    @property
    def alive(self) -> bool:
        """Whether there is still something to do with it."""
        return self.state not in ("complete", "rejected", "failed")


@dataclass(frozen=True)
class Job:
    """A piece of work that runs, or a session of the search itself; its entry in the ledger is open.

    Attributes:
        key: Unique among those that run.
        purpose: What it is for.
        kind: How it counts: as a training, a measurement, neither, or time of the search.
        started_s: Time of the search (`State.at_s`) at its start.
        trial: Number of the trial; None: none.
        target: Name of the target; empty: none, or several.
        gpus: That it holds.
        cpus: Threads that it holds.
        expected_s: How long it should take; 0: nothing tells.
        until: Of a training, the epoch at which it pauses.
        sessions: Of a measurement, in how many processes.
        content: What it is about, for work on the library: the entries to make, or the designs to score.
    """

    key: str
    purpose: Purpose
    kind: JobKind
    started_s: float
    trial: int | None = None
    target: str = ""
    gpus: float = 0.0
    cpus: float = 0.0
    expected_s: float = 0.0
    until: int = 0
    sessions: int = 1
    content: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """How a target stands.

    Attributes:
        away_since_s: Time of the search when it first failed, if it has not answered since.
        until_s: When to try it again.
        reason: What it said last.
        failures: Suspicious ones in a row, of networks that may be to blame themselves.
    """

    away_since_s: float | None = None
    until_s: float = 0.0
    reason: str = ""
    failures: int = 0


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
    state: SearchState
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

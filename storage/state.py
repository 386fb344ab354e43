"""How a search stands, as plain data, and the one function that changes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

from evaluators.evaluation import AssembledScore, LibraryEntry
from evaluators.latency import Calibration
from search_spaces.image_size import ImageSize
from storage.events import (
    AssemblyScored,
    AttemptFailed,
    BatchSet,
    BudgetsSet,
    Calibrated,
    Deployed,
    DeviceMoved,
    EntryMade,
    EpochEnded,
    EpochPredicted,
    Event,
    JobEnded,
    JobStarted,
    LatencyKnown,
    LatencyMeasured,
    PhaseEntered,
    Prepared,
    Scored,
    SearchMoved,
    Sized,
    SpaceExhausted,
    TrialAdded,
    TrialMoved,
    WeightsTaken,
)
from storage.trial import TRANSITIONS, Device, Job, Phase, SearchState, Spent, TransitionError, Trial

COUNTED = frozenset({"confirm", "validate", "copy", "imitate", "assemble"})  # work that is not tried for ever


@dataclass(frozen=True)
class State:
    """A search at a moment. What it was asked for, all but its budgets, is not in it: that never changes.

    Attributes:
        search_state: Whether it runs, was stopped, or is done.
        budgets: What it may spend, as the user wrote it.
        phase: What it is about.
        prepared: Whether its images were scanned in this session.
        exhausted: Whether nothing new was found to try, in this session.
        trials: By number.
        jobs: What runs, by key, the session of the search among it.
        entries: Of the library, by place, block and widening; those that could not be trained among them.
        assemblies: Designs that were put together from it, in order, each once.
        calibrations: Of the targets, by fingerprint and image size.
        devices: How targets stand that failed, by name.
        attempts: How often work that is not tried for ever was tried, by its key.
        troubles: Failures in a row that are the machine's fault, in this session.
        spent: On all that has ended.
    """

    search_state: SearchState = "running"
    budgets: tuple[str, ...] = ()
    phase: Phase = "preparing"
    prepared: bool = False
    exhausted: bool = False
    trials: tuple[Trial, ...] = ()
    jobs: Mapping[str, Job] = field(default_factory=dict)
    entries: Mapping[tuple[str, str, int], LibraryEntry] = field(default_factory=dict)
    assemblies: tuple[AssembledScore, ...] = ()
    calibrations: Mapping[tuple[str, ImageSize], Calibration] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    troubles: int = 0
    spent: Spent = field(default_factory=Spent)

    def spent_at(self, now_s: float) -> Spent:
        """With what runs at a time of the search charged until then."""
        return reduce(lambda spent, job: charged(spent, job, now_s - job.started_s), self.jobs.values(), self.spent)

    @cached_property
    def work(self) -> tuple[Job, ...]:
        """What runs, the session itself left out."""
        return tuple(job for job in self.jobs.values() if job.kind != "session")

    @property
    def library_seconds(self) -> float:
        """That entries and scores took."""
        return sum(one.seconds for one in self.entries.values()) + sum(one.seconds for one in self.assemblies)

    @cached_property
    def assembled(self) -> Mapping[str, AssembledScore]:
        """Designs that were put together from the library, by the keys of their architectures."""
        return {score.architecture.key: score for score in self.assemblies}

    @cached_property
    def designs(self) -> tuple[Trial, ...]:
        """Trials that are designs of their own: neither repeats nor trained for their weights."""
        return tuple(trial for trial in self.trials if trial.is_design)

    def device(self, target: str) -> Device:
        """How a target stands."""
        return self.devices.get(target, Device())


def charged(spent: Spent, job: Job, seconds: float) -> Spent:
    """What was spent, with so many seconds of a piece of work."""
    return Spent(
        wall_seconds=spent.wall_seconds + seconds * (job.kind == "session"),
        gpu_seconds=spent.gpu_seconds + seconds * job.gpus,
        cpu_seconds=spent.cpu_seconds + seconds * job.cpus,
    )


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """The state after all events, from the beginning or from a state."""
    return reduce(apply, events, state or State())


def apply(state: State, event: Event) -> State:
    """The state after an event.

    Raises:
        TransitionError: If a trial cannot go there, or a number is not the next one.
    """
    match event:
        case SearchMoved(search_state):
            return replace(state, search_state=search_state)
        case BudgetsSet(budgets):
            return replace(state, budgets=budgets)
        case PhaseEntered(phase):
            return replace(state, phase=phase)
        case Prepared():
            return replace(state, prepared=True)
        case SpaceExhausted():
            return replace(state, exhausted=True)
        case TrialAdded(number, architecture, origin, batch, complexity):
            if number != len(state.trials):
                raise TransitionError(f"trial {number} cannot be added to {len(state.trials)}")
            known = state.assembled.get(architecture.key)
            trial = Trial(number, architecture, origin, "new", "", complexity, {}, (), (), batch=batch)
            trial = replace(trial, assembled=known.map50_95 if known else None)
            return replace(state, trials=(*state.trials, trial))
        case TrialMoved(number):
            return _with(state, moved(state.trials[number], event))
        case Sized(number, complexity):
            return _with(state, replace(state.trials[number], complexity=complexity))
        case Scored(number, scores):
            return _with(state, replace(state.trials[number], scores=scores))
        case LatencyMeasured():
            return replace(state, troubles=0)
        case LatencyKnown(number, target, latency):
            rest = {name: one for name, one in state.trials[number].latencies.items() if name != target}
            return _with(state, replace(state.trials[number], latencies=rest | ({target: latency} if latency else {})))
        case WeightsTaken(number, weights):
            return _with(state, replace(state.trials[number], weights=weights))
        case EpochPredicted(number, pace):
            return _with(state, replace(state.trials[number], predicted_epoch_s=pace.epoch_s))
        case EpochEnded(number, epoch):
            return replace(_with(state, with_epoch(state.trials[number], epoch)), troubles=0)
        case AttemptFailed(number, failure):
            trial = state.trials[number]
            state = _with(state, replace(trial, failures=(*trial.failures, failure)))
            return replace(state, troubles=state.troubles + 1) if failure.cause == "environment" else state
        case BatchSet(number, batch):
            return _with(state, replace(state.trials[number], batch=batch))
        case Deployed(number, accuracy):
            trial = state.trials[number]
            return _with(state, replace(trial, deployed=trial.deployed | {accuracy.target: accuracy}))
        case EntryMade(entry):
            if (entry.place, entry.block, entry.widen) in state.entries:
                return state
            return replace(state, entries={**state.entries, (entry.place, entry.block, entry.widen): entry})
        case AssemblyScored(architecture, map50_95, seconds, problem):
            if architecture.key in state.assembled:
                return state
            score = AssembledScore(architecture, map50_95, seconds, problem)
            trials = tuple(
                replace(trial, assembled=map50_95) if trial.architecture == architecture else trial
                for trial in state.trials
            )
            return replace(state, trials=trials, assemblies=(*state.assemblies, score))
        case Calibrated(calibration):
            where = calibration.fingerprint, calibration.imgsz
            return replace(state, calibrations={**state.calibrations, where: replace(calibration, identity={})})
        case DeviceMoved(target, device):
            rest_of = {name: one for name, one in state.devices.items() if name != target}
            return replace(state, devices=rest_of | ({target: device} if device != Device() else {}))
        case JobStarted(job):
            return _started(state, job)
        case JobEnded(key, seconds, lost):
            job, jobs = state.jobs[key], {other: job for other, job in state.jobs.items() if other != key}
            attempts = state.attempts
            if job.purpose in COUNTED and not lost:
                attempts = {**attempts, key: attempts.get(key, 0) + 1}
            return replace(state, jobs=jobs, attempts=attempts, spent=charged(state.spent, job, seconds))
    raise TypeError(f"not an event: {event!r}")


def moved(trial: Trial, event: TrialMoved) -> Trial:
    """A trial in another state. One that is to be measured again forgets what is not good."""
    if event.state not in TRANSITIONS[trial.state]:
        raise TransitionError(f"trial {trial.number} cannot go from {trial.state} to {event.state}")
    latencies = trial.latencies
    if event.state == "new":
        latencies = {name: one for name, one in latencies.items() if one.quality == "good"}
    return replace(trial, state=event.state, reason=event.reason[:500], latencies=latencies)


def with_epoch(trial: Trial, epoch: Any) -> Trial:
    """A trial that was trained for one more epoch; one that is there already stays."""
    if epoch.epoch <= len(trial.epochs):
        return trial
    if epoch.epoch != len(trial.epochs) + 1:
        raise TransitionError(f"trial {trial.number} has {len(trial.epochs)} epochs, not {epoch.epoch - 1}")
    return replace(trial, epochs=(*trial.epochs, epoch))


def _started(state: State, job: Job) -> State:
    if job.key in state.jobs:
        raise TransitionError(f"{job.key} runs already")
    state = replace(state, jobs={**state.jobs, job.key: job})
    if job.kind == "session":  # it begins anew: what was exhausted may be so no more, images may be another machine's
        return replace(state, search_state="running", phase="preparing", prepared=False, exhausted=False, troubles=0)
    return state


def _with(state: State, trial: Trial) -> State:
    trials = list(state.trials)
    trials[trial.number] = trial
    return replace(state, trials=tuple(trials))

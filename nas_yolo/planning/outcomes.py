"""What follows from the results of work: facts for the record, and whether the search can go on at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.errors import AWAY
from evaluators.evaluation import (
    AssembledScore,
    Complexity,
    DeployedAccuracy,
    Epoch,
    Failure,
    FirstWeights,
    HandedOver,
    Latency,
    LibraryEntry,
    Pace,
    Scores,
)
from evaluators.latency import Calibration
from nas_yolo.config import SearchConfig
from nas_yolo.devices import after_failure
from nas_yolo.objective import too_slow
from nas_yolo.planning.situation import Context
from nas_yolo.runners import Report
from storage import Device, Job, State, Trial, TrialState
from storage.events import (
    AssemblyScored,
    AttemptFailed,
    BatchSet,
    Calibrated,
    Deployed,
    DeviceMoved,
    EntryMade,
    EpochEnded,
    EpochPredicted,
    Event,
    JobEnded,
    LatencyMeasured,
    Prepared,
    Scored,
    Sized,
    TrialMoved,
    WeightsTaken,
)
from storage.journal import Page
from storage.state import fold

ATTEMPTS = 2  # a crash may be the machine's fault: once more, from the last checkpoint
MENDABLE = frozenset({"crash", "timeout", "garbage"})
MAX_FAILURES = 5  # with nothing trained at all: something is wrong that more trials will not mend
MAX_TROUBLES = 3  # in a row that are this machine's: more trials would only meet them, too
BATCH = 16  # Ultralytics' default


@dataclass(frozen=True)
class Outcome:
    """What happened, and why the search cannot go on, if it cannot."""

    events: tuple[Event, ...]
    problem: str = ""


Failures = Mapping[str, tuple[Failure, ...]]
"""What work that still runs has reported, by its key."""


def take_in(
    page: Page, reports: Iterable[Report], context: Context, failures: Failures, now_s: float
) -> tuple[Failures, str]:
    """Write down results, and what follows from the end of work: all of them, though one may end the search.

    Args:
        page: Takes what happens.
        reports: Of the runner, in order.
        context: Of the search.
        failures: Reported before.
        now_s: Time of the search.

    Returns:
        The failures of what still runs, and why the search cannot go on, if it cannot.
    """
    reported, problem = dict(failures), ""
    for report in reports:
        if (job := page.state.jobs.get(report.key)) is None:  # it was cancelled
            continue
        if report.item is None:
            outcome = of_end(context, page.state, job, reported.pop(job.key, ()), now_s)
            page.record(outcome.events)
            problem = problem or outcome.problem
            continue
        if isinstance(report.item, Failure):
            reported[job.key] = (*reported.get(job.key, ()), report.item)
        page.record(of_result(page.state, job, report.item))
    return reported, problem


def of_result(state: State, job: Job, item: Any) -> tuple[Event, ...]:
    """The facts that a result of a piece of work stands for."""
    number = job.trial
    match item:
        case Calibration() as calibration:
            return (Calibrated(calibration),)
        case Failure() as failure:
            return () if number is None else (AttemptFailed(number, failure),)
        case LibraryEntry() as entry:
            return (EntryMade(entry),)
        case AssembledScore() as score:
            return (AssemblyScored(score.architecture, score.map50_95, score.seconds, score.problem),)
    if number is None:
        raise AssertionError(f"unexpected result {item!r}")
    trial = state.trials[number]
    match item:
        case Pace() as pace:
            return (EpochPredicted(number, pace),)
        case Epoch() as epoch:
            return (EpochEnded(number, epoch),)
        case FirstWeights() as weights:
            return (WeightsTaken(number, weights),)
        case Complexity() as complexity:
            alike = [one.number for one in state.trials if one.architecture == trial.architecture]
            return tuple(Sized(one, complexity) for one in alike)
        case Scores() as scores:
            return (Scored(number, scores.values),)
        case Latency() as latency:
            return (DeviceMoved(latency.target, Device()), LatencyMeasured(number, latency))
        case DeployedAccuracy() as accuracy:
            return (Deployed(number, accuracy),)
        case HandedOver():
            return _handed_over(state, job)
    raise AssertionError(f"unexpected result {item!r}")


def of_end(context: Context, state: State, job: Job, failures: Sequence[Failure], now_s: float) -> Outcome:
    """What follows from the end of a piece of work.

    Args:
        context: Of the search.
        state: With all its results.
        job: Of the work.
        failures: That it reported.
        now_s: Time of the search.
    """
    config = context.config
    events: list[Event] = [JobEnded(job.key, now_s - job.started_s)]
    named = {target.name for target, _ in config.targets}
    devices = dict(state.devices)
    for failure in failures:
        if failure.target in named:
            device = devices.get(failure.target, Device())
            devices[failure.target] = after_failure(device, failure, now_s, job.purpose == "check")
    events += [DeviceMoved(name, device) for name, device in devices.items() if state.devices.get(name) != device]
    if job.purpose == "check" and not failures and job.target in state.devices:
        events.append(DeviceMoved(job.target, Device()))
    if job.purpose == "prepare" and not failures:
        events.append(Prepared())
    if problem := _problem(context.name, state, job, failures):
        return Outcome((*events, *settled(state, job.trial)), problem)
    if job.purpose in ("train", "measure") and job.trial is not None:
        events += after_failures(state, config, job, failures) if failures else _after_success(state, config, job)
    return Outcome(tuple(events), _too_many(context.name, fold(events, state)))


def settled(state: State, number: int | None) -> tuple[Event, ...]:
    """How a trial stands once nothing works on it."""
    if number is None:
        return ()
    trial = state.trials[number]
    if (stands := standing(trial)) == trial.state:
        return ()
    return (TrialMoved(number, stands),)


def standing(trial: Trial) -> TrialState:
    """The state of a trial that nothing works on."""
    if trial.state == "measuring":
        return "new"
    if trial.state == "new" and not trial.is_design:
        return "ready"  # it is measured as the trial that it repeats, or the stock model, is
    if trial.state == "training":
        return "paused" if trial.epochs else "ready"
    return trial.state


def after_failures(state: State, config: SearchConfig, job: Job, failures: Sequence[Failure]) -> tuple[Event, ...]:
    """Try again after a crash, which may have been the machine's, and once with half the batch if memory ran out.

    Anything else would only happen again. A device that is away, or an environment that is broken, is no fault of the
    trial's, which waits.

    Args:
        state: With the failures.
        config: Of the search.
        job: A training or a measurement of a trial.
        failures: That it reported.
    """
    assert job.trial is not None
    trial = state.trials[job.trial]
    own = [failure for failure in failures if failure.cause not in AWAY and failure.cause != "environment"]
    attempts = sum(past.cause in MENDABLE for past in trial.failures)
    if not own or (own[-1].cause in MENDABLE and attempts < ATTEMPTS):
        return settled(state, trial.number)
    if job.kind == "train" and own[-1].cause == "oom" and (batch := half_batch(trial, config.training)):
        return (BatchSet(trial.number, batch), *settled(state, trial.number))
    return (TrialMoved(trial.number, "failed", f"{own[-1].cause}: {own[-1].message}"),)


def half_batch(trial: Trial, training: Mapping[str, Any]) -> int | None:
    """Images in a batch with which to try again once memory ran out; None if that was tried, or cannot be."""
    batch = training.get("batch", BATCH)
    if trial.batch is not None or not isinstance(batch, int) or batch < 2:
        return None
    return batch // 2


def _after_success(state: State, config: SearchConfig, job: Job) -> tuple[Event, ...]:
    assert job.trial is not None
    trial = state.trials[job.trial]
    if job.purpose == "train":
        done = len(trial.epochs) >= config.epochs
        return (TrialMoved(trial.number, "complete" if done else "paused"),)
    if len(trial.latencies) < len(config.targets):  # one was taken back meanwhile
        return (TrialMoved(trial.number, "new"),)
    limits = () if trial.preset == config.space.baseline else config.limits
    reason = too_slow(limits, trial.latencies.values())
    return (TrialMoved(trial.number, "rejected" if reason else "ready", reason),)


def _handed_over(state: State, job: Job) -> tuple[Event, ...]:
    parent, stock = (state.trials[int(number)] for number in job.key.split()[1:])
    batch = (BatchSet(stock.number, parent.batch),) if parent.batch else ()
    return (*batch, *(EpochEnded(stock.number, epoch) for epoch in parent.epochs[len(stock.epochs) :]))


def _problem(name: str, state: State, job: Job, failures: Sequence[Failure]) -> str:
    """Why the search cannot go on after the failures of a piece of work; empty if it can."""
    for failure in failures:
        if failure.cause == "data_changed":
            return (
                f"{failure.message}; accuracies would not compare. Nothing is lost: put the data back as it was, "
                f"and go on with nas-yolo resume {name}, or start a new search"
            )
        if failure.cause == "storage":
            return f"{failure.message}; nothing is lost: mend it and go on with nas-yolo resume {name}"
        if failure.cause == "device_changed":
            return (
                f"{failure.message}; its latencies would not compare. Put it back as it was and go on with "
                f"nas-yolo resume {name}, or start a new search"
            )
        if failure.cause == "environment" and state.troubles >= MAX_TROUBLES:
            return (
                f"{state.troubles} times running, this machine failed and not a design: {failure.message}; nothing is "
                f"lost: mend it (nas-yolo doctor) and go on with nas-yolo resume {name}"
            )
    if job.purpose in ("prepare", "calibrate") and failures:
        return f"{job.key} failed: {failures[-1].message}"
    return ""


def _too_many(name: str, state: State) -> str:
    designs = [trial for trial in state.trials if trial.is_design]
    failed = [trial for trial in designs if trial.state == "failed"]
    if len(failed) < MAX_FAILURES or any(trial.epochs for trial in designs):
        return ""
    return (
        f"the first {len(failed)} trials all failed, the last one with: {failed[-1].reason}; "
        f"details: nas-yolo status {name}"
    )

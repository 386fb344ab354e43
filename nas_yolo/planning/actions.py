"""What a search can do next, and what happens when it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from storage import Job, State
from storage.events import Event, JobEnded, JobStarted, TrialAdded, TrialMoved
from storage.journal import Page
from storage.state import fold
from storage.trial import TransitionError


@dataclass(frozen=True)
class Note:
    """Write something down: a decision that needs no work."""

    events: tuple[Event, ...]


@dataclass(frozen=True)
class Begin:
    """Begin a piece of work.

    Attributes:
        first: What happens before.
    """

    job: Job
    first: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Cancel:
    """End a piece of work that runs.

    Attributes:
        then: What follows.
    """

    key: str
    then: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Stop:
    """End the search: its budget is spent, or nothing is left to do.

    Attributes:
        problem: Why it cannot go on, and what to do; empty if it is done.
    """

    problem: str = ""


@dataclass(frozen=True)
class Wait:
    """Nothing more, until something that runs has ended."""


Action = Note | Begin | Cancel | Stop | Wait


def events_of(action: Action, state: State, now_s: float) -> tuple[Event, ...]:
    """What happens when an action is taken, whatever comes of it."""
    match action:
        case Note(events):
            return events
        case Begin(job, first):
            moves = {"train": "training", "measure": "measuring"}
            move = [TrialMoved(job.trial, moves[job.purpose])] if job.purpose in moves and job.trial is not None else []  # type: ignore[arg-type]
            return (*first, JobStarted(job), *move)
        case Cancel(key, then):
            return (JobEnded(key, now_s - state.jobs[key].started_s), *then)
        case Stop() | Wait():
            return ()


def take(page: Page, decided: State, actions: Sequence[Action], now_s: float) -> list[Action]:
    """Write down what was decided, as far as it still holds; what is to be done, in order.

    Args:
        page: Takes what happens.
        decided: The state that it was decided on.
        actions: In order.
        now_s: Time of the search; they may have been thought out for long.
    """
    taken: list[Action] = []
    for action in actions:
        if not is_current(action, decided, page.state):
            break
        if isinstance(action, Begin):
            action = replace(action, job=replace(action.job, started_s=now_s))
        page.record(events_of(action, page.state, now_s))
        taken.append(action)
    return taken


def is_current(action: Action, decided: State, state: State) -> bool:
    """Whether what was decided on one state can be done in a later one.

    What an action is about must be as it was: results came in, and budgets ran on, while it was thought out.
    """
    match action:
        case Stop() | Wait():
            return state is decided
        case Cancel(key):
            return state.jobs.get(key) == decided.jobs.get(key)
    about = {event.number for event in events_of(action, state, 0.0) if isinstance(event, TrialMoved)}
    if any(number < len(decided.trials) and state.trials[number] is not decided.trials[number] for number in about):
        return False
    try:
        fold(events_of(action, state, 0.0), state)
    except TransitionError:
        return False
    return True


def needs_answer(action: Action) -> bool:
    """Whether what happens is not all known before: whether a new design was measured by another search."""
    return isinstance(action, Note) and any(isinstance(event, TrialAdded) for event in action.events)

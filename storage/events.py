"""What happens in a search: facts, in order, from which its state follows (`storage.state.apply`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from evaluators.evaluation import (
    Complexity,
    DeployedAccuracy,
    Epoch,
    Failure,
    FirstWeights,
    Latency,
    LibraryEntry,
    Pace,
)
from evaluators.latency import Calibration
from search_spaces.architecture import Architecture
from storage.trial import Device, Job, Phase, SearchState, TrialState

Design = Annotated[
    Architecture,
    PlainSerializer(lambda architecture: json.loads(architecture.document)),
    PlainValidator(lambda given: given if isinstance(given, Architecture) else Architecture.from_document(given)),
]


@dataclass(frozen=True)
class SearchMoved:
    """The search runs, was stopped, or is done."""

    state: SearchState


@dataclass(frozen=True)
class BudgetsSet:
    """It may spend so much, as the user wrote it."""

    budgets: tuple[str, ...]


@dataclass(frozen=True)
class PhaseEntered:
    """What the search is about now."""

    phase: Phase


@dataclass(frozen=True)
class Prepared:
    """The images were scanned, in this session."""


@dataclass(frozen=True)
class SpaceExhausted:
    """Nothing new was found to try."""


@dataclass(frozen=True)
class TrialAdded:
    """A design is to be tried, a trial repeated, or a parent trained; it is in state `new`.

    Attributes:
        number: Of the trial, the next one.
        batch: Images in a batch of its training, if that is not the search's.
        complexity: Its size, where that of another trial is its own.
    """

    number: int
    architecture: Design
    origin: str
    batch: int | None = None
    complexity: Complexity | None = None


@dataclass(frozen=True)
class TrialMoved:
    """A trial is in another state; the reason says why it was rejected or failed."""

    number: int
    state: TrialState
    reason: str = ""


@dataclass(frozen=True)
class Sized:
    """The size of a trial's network is known."""

    number: int
    complexity: Complexity


@dataclass(frozen=True)
class Scored:
    """So are its zero-cost scores."""

    number: int
    scores: dict[str, float]


@dataclass(frozen=True)
class LatencyMeasured:
    """A session on a target; what then holds of it and of others follows as `LatencyKnown`."""

    number: int
    latency: Latency


@dataclass(frozen=True)
class LatencyKnown:
    """From all sessions that may be used; None: there is none any more.

    Attributes:
        target: Its name.
    """

    number: int
    target: str
    latency: Latency | None


@dataclass(frozen=True)
class WeightsTaken:
    """What the training of a trial begins with."""

    number: int
    weights: FirstWeights


@dataclass(frozen=True)
class EpochPredicted:
    """The first batches of a trial's training tell what an epoch of it takes."""

    number: int
    pace: Pace


@dataclass(frozen=True)
class EpochEnded:
    """An epoch was trained."""

    number: int
    epoch: Epoch


@dataclass(frozen=True)
class AttemptFailed:
    """Work on a trial failed; what follows from that is said apart."""

    number: int
    failure: Failure


@dataclass(frozen=True)
class BatchSet:
    """A trial is trained with another batch size than the search's."""

    number: int
    batch: int


@dataclass(frozen=True)
class Deployed:
    """The accuracy of a trial's exported file is known."""

    number: int
    accuracy: DeployedAccuracy


@dataclass(frozen=True)
class EntryMade:
    """The library has an entry, or one that could not be trained."""

    entry: LibraryEntry


@dataclass(frozen=True)
class AssemblyScored:
    """What a design finds that was put together from the library.

    Attributes:
        map50_95: None: it could not be put together.
        seconds: That it took.
        problem: Why it could not be put together; empty otherwise.
    """

    architecture: Design
    map50_95: float | None
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class Calibrated:
    """The reference's time on a target is known."""

    calibration: Calibration


@dataclass(frozen=True)
class DeviceMoved:
    """A target answers, is away, or is suspect."""

    target: str
    device: Device


@dataclass(frozen=True)
class JobStarted:
    """A piece of work was begun, and its ledger entry opened."""

    job: Job


@dataclass(frozen=True)
class JobEnded:
    """A piece of work ended and cost so many seconds.

    Attributes:
        lost: Whether it was ended from outside (a crash, the end of the budget) before it was done: then it does not
            count as tried.
    """

    key: str
    seconds: float
    lost: bool = False


Event = (
    SearchMoved
    | BudgetsSet
    | PhaseEntered
    | Prepared
    | SpaceExhausted
    | TrialAdded
    | TrialMoved
    | Sized
    | Scored
    | LatencyMeasured
    | LatencyKnown
    | WeightsTaken
    | EpochPredicted
    | EpochEnded
    | AttemptFailed
    | BatchSet
    | Deployed
    | EntryMade
    | AssemblyScored
    | Calibrated
    | DeviceMoved
    | JobStarted
    | JobEnded
)
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__args__}


@dataclass(frozen=True)
class Recorded:
    """An event as it was written down.

    Attributes:
        id: Ascending with time within a search; not without gaps.
        at_s: Time of the search.
        recorded_at: UTC.
    """

    id: int
    at_s: float
    recorded_at: datetime
    event: Event


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind])


def document(event: Event) -> dict[str, Any]:
    """An event as JSON data, for `from_document`."""
    found: dict[str, Any] = _adapter(type(event).__name__).dump_python(event, mode="json")
    return found


def from_document(kind: str, found: dict[str, Any]) -> Event:
    """Read back what `document` wrote."""
    event: Event = _adapter(kind).validate_python(found)
    return event

"""How a process takes a search up, wherever an earlier one left it, and how it leaves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nas_yolo.devices import SUSPECT_AFTER
from nas_yolo.planning.outcomes import standing
from storage import Device, Job, State
from storage.events import DeviceMoved, Event, JobEnded, JobStarted, PhaseEntered, SearchMoved, TrialMoved
from storage.trial import SearchState

SESSION = "session"


def taken_up(state: State, charged_s: Mapping[str, float]) -> tuple[float, list[Event]]:
    """The time of the search, and what happens when a process takes it up.

    Args:
        state: As an earlier process left it.
        charged_s: What its work had cost by then, by key, as far as that is known.
    """
    lost = state.jobs.values()
    now_s = state.spent.wall_seconds + sum(charged_s.get(job.key, 0.0) for job in lost if job.kind == "session")
    ended = (JobEnded(job.key, charged_s.get(job.key, 0.0), lost=True) for job in lost)
    # What was away is not forgotten: its reference is measured before anything else is.
    away = [name for name, device in state.devices.items() if device.away_since_s is not None]
    suspects = (DeviceMoved(name, Device(failures=SUSPECT_AFTER)) for name in away)
    return now_s, [*ended, *_settled(state), *suspects, JobStarted(Job(SESSION, "session", "session", now_s))]


def left(state: State, search_state: SearchState, now_s: float) -> list[Event]:
    """What happens when a process leaves a search; whatever still ran was ended."""
    ended = (JobEnded(job.key, now_s - job.started_s, lost=True) for job in state.jobs.values())
    done = [PhaseEntered("done")] if search_state == "done" else []
    return [*ended, *_settled(state), *done, SearchMoved(search_state)]


def _settled(state: State) -> Iterator[Event]:
    """All trials as they stand once nothing works on them."""
    for trial in state.trials:
        if (stands := standing(trial)) != trial.state:
            yield TrialMoved(trial.number, stands)

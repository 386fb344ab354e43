"""The one way in which a search changes: events and the rows that they change, in one transaction, by its holder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.events import (
    AttemptFailed,
    BudgetsSet,
    Calibrated,
    Deployed,
    EpochEnded,
    Event,
    JobEnded,
    JobStarted,
    LatencyKnown,
    LatencyMeasured,
    TrialAdded,
    TrialMoved,
    document,
)
from storage.loading import known_latencies, load_state, progress_of
from storage.measurements import add_architecture, add_calibration, add_latency
from storage.state import State, apply
from storage.tables import DeployedRow, EpochRow, EventRow, FailureRow, LedgerRow, SearchRow, TrialRow
from storage.trial import Search, Trial

Fenced = Callable[[], AbstractContextManager[Session]]
"""Begins a transaction that fails unless this process still holds the search."""


class Journal:
    """How a search stands, and what happens in it.

    Args:
        search: The search.
        fenced: Begins a transaction of whoever holds it.
        now: The time, for the record.

    Attributes:
        state: As of the last event; equal to what the rows say.
    """

    def __init__(self, search: Search, fenced: Fenced, now: Callable[[], datetime]):
        self.search, self._fenced, self._now = search, fenced, now
        with fenced() as session:
            self.state: State = load_state(session, search)
            rows = session.execute(select(TrialRow.number, TrialRow.id).where(TrialRow.search_id == search.id))
            self._ids = {row.number: row.id for row in rows}
            running = session.scalars(select(LedgerRow).where(LedgerRow.search_id == search.id, ~LedgerRow.ended)).all()
            self._entries = {row.job["key"]: row.id for row in running if row.job}
            self.charged = {row.job["key"]: row.seconds for row in running if row.job}

    def record(self, events: Iterable[Event], now_s: float) -> list[Event]:
        """Write down what happened, all of it or nothing.

        Args:
            events: In order.
            now_s: Time of the search.

        Returns:
            The events, and those that follow from them: what is known of latencies.

        Raises:
            StorageError: If it cannot be written; nothing has changed.
            ClaimLostError: If another process has taken the search.
        """
        now, state, facts = self._now(), self.state, []
        ids, entries = dict(self._ids), dict(self._entries)
        with self._fenced() as session:
            for event in events:
                for fact in self._facts(session, state, event, now):
                    state = apply(state, fact)
                    self._append(session, fact, now, ids, entries)
                    facts.append(fact)
            self._update(session, self.state, state, now, ids)
            session.add_all(event_row(self.search.id, fact, now_s, now) for fact in facts)
        self.state, self._ids, self._entries = state, ids, entries
        return facts

    def charge(self, now_s: float) -> None:
        """Keep the ledger and the lease current."""
        running = [{"id": self._entries[key], "seconds": now_s - job.started_s} for key, job in self.state.jobs.items()]
        with self._fenced() as session:
            if running:
                session.execute(update(LedgerRow), running)

    def _facts(self, session: Session, state: State, event: Event, now: datetime) -> Iterator[Event]:
        """An event, and what the measurements of all searches say then."""
        yield event
        match event:
            case TrialAdded(number, architecture, _):
                trial = apply(state, event).trials[number]
                marks = {target["fingerprint"] for target in self.search.config["targets"]}
                for name, latency in known_latencies(session, self.search, architecture, marks).items():
                    if latency and (latency.quality == "good" or not trial.is_design):
                        yield LatencyKnown(number, name, latency)
            case LatencyMeasured(number, latency):
                classes = len(self.search.config["dataset"]["names"])
                mine = state.trials[number].architecture
                taken_back = add_latency(session, mine, classes, latency, now)
                for trial in state.trials:
                    if trial.architecture == mine or (taken_back and _drifted(trial, latency.fingerprint)):
                        yield from self._known(session, trial, latency.fingerprint)

    def _known(self, session: Session, trial: Trial, fingerprint: str) -> Iterator[Event]:
        known = known_latencies(session, self.search, trial.architecture, [fingerprint])
        for name, latency in known.items():
            yield LatencyKnown(trial.number, name, latency)
        if not any(known.values()) and trial.state == "ready" and trial.is_design:
            yield TrialMoved(trial.number, "new")

    def _append(
        self, session: Session, event: Event, now: datetime, ids: dict[int, int], entries: dict[str, int]
    ) -> None:
        """The rows that an event adds, or ends."""
        match event:
            case TrialAdded(number, architecture, origin):
                add_architecture(session, architecture)
                row = TrialRow(
                    search_id=self.search.id,
                    number=number,
                    architecture_key=architecture.key,
                    origin=origin,
                    state="new",
                    reason="",
                    created_at=now,
                    updated_at=now,
                )
                session.add(row)
                session.flush()
                ids[number] = row.id
            case EpochEnded(number, epoch):
                if session.get(EpochRow, (ids[number], epoch.epoch)) is None:  # it cannot be paid twice
                    session.add(EpochRow(trial_id=ids[number], recorded_at=now, **asdict(epoch)))
            case AttemptFailed(number, failure):
                session.add(FailureRow(trial_id=ids[number], failed_at=now, **asdict(failure)))
            case Deployed(number, accuracy):
                session.add(DeployedRow(trial_id=ids[number], validated_at=now, **asdict(accuracy)))
            case Calibrated(calibration):
                add_calibration(session, calibration, now)
            case JobStarted(job):
                entry = LedgerRow(
                    search_id=self.search.id,
                    trial_id=None if job.trial is None else ids[job.trial],
                    kind=job.kind,
                    gpus=job.gpus,
                    cpus=job.cpus,
                    seconds=0.0,
                    started_at=now,
                    job=asdict(job),
                    ended=False,
                )
                session.add(entry)
                session.flush()
                entries[job.key] = entry.id
            case JobEnded(key, seconds):
                done = update(LedgerRow).where(LedgerRow.id == entries.pop(key))
                session.execute(done.values(seconds=seconds, ended=True))
            case BudgetsSet(budgets):
                search = session.get_one(SearchRow, self.search.id)
                search.config = search.config | {"budgets": list(budgets)}

    def _update(self, session: Session, before: State, after: State, now: datetime, ids: dict[int, int]) -> None:
        """The rows whose columns say how something stands."""
        known = dict(enumerate(before.trials))
        for trial in after.trials:
            if known.get(trial.number) is not trial and (values := _columns(trial)) != _columns(
                known.get(trial.number)
            ):
                row = update(TrialRow).where(TrialRow.id == ids[trial.number])
                session.execute(row.values(**values, updated_at=now))
        mine = update(SearchRow).where(SearchRow.id == self.search.id)
        if after.search_state != before.search_state:
            session.execute(mine.values(state=after.search_state))
        if (progress := progress_of(after)) != progress_of(before):
            session.execute(mine.values(progress=progress))


def event_row(search_id: int, event: Event, now_s: float, now: datetime) -> EventRow:
    """An event as it is kept."""
    kind, found = type(event).__name__, document(event)
    return EventRow(search_id=search_id, at_s=now_s, kind=kind, document=found, recorded_at=now)


def _columns(trial: Trial | None) -> dict[str, Any]:
    if trial is None:
        return {}
    return {
        "state": trial.state,
        "reason": trial.reason,
        "parents": list(trial.weights.parents) if trial.weights else None,
        "inherited_share": trial.weights.share if trial.weights else None,
        "batch": trial.batch,
        "scores": trial.scores or None,
        "predicted_epoch_s": trial.predicted_epoch_s,
        **(asdict(trial.complexity) if trial.complexity else {}),
    }


def _drifted(trial: Trial, fingerprint: str) -> bool:
    """Whether a latency of a trial was measured there while the device drifted."""
    known: Sequence[Any] = [one for one in trial.latencies.values() if one.fingerprint == fingerprint]
    return any("drifted" in latency.flags for latency in known)

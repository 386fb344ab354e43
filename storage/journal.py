"""The one way in which a search changes: events and the rows that they change, in one transaction, by its holder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from datetime import datetime
from itertools import zip_longest
from typing import Any, TypeVar

from sqlalchemy import Connection, Float, Table, bindparam, insert, select, update

from evaluators.evaluation import Complexity
from storage.events import (
    AssemblyScored,
    AttemptFailed,
    BudgetsSet,
    Calibrated,
    Deployed,
    EntryMade,
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
from storage.tables import (
    ASSEMBLIES,
    DEPLOYED,
    ENTRIES,
    EPOCHS,
    EVENTS,
    FAILURES,
    LEDGER,
    SEARCHES,
    TRIALS,
    LedgerRow,
    TrialRow,
)
from storage.trial import Search, Trial

Fenced = Callable[[], AbstractContextManager[Connection]]
"""Begins a transaction that fails unless this process still holds the search."""

T = TypeVar("T")
# What is written all the time is made once.
INSERT = {table: insert(table) for table in (TRIALS, EPOCHS, FAILURES, DEPLOYED, LEDGER, EVENTS, ENTRIES, ASSEMBLIES)}
CHARGE = (
    update(LEDGER)
    .where(LEDGER.c.search_id == bindparam("search"), ~LEDGER.c.ended)
    .values(seconds=bindparam("now_s", type_=Float) - LEDGER.c.job["started_s"].as_float())
)
MINE = update(SEARCHES).where(SEARCHES.c.id == bindparam("search"))
SIZES = tuple(one.name for one in fields(Complexity))
MOVE = update(TRIALS).where(TRIALS.c.id == bindparam("row"))
END = (
    update(LEDGER)
    .where(LEDGER.c.id == bindparam("entry"))
    .values(seconds=bindparam("spent_s", type_=Float), ended=True)
)


class Journal:
    """How a search stands, and what happens in it.

    Args:
        search: The search.
        fenced: Begins a transaction of whoever holds it.
        now: The time, for the record.

    Attributes:
        state: As of the last event; equal to what the rows say.
        charged: Seconds in the ledger of what ran when it was opened, by key.
    """

    def __init__(self, search: Search, fenced: Fenced, now: Callable[[], datetime]):
        self.search, self._fenced, self._now = search, fenced, now
        with fenced() as connection:
            self.state: State = load_state(connection, search)
            rows = connection.execute(select(TrialRow.number, TrialRow.id).where(TrialRow.search_id == search.id))
            self._ids = {row.number: row.id for row in rows}
            mine = select(LedgerRow).where(LedgerRow.search_id == search.id, ~LedgerRow.ended)
            running = connection.execute(mine).all()
            self._entries = {row.job["key"]: row.id for row in running if row.job}
            self.charged = {row.job["key"]: row.seconds for row in running if row.job}

    def write(self, body: Callable[[Page], T], now_s: float) -> T:
        """Write down what happened, all of it or nothing.

        Args:
            body: Says what happened, in order, and changes nothing else: it is called again where that fails.
            now_s: Time of the search.

        Returns:
            What the body does.

        Raises:
            StorageError: If it cannot be written; nothing has changed.
            ClaimLostError: If another process has taken the search.
        """
        now = self._now()
        with self._fenced() as connection:
            page = Page(connection, self.search, self.state, dict(self._ids), dict(self._entries), now)
            result = body(page)
            page.end(now_s)
        self.state, self._ids, self._entries = page.state, page.ids, page.entries
        return result

    def record(self, events: Iterable[Event], now_s: float) -> None:
        """Write down what is known to have happened, as `write` does."""
        facts = list(events)
        self.write(lambda page: page.record(facts), now_s)

    def charge(self, now_s: float) -> None:
        """Keep the ledger and the lease current."""
        with self._fenced() as connection:
            connection.execute(CHARGE, {"search": self.search.id, "now_s": now_s})


class Page:
    """What is written down in one transaction.

    Attributes:
        state: As of the last event on it.
        facts: The events on it, those that follow from measurements of all searches among them.
        ids: Of the rows of trials, by number.
        entries: Ids of the ledger's open rows, by key of the work.
    """

    def __init__(
        self,
        connection: Connection,
        search: Search,
        state: State,
        ids: dict[int, int],
        entries: dict[str, int],
        now: datetime,
    ):
        self.state, self.facts, self.ids, self.entries = state, list[Event](), ids, entries
        self._connection, self._search, self._before, self._now = connection, search, state, now
        self._ended: list[dict[str, Any]] = []  # entries of the ledger

    def record(self, events: Iterable[Event]) -> None:
        """Add what happened, and what the measurements of all searches say then.

        Raises:
            TransitionError: If it cannot happen.
        """
        for event in events:
            for fact in self._facts(event):
                before, self.state = self.state, apply(self.state, fact)
                self._append(fact, before)
                self.facts.append(fact)

    def end(self, now_s: float) -> None:
        """Add the events themselves, and change the rows whose columns say how something stands."""
        self._update()
        if self._ended:
            self._connection.execute(END, self._ended)
        if self.facts:
            rows = [event_row(self._search.id, fact, now_s, self._now) for fact in self.facts]
            self._connection.execute(INSERT[EVENTS], rows)

    def _facts(self, event: Event) -> Iterator[Event]:
        yield event
        match event:
            case TrialAdded(number, architecture, _):
                trial = self.state.trials[number]
                marks = {target["fingerprint"] for target in self._search.config["targets"]}
                for name, latency in known_latencies(self._connection, self._search, architecture, marks).items():
                    if latency and (latency.quality == "good" or not trial.is_design):
                        yield LatencyKnown(number, name, latency)
            case LatencyMeasured(number, latency):
                classes = len(self._search.config["dataset"]["names"])
                mine = self.state.trials[number].architecture
                taken_back = add_latency(self._connection, mine, classes, latency, self._now)
                for trial in self.state.trials:
                    if trial.architecture == mine or (taken_back and _drifted(trial, latency.fingerprint)):
                        yield from self._known(trial, latency.fingerprint)

    def _known(self, trial: Trial, fingerprint: str) -> Iterator[Event]:
        known = known_latencies(self._connection, self._search, trial.architecture, [fingerprint])
        for name, latency in known.items():
            yield LatencyKnown(trial.number, name, latency)
        if not any(known.values()) and trial.state == "ready" and trial.is_design:
            yield TrialMoved(trial.number, "new")

    def _append(self, event: Event, before: State) -> None:
        """The rows that an event adds, or ends."""
        connection, now = self._connection, self._now
        match event:
            case TrialAdded(number, architecture, origin):
                add_architecture(connection, architecture)
                self.ids[number] = self._add(
                    TRIALS,
                    search_id=self._search.id,
                    number=number,
                    architecture_key=architecture.key,
                    origin=origin,
                    state="new",
                    reason="",
                    created_at=now,
                    updated_at=now,
                )
            case EpochEnded(number, epoch):
                if len(before.trials[number].epochs) < epoch.epoch:  # it cannot be paid twice
                    self._add(EPOCHS, trial_id=self.ids[number], recorded_at=now, **vars(epoch))
            case AttemptFailed(number, failure):
                self._add(FAILURES, trial_id=self.ids[number], failed_at=now, **vars(failure))
            case Deployed(number, accuracy):
                self._add(DEPLOYED, trial_id=self.ids[number], validated_at=now, **vars(accuracy))
            case EntryMade(entry):
                if (entry.place, entry.block, entry.widen) not in before.entries:
                    self._add(ENTRIES, search_id=self._search.id, **vars(entry))
            case AssemblyScored(architecture, map50_95, seconds, problem):
                if architecture.key not in before.assembled:
                    add_architecture(connection, architecture)
                    found = {"map50_95": map50_95, "seconds": seconds, "problem": problem}
                    mine = {"search_id": self._search.id, "architecture_key": architecture.key}
                    self._add(ASSEMBLIES, **mine, **found)
            case Calibrated(calibration):
                add_calibration(connection, calibration, now)
            case JobStarted(job):
                self.entries[job.key] = self._add(
                    LEDGER,
                    search_id=self._search.id,
                    trial_id=None if job.trial is None else self.ids[job.trial],
                    kind=job.kind,
                    gpus=job.gpus,
                    cpus=job.cpus,
                    seconds=0.0,
                    started_at=now,
                    job=vars(job),
                    ended=False,
                )
            case JobEnded(key, seconds):
                self._ended.append({"entry": self.entries.pop(key), "spent_s": seconds})
            case BudgetsSet(budgets):
                asked = connection.scalars(select(SEARCHES.c.config).where(SEARCHES.c.id == self._search.id)).one()
                self._set(config=asked | {"budgets": list(budgets)})

    def _add(self, table: Table, **values: Any) -> int:
        """Add a row; the first column of its key."""
        added: Any = self._connection.execute(INSERT[table], values)
        return int(added.inserted_primary_key[0])

    def _set(self, **values: Any) -> None:
        """Change the row of the search."""
        self._connection.execute(MINE, {"search": self._search.id, **values})

    def _update(self) -> None:
        before, after = self._before, self.state
        moved = [
            {"row": self.ids[trial.number], "updated_at": self._now, **values}
            for trial, old in zip_longest(after.trials, before.trials)
            if old is not trial and (values := _columns(trial)) != _columns(old)
        ]
        if moved:
            self._connection.execute(MOVE, moved)
        if after.search_state != before.search_state:
            self._set(state=after.search_state)
        if (progress := progress_of(after)) != progress_of(before):
            self._set(progress=progress)


def event_row(search_id: int, event: Event, now_s: float, now: datetime) -> dict[str, Any]:
    """The columns of an event as it is kept."""
    kind, found = type(event).__name__, document(event)
    return {"search_id": search_id, "at_s": now_s, "kind": kind, "document": found, "recorded_at": now}


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
        **{name: getattr(trial.complexity, name, None) for name in SIZES},
    }


def _drifted(trial: Trial, fingerprint: str) -> bool:
    """Whether a latency of a trial was measured there while the device drifted."""
    known: Sequence[Any] = [one for one in trial.latencies.values() if one.fingerprint == fingerprint]
    return any("drifted" in latency.flags for latency in known)

"""The tables. One canonical JSON document per architecture; everything that is searched by has a column.

Their names begin with `nas_`, since Optuna keeps tables of its own, `trials` among them, in the same database.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import JSON, ForeignKey, Index, MetaData, String, Table, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class SearchRow(Base):
    """A search and, while a process works on it, which one."""

    __tablename__ = "nas_searches"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(20))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    owner: Mapped[str | None] = mapped_column(String(200))
    heartbeat_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class ArchitectureRow(Base):
    """An architecture, once for all searches."""

    __tablename__ = "nas_architectures"

    key: Mapped[str] = mapped_column(String(16), primary_key=True)
    family: Mapped[str] = mapped_column(String(50))
    document: Mapped[dict[str, Any]] = mapped_column(JSON)


# An architecture is tried once, but for repeats with another seed and the stock model whose weights others begin with.
FIRST = text("origin NOT LIKE 'repeat:%' AND origin NOT LIKE 'parent:%'")


class TrialRow(Base):
    """An architecture in a search."""

    __tablename__ = "nas_trials"
    __table_args__ = (
        UniqueConstraint("search_id", "number"),
        Index(None, "search_id", "architecture_key", unique=True, sqlite_where=FIRST, postgresql_where=FIRST),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("nas_searches.id"))
    number: Mapped[int]
    architecture_key: Mapped[str] = mapped_column(ForeignKey("nas_architectures.key"))
    origin: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(String(500))
    params: Mapped[int | None]
    gflops: Mapped[float | None]
    params_fused: Mapped[int | None]
    gflops_fused: Mapped[float | None]
    layers: Mapped[int | None]
    parents: Mapped[list[str] | None] = mapped_column(JSON)
    inherited_share: Mapped[float | None]
    batch: Mapped[int | None]
    scores: Mapped[dict[str, float] | None] = mapped_column(JSON)
    predicted_epoch_s: Mapped[float | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class EpochRow(Base):
    """One epoch of a trial's training."""

    __tablename__ = "nas_epochs"

    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    map50_95: Mapped[float | None]
    map50: Mapped[float | None]
    loss: Mapped[float]
    seconds: Mapped[float]
    recorded_at: Mapped[datetime]


class LatencyRow(Base):
    """A latency measurement; valid for every search with the same classes, image size and target fingerprint."""

    __tablename__ = "nas_latencies"
    __table_args__ = (Index(None, "architecture_key", "classes", "imgsz", "fingerprint"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    architecture_key: Mapped[str] = mapped_column(ForeignKey("nas_architectures.key"))
    classes: Mapped[int]
    imgsz: Mapped[str] = mapped_column(String(20))
    fingerprint: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(100))
    latency_ms: Mapped[float]
    ci_low_ms: Mapped[float]
    ci_high_ms: Mapped[float]
    ratio: Mapped[float]
    reference_ms: Mapped[float]
    median_ms: Mapped[float]
    p90_ms: Mapped[float | None]
    samples: Mapped[int]
    drift: Mapped[float]
    load: Mapped[float | None]
    quality: Mapped[str] = mapped_column(String(20))
    flags: Mapped[list[str]] = mapped_column(JSON)
    conditions: Mapped[dict[str, Any]] = mapped_column(JSON)
    measured_at: Mapped[datetime]


class CalibrationRow(Base):
    """The reference model's time on a target."""

    __tablename__ = "nas_calibrations"

    fingerprint: Mapped[str] = mapped_column(String(16), primary_key=True)
    imgsz: Mapped[str] = mapped_column(String(20), primary_key=True)
    reference_ms: Mapped[float]
    spread: Mapped[float]
    measured_at: Mapped[datetime]


class EntryRow(Base):
    """A block that imitates the parent, as a search made or found it."""

    __tablename__ = "nas_entries"

    search_id: Mapped[int] = mapped_column(ForeignKey("nas_searches.id"), primary_key=True)
    place: Mapped[str] = mapped_column(String(50), primary_key=True)
    block: Mapped[str] = mapped_column(String(100), primary_key=True)
    widen: Mapped[int] = mapped_column(primary_key=True)
    error: Mapped[float | None]
    seconds: Mapped[float]
    problem: Mapped[str] = mapped_column(String(300))


class AssemblyRow(Base):
    """A design that was put together from the library, and what it found."""

    __tablename__ = "nas_assemblies"
    __table_args__ = (UniqueConstraint("search_id", "architecture_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("nas_searches.id"))
    architecture_key: Mapped[str] = mapped_column(ForeignKey("nas_architectures.key"))
    map50_95: Mapped[float | None]
    seconds: Mapped[float]
    problem: Mapped[str] = mapped_column(String(300))


class DeployedRow(Base):
    """Accuracy of a trial's exported file on a target's runtime."""

    __tablename__ = "nas_deployed"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), index=True)
    target: Mapped[str] = mapped_column(String(100))
    fingerprint: Mapped[str] = mapped_column(String(16))
    precision: Mapped[str] = mapped_column(String(20))
    epochs: Mapped[int]
    images: Mapped[int]
    map50_95: Mapped[float]
    map50: Mapped[float]
    torch_map50_95: Mapped[float]
    torch_map50: Mapped[float]
    validated_at: Mapped[datetime]


class FailureRow(Base):
    """A failed attempt."""

    __tablename__ = "nas_failures"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), index=True)
    cause: Mapped[str] = mapped_column(String(20))
    message: Mapped[str] = mapped_column(String(500))
    detail: Mapped[str]
    target: Mapped[str] = mapped_column(String(100))
    failed_at: Mapped[datetime]


class LedgerRow(Base):
    """Time held: a session of the search itself, a training, a measurement. Opened at its start, then kept current."""

    __tablename__ = "nas_ledger"

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("nas_searches.id"), index=True)
    trial_id: Mapped[int | None] = mapped_column(ForeignKey("nas_trials.id"))
    kind: Mapped[str] = mapped_column(String(20))
    gpus: Mapped[float]
    cpus: Mapped[float]
    seconds: Mapped[float]
    started_at: Mapped[datetime]
    job: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    ended: Mapped[bool]


class EventRow(Base):
    """What happened, in order: written with the rows that it changes, in one transaction."""

    __tablename__ = "nas_events"
    __table_args__ = (Index(None, "search_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("nas_searches.id"))
    at_s: Mapped[float]
    kind: Mapped[str] = mapped_column(String(30))
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    recorded_at: Mapped[datetime]


# To write to: what comes and goes is plain rows.
(
    SEARCHES,
    ARCHITECTURES,
    TRIALS,
    EPOCHS,
    LATENCIES,
    CALIBRATIONS,
    DEPLOYED,
    FAILURES,
    LEDGER,
    EVENTS,
    ENTRIES,
    ASSEMBLIES,
) = (
    cast(Table, rows.__table__)
    for rows in (
        *(SearchRow, ArchitectureRow, TrialRow, EpochRow, LatencyRow),
        *(CalibrationRow, DeployedRow, FailureRow, LedgerRow, EventRow),
        *(EntryRow, AssemblyRow),
    )
)

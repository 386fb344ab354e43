"""Latencies and calibrations: measured once, for every search in the database."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import cast

from sqlalchemy import Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from evaluators.evaluation import Latency
from evaluators.latency import Calibration
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from storage.loading import read_latency
from storage.tables import ArchitectureRow, CalibrationRow, LatencyRow

ARCHITECTURES, LATENCIES = cast(Table, ArchitectureRow.__table__), cast(Table, LatencyRow.__table__)


def add_architecture(session: Session, architecture: Architecture) -> None:
    """Keep an architecture, once for all searches."""
    new = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    row = {"key": architecture.key, "family": architecture.family, "document": json.loads(architecture.document)}
    session.execute(new.insert(ARCHITECTURES).on_conflict_do_nothing(), row)


def add_latency(session: Session, architecture: Architecture, classes: int, latency: Latency, now: datetime) -> bool:
    """Keep a session on a target, of an architecture that is kept.

    Returns:
        Whether it says that the device is not as it should be: then what was measured there since its reference was
        last as fast as it should be is taken back. Those sessions say so themselves: they are flagged `drifted`.
    """
    values = asdict(latency) | {"imgsz": str(latency.imgsz), "flags": list(latency.flags)}
    del values["sessions"]
    row = values | {"architecture_key": architecture.key, "classes": classes, "measured_at": now}
    session.execute(insert(LATENCIES), row)
    if "off_calibration" not in latency.flags:
        return False
    measured = select(LatencyRow).where(LatencyRow.fingerprint == latency.fingerprint).order_by(LatencyRow.id.desc())
    for earlier in session.scalars(measured):
        if "off_calibration" not in earlier.flags and "drifted" not in earlier.flags:
            break
        if "drifted" in earlier.flags:
            earlier.quality = "invalid"
    session.flush()
    return True


def find_sessions(
    session: Session, architecture: Architecture, classes: int, imgsz: ImageSize, fingerprint: str
) -> list[Latency]:
    """All measurements of it under the same conditions, oldest first."""
    query = (
        select(LatencyRow)
        .where(LatencyRow.architecture_key == architecture.key, LatencyRow.classes == classes)
        .where(LatencyRow.imgsz == str(imgsz), LatencyRow.fingerprint == fingerprint)
        .order_by(LatencyRow.id)
    )
    return [read_latency(row) for row in session.scalars(query)]


def find_calibration(session: Session, fingerprint: str, imgsz: ImageSize) -> Calibration | None:
    """The reference's time on a target, if it was measured."""
    row = session.get(CalibrationRow, (fingerprint, str(imgsz)))
    return Calibration(row.fingerprint, imgsz, row.reference_ms, row.spread) if row else None


def add_calibration(session: Session, calibration: Calibration, now: datetime) -> None:
    """Record the reference's time on a target. What was measured there is given anew, from its ratios."""
    imgsz = str(calibration.imgsz)
    where = (LatencyRow.fingerprint == calibration.fingerprint) & (LatencyRow.imgsz == imgsz)
    factor = calibration.reference_ms / LatencyRow.reference_ms
    values = asdict(calibration)
    del values["identity"]  # that of a search is in its configuration
    session.merge(CalibrationRow(**values | {"imgsz": imgsz, "measured_at": now}))
    session.execute(
        update(LatencyRow)
        .where(where)
        .values(
            latency_ms=LatencyRow.latency_ms * factor,
            ci_low_ms=LatencyRow.ci_low_ms * factor,
            ci_high_ms=LatencyRow.ci_high_ms * factor,
            reference_ms=calibration.reference_ms,
        )
    )

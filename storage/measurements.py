"""Latencies and calibrations: measured once, for every search in the database."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import takewhile

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from evaluators.evaluation import Latency
from evaluators.latency import Calibration
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from storage.loading import read_latency
from storage.tables import ARCHITECTURES, CALIBRATIONS, LATENCIES, CalibrationRow, LatencyRow

# What is written all the time is made once.
ADD_ARCHITECTURE = {
    dialect.dialect.name: dialect.insert(ARCHITECTURES).on_conflict_do_nothing() for dialect in (sqlite, postgresql)
}
ADD_LATENCY = insert(LATENCIES)


def add_architecture(connection: Connection, architecture: Architecture) -> None:
    """Keep an architecture, once for all searches."""
    row = {"key": architecture.key, "family": architecture.family, "document": json.loads(architecture.document)}
    connection.execute(ADD_ARCHITECTURE[connection.dialect.name], row)


def add_latency(
    connection: Connection, architecture: Architecture, classes: int, latency: Latency, now: datetime
) -> bool:
    """Keep a session on a target, of an architecture that is kept.

    Returns:
        Whether it says that the device is not as it should be: then what was measured there since its reference was
        last as fast as it should be is taken back. Those sessions say so themselves: they are flagged `drifted`. A
        shared device is faster and slower all the time, which ratios correct for: nothing there is taken back.
    """
    row = vars(latency) | {"imgsz": str(latency.imgsz), "flags": list(latency.flags)}
    del row["sessions"]
    row |= {"architecture_key": architecture.key, "classes": classes, "measured_at": now}
    connection.execute(ADD_LATENCY, row)
    if "off_calibration" not in latency.flags or not latency.conditions.get("exclusive", True):
        return False
    measured = select(LatencyRow.id, LatencyRow.flags).where(LatencyRow.fingerprint == latency.fingerprint)
    newest_first = connection.execute(measured.order_by(LatencyRow.id.desc())).all()
    since = takewhile(lambda one: "off_calibration" in one.flags or "drifted" in one.flags, newest_first)
    drifted = [one.id for one in since if "drifted" in one.flags]
    connection.execute(update(LATENCIES).where(LATENCIES.c.id.in_(drifted)).values(quality="invalid"))
    return True


def find_sessions(
    connection: Connection, architecture: Architecture, classes: int, imgsz: ImageSize, fingerprint: str
) -> list[Latency]:
    """All measurements of it under the same conditions, oldest first."""
    query = (
        select(LatencyRow)
        .where(LatencyRow.architecture_key == architecture.key, LatencyRow.classes == classes)
        .where(LatencyRow.imgsz == str(imgsz), LatencyRow.fingerprint == fingerprint)
        .order_by(LatencyRow.id)
    )
    return [read_latency(row) for row in connection.execute(query)]


def find_calibration(connection: Connection, fingerprint: str, imgsz: ImageSize) -> Calibration | None:
    """The reference's time on a target, if it was measured."""
    where = (CalibrationRow.fingerprint == fingerprint) & (CalibrationRow.imgsz == str(imgsz))
    row = connection.execute(select(CalibrationRow).where(where)).first()
    return Calibration(row.fingerprint, imgsz, row.reference_ms, row.spread) if row else None


def add_calibration(connection: Connection, calibration: Calibration, now: datetime) -> None:
    """Record the reference's time on a target. What was measured there is given anew, from its ratios."""
    imgsz = str(calibration.imgsz)
    where = (LatencyRow.fingerprint == calibration.fingerprint) & (LatencyRow.imgsz == imgsz)
    factor = calibration.reference_ms / LatencyRow.reference_ms
    row = vars(calibration) | {"imgsz": imgsz, "measured_at": now}
    del row["identity"]  # that of a search is in its configuration
    new = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(CALIBRATIONS).values(row)
    connection.execute(new.on_conflict_do_update(index_elements=["fingerprint", "imgsz"], set_=row))
    connection.execute(
        update(LATENCIES)
        .where(where)
        .values(
            latency_ms=LatencyRow.latency_ms * factor,
            ci_low_ms=LatencyRow.ci_low_ms * factor,
            ci_high_ms=LatencyRow.ci_high_ms * factor,
            reference_ms=calibration.reference_ms,
        )
    )

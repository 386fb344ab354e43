"""A search as its rows tell it: equal to what its events come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Connection, Row, bindparam, func, select

from evaluators.evaluation import (
    AssembledScore,
    Complexity,
    DeployedAccuracy,
    Epoch,
    Failure,
    FirstWeights,
    Latency,
    LibraryEntry,
    combine,
)
from evaluators.latency import Calibration
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from storage.state import State
from storage.tables import (
    LATENCIES,
    ArchitectureRow,
    AssemblyRow,
    CalibrationRow,
    DeployedRow,
    EntryRow,
    EpochRow,
    FailureRow,
    LatencyRow,
    LedgerRow,
    SearchRow,
    TrialRow,
)
from storage.trial import Device, Job, Search, Spent, Trial, TrialState

_SESSIONS = select(LATENCIES).where(LatencyRow.classes == bindparam("classes")).order_by(LatencyRow.id)
OF_ONE = _SESSIONS.where(LatencyRow.architecture_key == bindparam("key"))
OF_ALL = _SESSIONS.where(
    LatencyRow.architecture_key.in_(select(TrialRow.architecture_key).where(TrialRow.search_id == bindparam("search")))
)


def target_names(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the targets by fingerprint: one device, set up in one way, may have several."""
    names: dict[str, list[str]] = {}
    for target in config.get("targets", ()):
        names.setdefault(target["fingerprint"], []).append(target["name"])
    return names


def size_of(architecture: Architecture, config: Mapping[str, Any]) -> str:
    """Size of the images that an architecture of the search is measured at, as rows have it."""
    return str(architecture.imgsz or config["imgsz"])


def load_state(connection: Connection, search: Search) -> State:
    """How a search stands."""
    row = connection.execute(select(SearchRow).where(SearchRow.id == search.id)).one()
    progress = row.progress or {}
    running = connection.scalars(select(LedgerRow.job).where(LedgerRow.search_id == search.id, ~LedgerRow.ended))
    jobs = [Job(**cast(Any, {**job, "content": tuple(job.get("content", ()))})) for job in running if job]
    where = CalibrationRow.fingerprint.in_(target_names(row.config))
    calibrations = [
        Calibration(found.fingerprint, ImageSize.parse(found.imgsz), found.reference_ms, found.spread)
        for found in connection.execute(select(CalibrationRow).where(where))
    ]
    return State(
        search_state=cast(Any, row.state),
        budgets=tuple(row.config.get("budgets", ())),
        phase=progress.get("phase", "preparing"),
        prepared=progress.get("prepared", False),
        exhausted=progress.get("exhausted", False),
        trials=tuple(load_trials(connection, search)),
        entries=load_entries(connection, search),
        assemblies=tuple(load_assemblies(connection, search)),
        jobs={job.key: job for job in jobs},
        calibrations={(found.fingerprint, found.imgsz): found for found in calibrations},
        devices={name: Device(**device) for name, device in progress.get("devices", {}).items()},
        attempts=progress.get("attempts", {}),
        troubles=progress.get("troubles", 0),
        spent=spent(connection, search, LedgerRow.ended),
    )


def progress_of(state: State) -> dict[str, Any]:
    """What of a state has no row of its own."""
    return {
        "phase": state.phase,
        "prepared": state.prepared,
        "exhausted": state.exhausted,
        "devices": {name: vars(device) for name, device in state.devices.items()},
        "attempts": dict(state.attempts),
        "troubles": state.troubles,
    }


def spent(connection: Connection, search: Search, *which: Any) -> Spent:
    """The sum of the ledger, or of some of its entries."""
    gpu, cpu = func.sum(LedgerRow.gpus * LedgerRow.seconds), func.sum(LedgerRow.cpus * LedgerRow.seconds)
    wall = func.sum(LedgerRow.seconds).filter(LedgerRow.kind == "session")
    row = connection.execute(select(wall, gpu, cpu).where(LedgerRow.search_id == search.id, *which)).one()
    return Spent(*(float(value or 0.0) for value in row))


def load_trials(connection: Connection, search: Search) -> list[Trial]:
    """All trials of a search, in order, with everything measured of them."""
    mine = select(TrialRow.id).where(TrialRow.search_id == search.id)
    rows = connection.execute(
        select(TrialRow, ArchitectureRow.document)
        .join(ArchitectureRow, TrialRow.architecture_key == ArchitectureRow.key)
        .where(TrialRow.search_id == search.id)
        .order_by(TrialRow.number)
    ).all()
    if not rows:
        return []
    architectures = {row.id: Architecture.from_document(row.document) for row in rows}
    epochs: dict[int, list[Epoch]] = {}
    for e in connection.execute(select(EpochRow).where(EpochRow.trial_id.in_(mine)).order_by(EpochRow.epoch)):
        epochs.setdefault(e.trial_id, []).append(Epoch(e.epoch, e.map50_95, e.map50, e.loss, e.seconds))
    failures: dict[int, list[Failure]] = {}
    for f in connection.execute(select(FailureRow).where(FailureRow.trial_id.in_(mine)).order_by(FailureRow.id)):
        failures.setdefault(f.trial_id, []).append(Failure(cast(Any, f.cause), f.message, f.detail, f.target))
    deployed: dict[int, dict[str, DeployedAccuracy]] = {}
    for d in connection.execute(select(DeployedRow).where(DeployedRow.trial_id.in_(mine)).order_by(DeployedRow.id)):
        deployed.setdefault(d.trial_id, {})[d.target] = _deployed(d)
    scored = select(AssemblyRow.architecture_key, AssemblyRow.map50_95).where(AssemblyRow.search_id == search.id)
    assembled = {row.architecture_key: row.map50_95 for row in connection.execute(scored)}
    latencies = _latencies(connection, search, {one.key: one for one in architectures.values()}.values())
    return [
        Trial(
            row.number,
            architectures[row.id],
            row.origin,
            cast(TrialState, row.state),
            row.reason,
            _complexity(row),
            _usable(latencies.get(row.architecture_key, {}), row.state),
            tuple(epochs.get(row.id, ())),
            tuple(failures.get(row.id, ())),
            deployed.get(row.id, {}),
            None if row.parents is None else FirstWeights(tuple(row.parents), row.inherited_share or 0.0),
            row.batch,
            row.scores or {},
            row.predicted_epoch_s,
            assembled.get(row.architecture_key),
        )
        for row in rows
    ]


def load_entries(connection: Connection, search: Search) -> dict[tuple[str, str, int], LibraryEntry]:
    """What the library of a search has, in the order of its places."""
    rows = connection.execute(select(EntryRow).where(EntryRow.search_id == search.id))
    found = [LibraryEntry(row.place, row.block, row.widen, row.error, row.seconds, row.problem) for row in rows]
    return {(entry.place, entry.block, entry.widen): entry for entry in found}


def load_assemblies(connection: Connection, search: Search) -> list[AssembledScore]:
    """What was put together from the library of a search, in order."""
    rows = connection.execute(
        select(AssemblyRow, ArchitectureRow.document)
        .join(ArchitectureRow, AssemblyRow.architecture_key == ArchitectureRow.key)
        .where(AssemblyRow.search_id == search.id)
        .order_by(AssemblyRow.id)
    )
    return [
        AssembledScore(Architecture.from_document(row.document), row.map50_95, row.seconds, row.problem) for row in rows
    ]


def known_latencies(
    connection: Connection, search: Search, architecture: Architecture, fingerprints: Iterable[str]
) -> dict[str, Latency | None]:
    """What all sessions of an architecture come to, under each name of these targets; None where none may be used."""
    names, found = target_names(search.config), _latencies(connection, search, [architecture])
    known = found.get(architecture.key, {})
    return {name: known.get(name) for fingerprint in fingerprints for name in names[fingerprint]}


def _latencies(
    connection: Connection, search: Search, architectures: Iterable[Architecture]
) -> dict[str, dict[str, Latency]]:
    """By architecture, then by name of the target."""
    names = target_names(search.config)
    sizes = {architecture.key: size_of(architecture, search.config) for architecture in architectures}
    query = OF_ONE if len(sizes) == 1 else OF_ALL
    given = {"key": next(iter(sizes), ""), "search": search.id, "classes": len(search.config["dataset"]["names"])}
    sessions: dict[tuple[str, str], list[Latency]] = {}
    for row in connection.execute(query, given):
        # There is none of a trial that was added since.
        if row.fingerprint in names and row.imgsz == sizes.get(row.architecture_key):
            sessions.setdefault((row.architecture_key, row.fingerprint), []).append(read_latency(row))
    found: dict[str, dict[str, Latency]] = {}
    for (key, fingerprint), several in sessions.items():
        if latency := combine(several):
            for name in names[fingerprint]:
                found.setdefault(key, {})[name] = replace(latency, target=name)
    return found


def _usable(latencies: dict[str, Latency], state: str) -> dict[str, Latency]:
    """What is still to be measured counts as measured where that was done well."""
    if state != "new":
        return latencies
    return {name: latency for name, latency in latencies.items() if latency.quality == "good"}


def _complexity(row: Row[Any]) -> Complexity | None:
    values = (row.params, row.gflops, row.params_fused, row.gflops_fused, row.layers)
    if row.params is None:
        return None
    return Complexity(*cast(tuple[int, float, int, float, int], values))


def read_latency(row: Row[Any]) -> Latency:
    """One session."""
    return Latency(
        target=row.target,
        fingerprint=row.fingerprint,
        imgsz=ImageSize.parse(row.imgsz),
        latency_ms=row.latency_ms,
        ci_low_ms=row.ci_low_ms,
        ci_high_ms=row.ci_high_ms,
        ratio=row.ratio,
        reference_ms=row.reference_ms,
        median_ms=row.median_ms,
        p90_ms=row.p90_ms,
        samples=row.samples,
        drift=row.drift,
        load=row.load,
        quality=cast(Any, row.quality),
        flags=tuple(row.flags),
        conditions=row.conditions,
    )


def _deployed(row: Row[Any]) -> DeployedAccuracy:
    return DeployedAccuracy(
        target=row.target,
        fingerprint=row.fingerprint,
        precision=row.precision,
        epochs=row.epochs,
        images=row.images,
        map50_95=row.map50_95,
        map50=row.map50,
        torch_map50_95=row.torch_map50_95,
        torch_map50=row.torch_map50,
    )

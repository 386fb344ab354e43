"""The database: one class, one transaction per method, so that a process may die between any two of them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import platformdirs
import psutil
from sqlalchemy import Connection, create_engine, event, func, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from evaluators.evaluation import Complexity, DeployedAccuracy, Epoch, Failure, FirstWeights, Latency, combine
from evaluators.latency import Calibration
from evaluators.location import locate
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.image_size import ImageSize
from search_spaces.names import unknown
from storage.tables import (
    ArchitectureRow,
    CalibrationRow,
    DeployedRow,
    EpochRow,
    FailureRow,
    LatencyRow,
    LedgerRow,
    SearchRow,
    TrialRow,
)
from storage.trial import Search, Spent, Trial, TrialState

if TYPE_CHECKING:
    from evaluators.location import Location

REVISION = "0006"  # of the tables: the newest file in migrations/versions
OLDEST = "0002"  # that can be brought up to date; designs in older ones have another form
LEASE = timedelta(seconds=60)  # after so long without a heartbeat another host's process counts as dead


class StorageError(UserError, RuntimeError):
    """The database cannot be used; one line that says what to do."""


class SearchNotFoundError(StorageError):
    """There is no search of that name."""


class SearchExistsError(StorageError):
    """The name is taken."""


class SearchBusyError(StorageError):
    """Another process works on the search."""


def default_url() -> str:
    """`NAS_YOLO_STORAGE`, or a SQLite file in the user's data folder (made if need be)."""
    if given := os.environ.get("NAS_YOLO_STORAGE"):
        return given
    folder = Path(platformdirs.user_data_dir("nas-yolo"))
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'nas-yolo.db'}"


class Repository:
    """All searches of one database.

    Args:
        url: SQLAlchemy's, e.g. `sqlite:///search.db` or `postgresql+psycopg://user@host/base`.

    Raises:
        StorageError: If it cannot be opened or written, or a newer nas-yolo wrote it.
    """

    def __init__(self, url: str):
        self.url = url
        try:
            engine = create_engine(url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise StorageError(
                f"storage {url!r} is not usable ({error}); give e.g. sqlite:///search.db, "
                "or postgresql+psycopg://user@host/base with pip install 'nas-yolo[postgres]'"
            ) from error
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
        self._engine = engine
        self._sessions = sessionmaker(engine, expire_on_commit=False)
        try:
            self._migrate()
        except StorageError:
            self.close()
            raise
        except DBAPIError as error:
            self.close()
            raise StorageError(
                f"storage {self.shown_url} cannot be opened or written ({error.orig}); "
                "check the path and its permissions, or choose another with --storage"
            ) from error

    @property
    def shown_url(self) -> str:
        """The URL without its password."""
        return make_url(self.url).render_as_string(hide_password=True)

    @property
    def folder(self) -> Path:
        """Where files that belong to this database are kept: beside a SQLite file, else in the user's data folder."""
        url = make_url(self.url)
        if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
            return Path(url.database).resolve().parent
        return Path(platformdirs.user_data_dir("nas-yolo"))

    def run_folder(self, search: Search) -> Path:
        """Where the files of a search are kept; a later search of the same name in a new database has another one."""
        return self.folder / "runs" / f"{search.name}-{search.created_at:%Y%m%d-%H%M%S}"

    def trial_folder(self, search: Search, number: int) -> Path:
        """Where the training of a trial writes on this machine."""
        return self.run_folder(search) / "trials" / f"{number:05d}"

    def checkpoint(self, search: Search, number: int) -> Location:
        """Where the training of a trial is kept between rungs: in its folder, or where the search was told to."""
        folder, artifacts = self.trial_folder(search, number), search.config.get("artifacts")
        if artifacts is not None:
            return locate(artifacts).joinpath(*folder.relative_to(self.folder / "runs").parts, "checkpoint.pt")
        return folder / "checkpoint.pt"

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    # Searches -------------------------------------------------------------------------------------------------------

    def create_search(self, name: str, config: dict[str, Any]) -> Search:
        """Add a search.

        Raises:
            SearchExistsError: If the name is taken.
        """
        row = SearchRow(name=name, created_at=_now(), state="running", config=config)
        try:
            with self._transaction() as session:
                session.add(row)
        except IntegrityError as error:
            raise SearchExistsError(
                f"a search named {name!r} exists; continue it with nas-yolo resume {name}, or choose another --name"
            ) from error
        return _search(row)

    def search(self, name: str) -> Search:
        """The search of that name.

        Raises:
            SearchNotFoundError: If there is none.
        """
        with self._transaction() as session:
            row = session.scalar(select(SearchRow).where(SearchRow.name == name))
            if row is None:
                names = session.scalars(select(SearchRow.name)).all()
                known = unknown("search", name, names) if names else f"unknown search {name!r}; there is none yet"
                raise SearchNotFoundError(f"{known} (in {self.shown_url}; see nas-yolo list)")
            return _search(row)

    def searches(self) -> list[Search]:
        """All, oldest first."""
        with self._transaction() as session:
            return [_search(row) for row in session.scalars(select(SearchRow).order_by(SearchRow.id))]

    def set_state(self, search: Search, state: Literal["running", "stopped", "done"]) -> None:
        """Record how a search stands."""
        with self._transaction() as session:
            session.execute(update(SearchRow).where(SearchRow.id == search.id).values(state=state))

    def set_config(self, search: Search, config: dict[str, Any]) -> Search:
        """Replace what a search was asked for: its budget, as a rule."""
        with self._transaction() as session:
            row = session.get_one(SearchRow, search.id)
            row.config = config
        return _search(row)

    @contextmanager
    def claimed(self, search: Search) -> Iterator[None]:
        """Hold a search for this process; renew with `heartbeat`.

        Raises:
            SearchBusyError: If another living process holds it.
        """
        me = json.dumps([platform.node(), os.getpid(), psutil.Process().create_time()])
        with self._transaction() as session:
            row = session.get_one(SearchRow, search.id)
            owner, beat = row.owner, row.heartbeat_at
            if owner and _lives(owner, beat):
                host, pid, _ = json.loads(owner)
                raise SearchBusyError(
                    f"search {search.name!r} is being worked on by process {pid} on {host}; "
                    f"watch it with nas-yolo status {search.name}"
                )
            taken = session.execute(
                update(SearchRow)
                .where(
                    SearchRow.id == search.id, SearchRow.owner.is_(owner) if owner is None else SearchRow.owner == owner
                )
                .values(owner=me, heartbeat_at=_now())
            )
            if cast(Any, taken).rowcount != 1:
                raise SearchBusyError(f"search {search.name!r} was just taken by another process")
        try:
            yield
        finally:
            with self._transaction() as session:
                mine = (SearchRow.id == search.id) & (SearchRow.owner == me)
                session.execute(update(SearchRow).where(mine).values(owner=None, heartbeat_at=None))

    def is_claimed(self, search: Search) -> bool:
        """Whether a living process works on it."""
        with self._transaction() as session:
            row = session.get_one(SearchRow, search.id)
            return bool(row.owner) and _lives(str(row.owner), row.heartbeat_at)

    def heartbeat(self, search: Search) -> None:
        """Say that the process that holds the search is alive."""
        with self._transaction() as session:
            session.execute(update(SearchRow).where(SearchRow.id == search.id).values(heartbeat_at=_now()))

    # Trials ---------------------------------------------------------------------------------------------------------

    def add_trial(self, search: Search, number: int, architecture: Architecture, origin: str) -> Trial:
        """Add a trial in state `new`."""
        now = _now()
        row = TrialRow(
            search_id=search.id,
            number=number,
            architecture_key=architecture.key,
            origin=origin,
            state="new",
            reason="",
            created_at=now,
            updated_at=now,
        )
        with self._transaction() as session:
            self._add_architecture(session, architecture)
            session.add(row)
        return Trial(row.id, number, architecture, origin, "new", "", None, {}, (), ())

    def set_trial_state(self, trial: Trial, state: TrialState, reason: str = "") -> None:
        """Move a trial on."""
        with self._transaction() as session:
            values = {"state": state, "reason": reason[:500], "updated_at": _now()}
            session.execute(update(TrialRow).where(TrialRow.id == trial.id).values(values))

    def set_complexity(self, trial: Trial, complexity: Complexity) -> None:
        """Record a trial's size."""
        with self._transaction() as session:
            session.execute(update(TrialRow).where(TrialRow.id == trial.id).values(asdict(complexity)))

    def set_weights(self, trial: Trial, weights: FirstWeights) -> None:
        """Record what a training began with."""
        with self._transaction() as session:
            values = {"parents": list(weights.parents), "inherited_share": weights.share}
            session.execute(update(TrialRow).where(TrialRow.id == trial.id).values(values))

    def set_batch(self, trial: Trial, batch: int) -> None:
        """Record that a trial is trained with another batch size than the search's."""
        with self._transaction() as session:
            session.execute(update(TrialRow).where(TrialRow.id == trial.id).values(batch=batch))

    def set_scores(self, trial: Trial, scores: dict[str, float]) -> None:
        """Record a trial's zero-cost scores."""
        with self._transaction() as session:
            session.execute(update(TrialRow).where(TrialRow.id == trial.id).values(scores=scores))

    def add_epoch(self, trial: Trial, epoch: Epoch) -> None:
        """Record an epoch. An epoch that is there already stays: it cannot be paid twice."""
        with self._transaction() as session:
            if session.get(EpochRow, (trial.id, epoch.epoch)) is None:
                session.add(EpochRow(trial_id=trial.id, recorded_at=_now(), **asdict(epoch)))

    def add_failure(self, trial: Trial, failure: Failure) -> None:
        """Record a failed attempt."""
        with self._transaction() as session:
            session.add(FailureRow(trial_id=trial.id, failed_at=_now(), **asdict(failure)))

    def trials(self, search: Search) -> list[Trial]:
        """All trials of a search, in order, with everything measured of them."""
        targets: dict[str, list[str]] = {}  # one device, set up in one way, may have several names
        for target in search.config["targets"]:
            targets.setdefault(target["fingerprint"], []).append(target["name"])
        classes = len(search.config["dataset"]["names"])
        mine = select(TrialRow.id).where(TrialRow.search_id == search.id)
        with self._transaction() as session:
            rows = session.execute(
                select(TrialRow, ArchitectureRow.document)
                .join(ArchitectureRow, TrialRow.architecture_key == ArchitectureRow.key)
                .where(TrialRow.search_id == search.id)
                .order_by(TrialRow.number)
            ).all()
            architectures = {row.id: Architecture.from_document(document) for row, document in rows}
            sizes = {a.key: str(a.imgsz or search.config["imgsz"]) for a in architectures.values()}
            epochs: dict[int, list[Epoch]] = {}
            for e in session.scalars(select(EpochRow).where(EpochRow.trial_id.in_(mine)).order_by(EpochRow.epoch)):
                epoch = Epoch(e.epoch, e.map50_95, e.map50, e.loss, e.seconds)
                epochs.setdefault(e.trial_id, []).append(epoch)
            failures: dict[int, list[Failure]] = {}
            for f in session.scalars(select(FailureRow).where(FailureRow.trial_id.in_(mine)).order_by(FailureRow.id)):
                failures.setdefault(f.trial_id, []).append(Failure(cast(Any, f.cause), f.message, f.detail, f.target))
            deployed: dict[int, dict[str, DeployedAccuracy]] = {}
            for d in session.scalars(
                select(DeployedRow).where(DeployedRow.trial_id.in_(mine)).order_by(DeployedRow.id)
            ):
                deployed.setdefault(d.trial_id, {})[d.target] = _deployed(d)
            sessions: dict[tuple[str, str], list[Latency]] = {}
            keys = select(TrialRow.architecture_key).where(TrialRow.search_id == search.id)
            measured = (
                select(LatencyRow)
                .where(LatencyRow.architecture_key.in_(keys), LatencyRow.classes == classes)
                .where(LatencyRow.fingerprint.in_(targets))
                .order_by(LatencyRow.id)
            )
            for lat in session.scalars(measured):
                if lat.imgsz == sizes.get(lat.architecture_key):  # of a trial that was added since, there is none
                    sessions.setdefault((lat.architecture_key, lat.fingerprint), []).append(_latency(lat))
            latencies: dict[str, dict[str, Latency]] = {}
            for (key, fingerprint), found in sessions.items():
                if latency := combine(found):
                    for name in targets[fingerprint]:
                        latencies.setdefault(key, {})[name] = replace(latency, target=name)
            return [
                Trial(
                    row.id,
                    row.number,
                    architectures[row.id],
                    row.origin,
                    cast(TrialState, row.state),
                    row.reason,
                    _complexity(row),
                    latencies.get(row.architecture_key, {}),
                    tuple(epochs.get(row.id, ())),
                    tuple(failures.get(row.id, ())),
                    deployed.get(row.id, {}),
                    None if row.parents is None else FirstWeights(tuple(row.parents), row.inherited_share or 0.0),
                    row.batch,
                    row.scores or {},
                )
                for row, _ in rows
            ]

    # Latency --------------------------------------------------------------------------------------------------------

    def add_latency(self, architecture: Architecture, classes: int, latency: Latency) -> None:
        """Record a measurement, for this and every later search."""
        values = asdict(latency) | {"imgsz": str(latency.imgsz), "flags": list(latency.flags)}
        del values["sessions"]
        with self._transaction() as session:
            self._add_architecture(session, architecture)
            row = LatencyRow(architecture_key=architecture.key, classes=classes, measured_at=_now(), **values)
            session.add(row)

    def find_latency(
        self, architecture: Architecture, classes: int, imgsz: ImageSize, fingerprint: str
    ) -> Latency | None:
        """What any search measured of it under the same conditions; None without a good session."""
        good = [one for one in self.sessions(architecture, classes, imgsz, fingerprint) if one.quality == "good"]
        return combine(good)

    def sessions(self, architecture: Architecture, classes: int, imgsz: ImageSize, fingerprint: str) -> list[Latency]:
        """All measurements of it under the same conditions, oldest first."""
        query = (
            select(LatencyRow)
            .where(LatencyRow.architecture_key == architecture.key, LatencyRow.classes == classes)
            .where(LatencyRow.imgsz == str(imgsz), LatencyRow.fingerprint == fingerprint)
            .order_by(LatencyRow.id)
        )
        with self._transaction() as session:
            return [_latency(row) for row in session.scalars(query)]

    def invalidate_latencies(self, fingerprint: str) -> None:
        """Take back what was measured on a target since its reference was last as fast as it should be.

        Those sessions say so themselves: they are flagged `drifted`.
        """
        with self._transaction() as session:
            measured = select(LatencyRow).where(LatencyRow.fingerprint == fingerprint).order_by(LatencyRow.id.desc())
            for row in session.scalars(measured):
                if "off_calibration" not in row.flags and "drifted" not in row.flags:
                    break
                if "drifted" in row.flags:
                    row.quality = "invalid"

    def calibration(self, fingerprint: str, imgsz: ImageSize) -> Calibration | None:
        """The reference's time on a target, if it was measured."""
        with self._transaction() as session:
            row = session.get(CalibrationRow, (fingerprint, str(imgsz)))
            return Calibration(row.fingerprint, imgsz, row.reference_ms, row.spread) if row else None

    def add_calibration(self, calibration: Calibration) -> None:
        """Record the reference's time on a target. What was measured there is given anew, from its ratios."""
        imgsz = str(calibration.imgsz)
        where = (LatencyRow.fingerprint == calibration.fingerprint) & (LatencyRow.imgsz == imgsz)
        now = calibration.reference_ms / LatencyRow.reference_ms
        values = asdict(calibration)
        del values["identity"]  # that of a search is in its configuration
        with self._transaction() as session:
            session.merge(CalibrationRow(**values | {"imgsz": imgsz, "measured_at": _now()}))
            session.execute(
                update(LatencyRow)
                .where(where)
                .values(
                    latency_ms=LatencyRow.latency_ms * now,
                    ci_low_ms=LatencyRow.ci_low_ms * now,
                    ci_high_ms=LatencyRow.ci_high_ms * now,
                    reference_ms=calibration.reference_ms,
                )
            )

    # Deployment -----------------------------------------------------------------------------------------------------

    def add_deployed(self, trial: Trial, accuracy: DeployedAccuracy) -> None:
        """Record the accuracy of a trial's exported file."""
        with self._transaction() as session:
            session.add(DeployedRow(trial_id=trial.id, validated_at=_now(), **asdict(accuracy)))

    # Budget ---------------------------------------------------------------------------------------------------------

    def open_entry(self, search: Search, trial: Trial | None, kind: str, gpus: float = 0.0, cpus: float = 0.0) -> int:
        """Open a ledger entry of 0 seconds; its number."""
        row = LedgerRow(
            search_id=search.id,
            trial_id=trial.id if trial else None,
            kind=kind,
            gpus=gpus,
            cpus=cpus,
            seconds=0.0,
            started_at=_now(),
        )
        with self._transaction() as session:
            session.add(row)
        return row.id

    def charge(self, seconds: Mapping[int, float]) -> None:
        """Set what each of these entries has cost so far, seconds, all in one transaction."""
        if seconds:
            with self._transaction() as session:
                session.execute(update(LedgerRow), [{"id": entry, "seconds": cost} for entry, cost in seconds.items()])

    def spent(self, search: Search) -> Spent:
        """The sum of the ledger."""
        gpu, cpu = func.sum(LedgerRow.gpus * LedgerRow.seconds), func.sum(LedgerRow.cpus * LedgerRow.seconds)
        wall = func.sum(LedgerRow.seconds).filter(LedgerRow.kind == "session")
        with self._transaction() as session:
            row = session.execute(select(wall, gpu, cpu).where(LedgerRow.search_id == search.id)).one()
            return Spent(*(float(value or 0.0) for value in row))

    # Inside ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        try:
            with self._sessions.begin() as session:
                yield session
        except OperationalError as error:
            raise StorageError(
                f"storage {self.shown_url} does not work any more ({error.orig}); nothing that it held is lost, "
                "continue with nas-yolo resume"
            ) from error

    @staticmethod
    def _add_architecture(session: Session, architecture: Architecture) -> None:
        if session.get(ArchitectureRow, architecture.key) is None:
            document = json.loads(architecture.document)
            session.add(ArchitectureRow(key=architecture.key, family=architecture.family, document=document))
            session.flush()

    def _migrate(self) -> None:
        """Create the tables, or bring older ones up to date."""
        with self._engine.connect() as connection:
            known = connection.dialect.has_table(connection, "nas_yolo_version")
            found = connection.scalar(text("SELECT version_num FROM nas_yolo_version")) if known else None
        if found == REVISION:
            return
        if found is not None and found > REVISION:
            raise StorageError(
                f"storage {self.shown_url} was written by a newer nas-yolo (schema {found}, this one's is {REVISION}); "
                "upgrade nas-yolo or choose another --storage"
            )
        if found is not None and found < OLDEST:
            raise StorageError(
                f"storage {self.shown_url} was written by an early nas-yolo (schema {found}) whose designs this one "
                "cannot read; move it away, it stays as it is, or choose another --storage"
            )
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._engine.connect() as connection, _sqlite_without_foreign_keys(connection), connection.begin():
            if connection.dialect.name == "sqlite":
                connection.execute(text("BEGIN IMMEDIATE"))  # two processes may come here at once
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")  # readers and one writer at once
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA foreign_keys=ON")


@contextmanager
def _sqlite_without_foreign_keys(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by putting another in its place; the rows that refer to it must not stop that."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.execute(text("PRAGMA foreign_keys=OFF"))  # here: within a transaction it would do nothing
    connection.commit()
    try:
        yield
    finally:
        connection.execute(text("PRAGMA foreign_keys=ON"))
        connection.commit()


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _lives(owner: str, heartbeat_at: datetime | None) -> bool:
    host, pid, started = json.loads(owner)
    if host == platform.node():
        try:
            process = psutil.Process(pid)
            return process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
    return heartbeat_at is not None and _now() - heartbeat_at < LEASE


def _search(row: SearchRow) -> Search:
    return Search(row.id, row.name, row.created_at, cast(Any, row.state), row.config)


def _complexity(row: TrialRow) -> Complexity | None:
    values = (row.params, row.gflops, row.params_fused, row.gflops_fused, row.layers)
    if row.params is None:
        return None
    return Complexity(*cast(tuple[int, float, int, float, int], values))


def _latency(row: LatencyRow) -> Latency:
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


def _deployed(row: DeployedRow) -> DeployedAccuracy:
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

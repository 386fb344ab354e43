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
from search_spaces.registry import unknown
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

REVISION = "0007"  # of the tables: the newest file in migrations/versions
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

    # What happened ---------------------------------------------------------------------------------------------------

    def journal(self, search: Search, claim: Claim) -> Journal:
        """Where its holder writes down what happens in a search."""
        return Journal(search, partial(self._fenced, claim), _now)

    def state(self, search: Search) -> State:
        """How a search stands."""
        with self._transaction() as session:
            return load_state(session, search)

    def trials(self, search: Search) -> list[Trial]:
        """All trials of a search, in order, with everything measured of them."""
        with self._transaction() as session:
            return load_trials(session, search)

    def events(self, search: Search, after: int = 0) -> list[Recorded]:
        """What happened in a search since an event, oldest first; all by default."""
        query = select(EventRow).where(EventRow.search_id == search.id, EventRow.id > after).order_by(EventRow.id)
        with self._transaction() as session:
            return [
                Recorded(row.id, row.at_s, row.recorded_at, from_document(row.kind, row.document))
                for row in session.scalars(query)
            ]

    def spent(self, search: Search) -> Spent:
        """The sum of the ledger."""
        with self._transaction() as session:
            return spent(session, search)

    def add_deployed(self, search: Search, number: int, accuracy: DeployedAccuracy) -> None:
        """Record the accuracy of a trial's exported file, which anyone may measure: no decision depends on it."""
        with self._transaction() as session:
            where = (TrialRow.search_id == search.id) & (TrialRow.number == number)
            trial = session.scalars(select(TrialRow.id).where(where)).one()
            session.add(DeployedRow(trial_id=trial, validated_at=_now(), **asdict(accuracy)))
            session.add(event_row(search.id, Deployed(number, accuracy), spent(session, search).wall_seconds, _now()))

    # Measurements, of all searches ------------------------------------------------------------------------------------

    def add_latency(self, architecture: Architecture, classes: int, latency: Latency) -> None:
        """Record a measurement, for this and every later search."""
        with self._transaction() as session:
            add_latency(session, architecture, classes, latency, _now())

    def find_latency(
        self, architecture: Architecture, classes: int, imgsz: ImageSize, fingerprint: str
    ) -> Latency | None:
        """What any search measured of it under the same conditions; None without a good session."""
        good = [one for one in self.sessions(architecture, classes, imgsz, fingerprint) if one.quality == "good"]
        return combine(good)

    def sessions(self, architecture: Architecture, classes: int, imgsz: ImageSize, fingerprint: str) -> list[Latency]:
        """All measurements of it under the same conditions, oldest first."""
        with self._transaction() as session:
            return find_sessions(session, architecture, classes, imgsz, fingerprint)

    def calibration(self, fingerprint: str, imgsz: ImageSize) -> Calibration | None:
        """The reference's time on a target, if it was measured."""
        with self._transaction() as session:
            return find_calibration(session, fingerprint, imgsz)

    def add_calibration(self, calibration: Calibration) -> None:
        """Record the reference's time on a target. What was measured there is given anew, from its ratios."""
        with self._transaction() as session:
            add_calibration(session, calibration, _now())

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

"""The database: one class, one transaction per method, so that a process may die between any two of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import platformdirs
from sqlalchemy import URL, Connection, Row, create_engine, event, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError

from evaluators.evaluation import DeployedAccuracy, Latency, combine
from evaluators.latency import Calibration
from evaluators.location import locate
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.names import unknown
from storage.errors import (
    SearchExistsError,
    SearchNotFoundError,
    StorageAwayError,
    StorageError,
    broken,
    may_pass,
    reason,
)
from storage.events import BudgetsSet, Calibrated, Deployed, Event, Recorded, from_document
from storage.journal import Journal, event_row
from storage.lease import LEASE, Claim, fence, is_held, release, renewing, take
from storage.loading import load_state, load_trials, spent
from storage.measurements import add_architecture, add_calibration, add_latency, find_calibration, find_sessions
from storage.state import State
from storage.tables import DEPLOYED, EVENTS, SEARCHES, EventRow, SearchRow, TrialRow
from storage.trial import Search, Spent, Trial

if TYPE_CHECKING:
    from evaluators.location import Location

REVISION = "0009"  # of the tables: the newest file in migrations/versions
OLDEST = "0002"  # that can be brought up to date; designs in older ones have another form
PATIENCE_S = 5  # to wait for another process's lock; whoever can wait longer tries again
SILENCE_S = 7  # of a server whose host may be gone: waited for once to answer, and once to be connected to again
MIGRATION_PATIENCE_S = 60  # for another process that brings the same tables up to date


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
            given = make_url(url)
            sqlite = given.get_backend_name() == "sqlite"
            # A server may have restarted since a connection was used last.
            engine = create_engine(_impatient(given), pool_pre_ping=not sqlite)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise StorageError(
                f"storage {url!r} is not usable ({error}); give e.g. sqlite:///search.db, "
                "or postgresql+psycopg://user@host/base with pip install 'nas-yolo[postgres]'"
            ) from error
        event.listen(engine, "connect", _prepare_sqlite if sqlite else _prepare_server)
        self._engine = engine
        self._file: tuple[str, tuple[int, int]] | None = None  # of SQLite: path, device and inode
        try:
            self._migrate()
            self._remember_file()
        except StorageError:
            self.close()
            raise
        except DBAPIError as error:
            self.close()
            kind = StorageAwayError if may_pass(error) else StorageError
            raise kind(
                f"storage {self.shown_url} cannot be opened or written ({reason(error)}); "
                "check the path and its permissions, or choose another with --storage"
            ) from error

    @property
    def shown_url(self) -> str:
        """The URL without its password."""
        return make_url(self.url).render_as_string(hide_password=True)

    @cached_property
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

    def library(self, search: Search) -> Location:
        """Where libraries are kept, a folder for each: the same for all searches that keep things there."""
        artifacts = search.config.get("artifacts")
        return self.folder / "library" if artifacts is None else locate(artifacts) / "library"

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    # Searches -------------------------------------------------------------------------------------------------------

    def create_search(self, name: str, config: dict[str, Any]) -> Search:
        """Add a search.

        Raises:
            SearchExistsError: If the name is taken.
        """
        row = {"name": name, "created_at": (now := _now()), "state": "running", "config": config}
        try:
            with self._transaction() as connection:
                added: Any = connection.execute(insert(SEARCHES), row).inserted_primary_key
                search = Search(int(added[0]), name, now, "running", config)
                known = load_state(connection, search).calibrations.values()
                first: list[Event] = [BudgetsSet(tuple(config.get("budgets", ()))), *map(Calibrated, known)]
                connection.execute(insert(EVENTS), [event_row(search.id, fact, 0.0, now) for fact in first])
        except IntegrityError as error:
            raise SearchExistsError(
                f"a search named {name!r} exists; continue it with nas-yolo resume {name}, or choose another --name"
            ) from error
        return search

    def search(self, name: str) -> Search:
        """The search of that name.

        Raises:
            SearchNotFoundError: If there is none.
        """
        with self._transaction() as connection:
            row = connection.execute(select(SearchRow).where(SearchRow.name == name)).first()
            if row is None:
                names = connection.scalars(select(SearchRow.name)).all()
                known = unknown("search", name, names) if names else f"unknown search {name!r}; there is none yet"
                raise SearchNotFoundError(f"{known} (in {self.shown_url}; see nas-yolo list)")
            return _search(row)

    def searches(self) -> list[Search]:
        """All, oldest first."""
        with self._transaction() as connection:
            return [_search(row) for row in connection.execute(select(SearchRow).order_by(SearchRow.id))]

    def set_config(self, search: Search, config: dict[str, Any], claim: Claim) -> Search:
        """Replace what a search was asked for.

        Raises:
            ClaimLostError: If another process took the search over.
        """
        with self._fenced(claim) as connection:
            connection.execute(update(SEARCHES).where(SearchRow.id == search.id).values(config=config))
        return replace(search, config=config)

    @contextmanager
    def claimed(self, search: Search) -> Iterator[Claim]:
        """Hold a search for this process; renewed in the background until the end.

        Raises:
            SearchBusyError: If another living process holds it.
        """
        with self._transaction() as connection:
            claim = take(connection, search.id, search.name)
        # A database in memory is this process's own, and each thread's.
        shared = self._file is not None or self._engine.dialect.name != "sqlite"
        try:
            with renewing(claim, self.renew) if shared else nullcontext():
                yield claim
        finally:
            # Where that fails the claim is void as soon as this process ends, or its lease does.
            with suppress(StorageError), self._transaction() as connection:
                release(connection, claim)

    def is_claimed(self, search: Search) -> bool:
        """Whether a living process works on it."""
        with self._transaction() as connection:
            return is_held(connection, search.id)

    def renew(self, claim: Claim) -> None:
        """Say that the process that holds the search is alive.

        Raises:
            ClaimLostError: If another process took the search over.
        """
        with self._fenced(claim):
            pass

    # What happened ---------------------------------------------------------------------------------------------------

    def journal(self, search: Search, claim: Claim) -> Journal:
        """Where its holder writes down what happens in a search."""
        return Journal(search, partial(self._fenced, claim), _now)

    def state(self, search: Search) -> State:
        """How a search stands."""
        with self._transaction() as connection:
            return load_state(connection, search)

    def trials(self, search: Search) -> list[Trial]:
        """All trials of a search, in order, with everything measured of them."""
        with self._transaction() as connection:
            return load_trials(connection, search)

    def events(self, search: Search, after: int = 0) -> list[Recorded]:
        """What happened in a search since an event, oldest first; all by default."""
        query = select(EventRow).where(EventRow.search_id == search.id, EventRow.id > after).order_by(EventRow.id)
        with self._transaction() as connection:
            return [
                Recorded(row.id, row.at_s, row.recorded_at, from_document(row.kind, row.document))
                for row in connection.execute(query)
            ]

    def spent(self, search: Search) -> Spent:
        """The sum of the ledger."""
        with self._transaction() as connection:
            return spent(connection, search)

    def add_deployed(self, search: Search, number: int, accuracy: DeployedAccuracy) -> None:
        """Record the accuracy of a trial's exported file, which anyone may measure: no decision depends on it."""
        with self._transaction() as connection:
            where = (TrialRow.search_id == search.id) & (TrialRow.number == number)
            trial = connection.scalars(select(TrialRow.id).where(where)).one()
            row = {"trial_id": trial, "validated_at": _now(), **vars(accuracy)}
            connection.execute(insert(DEPLOYED), row)
            fact = event_row(search.id, Deployed(number, accuracy), spent(connection, search).wall_seconds, _now())
            connection.execute(insert(EVENTS), fact)

    # Measurements, of all searches ------------------------------------------------------------------------------------

    def add_latency(self, architecture: Architecture, classes: int, latency: Latency) -> None:
        """Record a measurement, for this and every later search."""
        with self._transaction() as connection:
            add_architecture(connection, architecture)
            add_latency(connection, architecture, classes, latency, _now())

    def find_latency(
        self, architecture: Architecture, classes: int, imgsz: ImageSize, fingerprint: str
    ) -> Latency | None:
        """What any search measured of it under the same conditions; None without a good session."""
        good = [one for one in self.sessions(architecture, classes, imgsz, fingerprint) if one.quality == "good"]
        return combine(good)

    def sessions(self, architecture: Architecture, classes: int, imgsz: ImageSize, fingerprint: str) -> list[Latency]:
        """All measurements of it under the same conditions, oldest first."""
        with self._transaction() as connection:
            return find_sessions(connection, architecture, classes, imgsz, fingerprint)

    def calibration(self, fingerprint: str, imgsz: ImageSize) -> Calibration | None:
        """The reference's time on a target, if it was measured."""
        with self._transaction() as connection:
            return find_calibration(connection, fingerprint, imgsz)

    def add_calibration(self, calibration: Calibration) -> None:
        """Record the reference's time on a target. What was measured there is given anew, from its ratios."""
        with self._transaction() as connection:
            add_calibration(connection, calibration, _now())

    # Inside ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self._check_file()
        try:
            with self._engine.begin() as connection:
                yield connection
        except (DataError, IntegrityError):  # about what was to be written
            raise
        except DBAPIError as error:
            raise broken(self.shown_url, error) from error

    @contextmanager
    def _fenced(self, claim: Claim) -> Iterator[Connection]:
        """A transaction that changes what belongs to a search: all of it, or nothing if the claim is lost."""
        with self._transaction() as connection:
            fence(connection, claim)
            yield connection

    def _remember_file(self) -> None:
        """Remember which file a SQLite database is, so that another one in its place is noticed."""
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                path = connection.execute(text("PRAGMA database_list")).first()
            if path is not None and path.file:  # there is none of a database in memory
                self._file = path.file, self._identity(path.file)

    def _check_file(self) -> None:
        """Before connecting, which would make an empty file where there is none."""
        if self._file is not None and self._identity(self._file[0]) != self._file[1]:
            raise self._lost()

    def _identity(self, path: str) -> tuple[int, int]:
        try:
            found = os.stat(path)
        except FileNotFoundError as error:
            raise self._lost() from error
        except OSError as error:
            raise StorageAwayError(
                f"storage {self.shown_url} cannot be reached ({error.strerror}); nothing that it held is lost, "
                "continue with nas-yolo resume once it can"
            ) from error
        return found.st_dev, found.st_ino

    def _lost(self) -> StorageError:
        return StorageError(
            f"storage {self.shown_url}: the database file is gone or was replaced while it was in use, and nothing is "
            "written to what is there now; put the file back if you have it or a copy, else what it held is lost"
        )

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
        with self._engine.connect() as connection, _sqlite_prepared(connection), connection.begin():
            if connection.dialect.name == "sqlite":
                connection.execute(text("BEGIN IMMEDIATE"))  # two processes may come here at once
            else:
                connection.execute(text(f"SET LOCAL lock_timeout = '{MIGRATION_PATIENCE_S}s'"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _impatient(url: URL) -> URL:
    """The URL, with limits on how long a server may be silent where it gives none: TCP alone waits for minutes."""
    if not url.drivername.startswith("postgresql+psycopg"):
        return url
    limits = {
        "connect_timeout": SILENCE_S,
        "tcp_user_timeout": SILENCE_S * 1000,  # to take in what was sent
        "keepalives_idle": SILENCE_S // 2,  # what comes in is waited for, as long as the host is there
        "keepalives_interval": 1,
        "keepalives_count": SILENCE_S // 2,
    }
    return url.set(query={name: str(limit) for name, limit in limits.items()} | dict(url.query))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute(f"PRAGMA busy_timeout={PATIENCE_S * 1000}")
    connection.execute("PRAGMA journal_mode=WAL")  # readers and one writer at once
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _prepare_server(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{PATIENCE_S}s'")
    # A process that is frozen within a transaction must not keep its locks from the one that takes over.
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{LEASE.total_seconds():.0f}s'")
    cursor.close()
    connection.commit()


@contextmanager
def _sqlite_prepared(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by putting another in its place; the rows that refer to it must not stop that."""
    if connection.dialect.name != "sqlite":
        yield
        return
    # Here: within a transaction it would do nothing.
    _set_sqlite(connection, foreign_keys="OFF", busy_timeout=MIGRATION_PATIENCE_S * 1000)
    try:
        yield
    finally:
        _set_sqlite(connection, foreign_keys="ON", busy_timeout=PATIENCE_S * 1000)


def _set_sqlite(connection: Connection, **pragmas: str | int) -> None:
    for name, value in pragmas.items():
        connection.execute(text(f"PRAGMA {name}={value}"))
    connection.commit()


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _search(row: Row[Any]) -> Search:
    return Search(row.id, row.name, row.created_at, cast(Any, row.state), row.config)

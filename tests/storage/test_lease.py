"""Who holds a search: real processes that are killed, frozen or elsewhere, databases that are away or gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import OperationalError

import storage.lease
import storage.repository
from storage import (
    Claim,
    ClaimLostError,
    Repository,
    Search,
    SearchBusyError,
    StorageAwayError,
    StorageError,
)
from storage.errors import may_pass
from storage.tables import SearchRow

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells that a process has ended")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "search.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, file: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{file}"
    url: str = request.getfixturevalue("postgres")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def repository(url: str) -> Iterator[Repository]:
    repository = Repository(url)
    yield repository
    repository.close()


@pytest.fixture
def on_sqlite(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """Less patient than usual."""
    monkeypatch.setattr(storage.repository, "PATIENCE_S", 1)
    repository = Repository(f"sqlite:///{file}")
    yield repository
    repository.close()


@pytest.fixture
def search(request: pytest.FixtureRequest) -> Search:
    name = "on_sqlite" if "on_sqlite" in request.fixturenames else "repository"
    repository: Repository = request.getfixturevalue(name)
    return repository.create_search("one", {"budgets": ["1h"]})


@pytest.fixture
def holder(url: str, repository: Repository, search: Search) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that holds the search and then does what it is told; as soon as it does."""
    started = []

    def start(then: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        code = (
            "import os, signal, sys, time\n"
            "from storage import *\n"
            f"r = Repository({url!r})\n"
            "s = r.search('one')\n"
            "with r.claimed(s) as claim:\n"
            "    print('held', flush=True)\n"
            f"    {then}\n"
        )
        command = [*prefix, sys.executable, "-c", code]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "held\n", process.communicate()[1]
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


WRITE = (
    "print('frozen', flush=True); os.kill(os.getpid(), signal.SIGSTOP)\n    r.set_config(s, {'budgets': ['9h']}, claim)"
)
WRITING = """
    with r._fenced(claim) as connection:
        from sqlalchemy import update
        from storage.tables import SearchRow
        connection.execute(update(SearchRow).values(config={'budgets': ['9h']}))
        print('frozen', flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
"""


def wait_until_frozen(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "frozen\n"
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def change(repository: Repository, **values: Any) -> None:
    """Of the only search, behind everybody's back."""
    engine = create_engine(repository.url)
    with engine.begin() as connection:
        for name, value in values.items():
            connection.execute(text(f"UPDATE nas_searches SET {name} = :value"), {"value": value})
    engine.dispose()


def let_the_lease_run_out(repository: Repository) -> None:
    change(repository, heartbeat_at="2020-01-01 00:00:00.000000")


def stored_owner(repository: Repository) -> dict[str, Any]:
    with repository._transaction() as connection:
        owner = connection.scalar(select(SearchRow.owner))
    assert owner is not None
    assert len(owner) <= 200
    found: dict[str, Any] = json.loads(owner)
    return found


def heartbeat(repository: Repository) -> datetime:
    with repository._transaction() as connection:
        beat = connection.scalar(select(SearchRow.heartbeat_at))
    assert beat is not None
    return beat


def refuses(repository: Repository, search: Search) -> bool:
    try:
        with repository.claimed(search):
            return False
    except SearchBusyError:
        return True


# Claims ---------------------------------------------------------------------------------------------------------------


def test_of_two_claims_one_is_refused(repository: Repository, search: Search) -> None:
    assert not repository.is_claimed(search)
    with repository.claimed(search) as claim:
        assert repository.is_claimed(search)
        assert stored_owner(repository)["token"] == claim.token
        message = f"worked on by process {os.getpid()} on .*; watch it with nas-yolo status one$"
        with pytest.raises(SearchBusyError, match=message):
            repository.claimed(search).__enter__()
        repository.renew(claim)
        search = repository.set_config(search, {"budgets": ["2h"]}, claim)
    assert repository.search("one") == search
    assert search.config == {"budgets": ["2h"]}
    assert not repository.is_claimed(search)
    with pytest.raises(ClaimLostError):  # it was given back
        repository.set_config(search, {"budgets": ["3h"]}, claim)
    assert repository.search("one").config == {"budgets": ["2h"]}


def test_of_processes_that_claim_at_once_one_succeeds(repository: Repository, search: Search) -> None:
    let_the_lease_run_out(repository)
    claims: list[Claim] = []
    refused: list[Exception] = []
    start, done = threading.Barrier(8), threading.Event()

    def claim() -> None:
        start.wait()
        try:
            with repository.claimed(search) as claim:
                claims.append(claim)
                done.wait()
        except StorageError as error:
            refused.append(error)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(claims) + len(refused) < 8:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert len(claims) == 1
    assert all(isinstance(error, SearchBusyError) for error in refused)


def test_a_claim_that_was_taken_over_writes_nothing_and_gives_nothing_back(
    repository: Repository, search: Search
) -> None:
    with repository.claimed(search) as first:
        let_the_lease_run_out(repository)
        assert not repository.is_claimed(search)
        with repository.claimed(search) as second:
            assert first != second
            with pytest.raises(ClaimLostError, match="'one' was taken over by another process") as caught:
                repository.set_config(search, {"budgets": ["9h"]}, first)
            assert "\n" not in str(caught.value)
            with pytest.raises(ClaimLostError):
                repository.renew(first)
            with repository._transaction() as connection:
                storage.lease.release(connection, first)
            repository.renew(second)
    assert repository.search("one").config == {"budgets": ["1h"]}


def test_a_lease_that_ran_out_and_that_nobody_took_is_renewed(repository: Repository, search: Search) -> None:
    with repository.claimed(search) as claim:
        let_the_lease_run_out(repository)
        repository.renew(claim)
        assert refuses(repository, search)


@pytest.mark.parametrize(
    ("owner", "who"),
    [
        ('["elsewhere", 1, 0.0]', "process 1 on elsewhere"),
        ('["elsewhere"]', "another process"),
        ('{"token":"0","holder":7}', "another process"),
        ('{"token":"0","host":"elsewhere","pid":1}', "process 1 on elsewhere"),
        ("no JSON", "another process"),
    ],
)
def test_owners_that_other_versions_wrote_hold_by_their_lease(
    repository: Repository, search: Search, owner: str, who: str
) -> None:
    change(repository, owner=owner, heartbeat_at="2999-01-01 00:00:00.000000")
    assert repository.is_claimed(search)
    with pytest.raises(SearchBusyError, match=f"is being worked on by {who}"):
        repository.claimed(search).__enter__()
    let_the_lease_run_out(repository)
    assert not repository.is_claimed(search)
    assert not refuses(repository, search)


def test_the_longest_host_name_fits(repository: Repository, search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "n" * 255)
    monkeypatch.setattr("os.getpid", lambda: 4_194_304)
    with repository.claimed(search):
        stored_owner(repository)


# Clocks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_the_client_does_not_count(
    repository: Repository, search: Search, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    now = datetime.now(timezone.utc).replace(tzinfo=None)

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=hours)

    shifted = time.time() + hours * 3600
    with repository.claimed(search) as claim:
        monkeypatch.setattr("storage.repository.datetime", Shifted)
        monkeypatch.setattr("time.time", lambda: shifted)
        assert refuses(repository, search)
        repository.renew(claim)
        assert abs(heartbeat(repository) - now) < timedelta(minutes=5)
        assert refuses(repository, search)
        let_the_lease_run_out(repository)
        assert not refuses(repository, search)


def test_the_lease_ends_when_it_should(repository: Repository, search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    change(repository, owner='["elsewhere", 1, 0.0]')
    with repository._transaction() as connection:
        now = connection.scalar(select(storage.lease._clock(storage.lease._is_sqlite(connection))))
    assert isinstance(now, datetime)
    change(repository, heartbeat_at=str(now - timedelta(seconds=30)))
    assert repository.is_claimed(search)
    change(repository, heartbeat_at=str(now - timedelta(seconds=61)))
    assert not repository.is_claimed(search)
    monkeypatch.setattr(storage.lease, "LEASE", timedelta(hours=1))
    assert repository.is_claimed(search)


# Renewal in the background --------------------------------------------------------------------------------------------


def threads_of_leases() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lease of")]


def test_a_process_that_is_busy_with_something_else_stays_the_holder(
    repository: Repository, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.lease, "LEASE", timedelta(seconds=2))
    with repository.claimed(search) as claim:
        assert threads_of_leases() == ["lease of one"]
        first = heartbeat(repository)
        time.sleep(3)
        assert heartbeat(repository) > first
        assert refuses(repository, search)
        assert claim.trouble == []
    assert threads_of_leases() == []


def test_the_background_tells_of_a_lost_claim_at_the_next_write(
    repository: Repository, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.lease, "LEASE", timedelta(seconds=0.2))
    with repository.claimed(search) as claim:
        change(repository, owner='["elsewhere", 1, 0.0]')
        wait_for(lambda: bool(claim.trouble))
        with pytest.raises(ClaimLostError):
            repository.set_config(search, {}, claim)
    assert repository.search("one").config == {"budgets": ["1h"]}


def test_the_background_outlasts_a_database_that_is_away(
    on_sqlite: Repository, file: Path, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.lease, "LEASE", timedelta(seconds=0.2))
    with on_sqlite.claimed(search) as claim:
        with locked(file):
            time.sleep(2.5)
        first = heartbeat(on_sqlite)
        wait_for(lambda: heartbeat(on_sqlite) > first)
        on_sqlite.renew(claim)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


# Holders that are dead, frozen or elsewhere ---------------------------------------------------------------------------


@linux
def test_a_killed_holder_is_replaced_at_once(
    repository: Repository, search: Search, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holder("time.sleep(600)")
    assert stored_owner(repository)["pid"] == process.pid
    assert refuses(repository, search)
    process.kill()
    wait_for(lambda: not repository.is_claimed(search))  # a zombie: nobody has waited for it
    assert process.returncode is None
    assert not refuses(repository, search)


@linux
def test_a_process_that_got_the_number_of_a_dead_holder_is_not_it(repository: Repository, search: Search) -> None:
    with repository.claimed(search):
        owner = stored_owner(repository)
        assert owner["ticks"] > 0
        change(repository, owner=json.dumps(owner | {"ticks": owner["ticks"] - 1}))
        assert not repository.is_claimed(search)


@linux
@pytest.mark.parametrize("key", ["boot", "namespace", "host"])
def test_of_a_holder_elsewhere_only_the_lease_tells(repository: Repository, search: Search, key: str) -> None:
    with repository.claimed(search):
        owner = stored_owner(repository)
        change(repository, owner=json.dumps(owner | {key: "another", "ticks": 1, "pid": 2**22 + 1}))
        assert refuses(repository, search)
        change(repository, owner=json.dumps(owner | {key: None, "ticks": None}))
        assert refuses(repository, search)
        let_the_lease_run_out(repository)
        assert not refuses(repository, search)


@linux
@pytest.mark.parametrize("options", [("--mount-proc",), ()])
def test_a_holder_in_another_pid_namespace(
    repository: Repository, search: Search, holder: Callable[..., subprocess.Popen[str]], options: tuple[str, ...]
) -> None:
    unshare = ("unshare", "--pid", "--fork", "--kill-child", *options)
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no right to make a PID namespace")
    process = holder("time.sleep(600)", unshare)
    owner = stored_owner(repository)
    assert owner["pid"] == 1
    here = os.readlink("/proc/self/ns/pid")
    assert owner["namespace"] is None or owner["namespace"] not in here
    assert (owner["namespace"] is None) == (options == ())  # its /proc shows another namespace's processes
    assert refuses(repository, search)
    process.kill()
    process.wait()
    assert refuses(repository, search)  # it cannot be told from here
    let_the_lease_run_out(repository)
    assert not refuses(repository, search)


@linux
def test_a_frozen_holder_is_replaced_and_stores_nothing_when_it_wakes(
    repository: Repository, search: Search, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holder(WRITE)
    wait_until_frozen(process)
    assert refuses(repository, search)
    let_the_lease_run_out(repository)
    with repository.claimed(search) as claim:
        repository.set_config(search, {"budgets": ["2h"]}, claim)
        os.kill(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "ClaimLostError: search 'one' was taken over" in errors
        assert repository.search("one").config == {"budgets": ["2h"]}
        repository.renew(claim)


@linux
# SQLite has nobody who could end the transaction of a frozen process.
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_holder_that_was_frozen_while_it_wrote(
    holder: Callable[..., subprocess.Popen[str]], repository: Repository, search: Search
) -> None:
    limit = "import storage.repository as m; from datetime import timedelta; m.LEASE = timedelta(seconds=2); r.close()"
    process = holder(limit + WRITING)
    wait_until_frozen(process)
    assert repository.is_claimed(search)
    wait_for(lambda: lease_can_run_out(repository))
    with repository.claimed(search) as claim:
        os.kill(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "StorageAwayError" in errors
        repository.renew(claim)
    assert repository.search("one").config == {"budgets": ["1h"]}


def lease_can_run_out(repository: Repository) -> bool:
    """False while the frozen process has the row locked."""
    try:
        with repository._transaction() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            connection.execute(text("UPDATE nas_searches SET heartbeat_at = '2020-01-01'"))
    except StorageAwayError:
        return False
    return True


# A database that is away, broken or gone ------------------------------------------------------------------------------


@contextmanager
def locked(file: Path) -> Iterator[None]:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_a_locked_file_is_away_and_works_afterwards(on_sqlite: Repository, file: Path, search: Search) -> None:
    with on_sqlite.claimed(search) as claim:
        with locked(file), pytest.raises(StorageAwayError, match=r"does not answer .*locked") as caught:
            on_sqlite.set_config(search, {}, claim)
        assert "\n" not in str(caught.value)
        assert on_sqlite.set_config(search, {"budgets": ["2h"]}, claim).config == {"budgets": ["2h"]}


def test_a_search_ends_also_when_its_claim_cannot_be_given_back(
    on_sqlite: Repository, file: Path, search: Search
) -> None:
    def stop(_: None) -> None:
        raise KeyboardInterrupt

    with ExitStack() as stack, pytest.raises(KeyboardInterrupt), on_sqlite.claimed(search):
        stop(stack.enter_context(locked(file)))
    assert on_sqlite.is_claimed(search)  # by this process, which lives


def test_a_full_disk_or_lost_tables_are_no_passing_trouble(on_sqlite: Repository, file: Path, search: Search) -> None:
    with on_sqlite._engine.connect() as connection:
        pages = connection.scalar(text("PRAGMA page_count"))
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(StorageError, match="full") as caught:
        on_sqlite.create_search("two", {"large": "x" * 100_000})
    assert not isinstance(caught.value, StorageAwayError)

    change_tables = sqlite3.connect(file)
    change_tables.execute("ALTER TABLE nas_searches RENAME TO others")
    change_tables.close()
    with pytest.raises(StorageError, match="no such table") as caught:
        on_sqlite.search("one")
    assert not isinstance(caught.value, StorageAwayError)


def test_a_file_that_is_overwritten_with_something_else(on_sqlite: Repository, file: Path, search: Search) -> None:
    on_sqlite.close()
    file.write_bytes(b"this is no database" * 1000)
    with pytest.raises(StorageError, match="not a database") as caught:
        on_sqlite.search("one")
    assert not isinstance(caught.value, StorageAwayError)


def test_a_deleted_file_is_noticed_and_not_made_anew(on_sqlite: Repository, file: Path, search: Search) -> None:
    with on_sqlite.claimed(search) as claim:
        kept = file.rename(file.with_suffix(".kept"))
        for use in (
            lambda: on_sqlite.renew(claim),
            lambda: on_sqlite.set_config(search, {}, claim),
            on_sqlite.searches,
        ):
            with pytest.raises(StorageError, match="the database file is gone or was replaced") as caught:
                use()
            assert not isinstance(caught.value, StorageAwayError)
            assert "\n" not in str(caught.value)
        on_sqlite.close()  # what comes next connects anew
        with pytest.raises(StorageError, match="is gone"):
            on_sqlite.renew(claim)
        assert not file.exists()
        kept.rename(file)
        on_sqlite.renew(claim)


def test_a_file_that_was_replaced_is_left_alone(on_sqlite: Repository, file: Path, search: Search) -> None:
    with on_sqlite.claimed(search) as claim:
        file.rename(file.with_suffix(".kept"))
        other = Repository(f"sqlite:///{file}")
        other.create_search("one", {"budgets": ["5h"]})
        with pytest.raises(StorageError, match="is gone or was replaced"):
            on_sqlite.set_config(search, {}, claim)
    assert [found.config for found in other.searches()] == [{"budgets": ["5h"]}]
    assert not other.is_claimed(other.search("one"))
    other.close()


def test_the_folder_does_not_matter_after_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    repository = Repository("sqlite:///relative.db")
    monkeypatch.chdir("/")
    assert repository.searches() == []
    repository.close()


def test_a_database_in_memory_is_held_without_a_thread() -> None:
    repository = Repository("sqlite://")
    search = repository.create_search("one", {})
    with repository.claimed(search) as claim:
        assert threads_of_leases() == []
        repository.renew(claim)
    repository.close()


def end_connections(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
        connection.execute(text(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"))
    engine.dispose()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_server_that_ends_its_connections(url: str, repository: Repository, search: Search) -> None:
    with repository.claimed(search) as claim:
        end_connections(url)
        repository.renew(claim)  # by a new connection
        with pytest.raises(StorageAwayError) as caught, repository._fenced(claim):
            end_connections(url)
        assert "\n" not in str(caught.value)
        repository.renew(claim)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_rows_that_another_connection_has_locked(url: str, search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.repository, "PATIENCE_S", 1)
    repository, engine = Repository(url), create_engine(url)
    with repository.claimed(search) as claim:
        with engine.connect() as connection:
            connection.execute(text("LOCK TABLE nas_searches"))
            with pytest.raises(StorageAwayError, match="lock timeout"):
                repository.renew(claim)
        repository.renew(claim)
    engine.dispose()
    repository.close()


def test_a_server_that_is_not_there() -> None:
    pytest.importorskip("psycopg")
    engine = create_engine("postgresql+psycopg://me@127.0.0.1:1/base")
    with pytest.raises(OperationalError) as caught:
        engine.connect()
    assert may_pass(caught.value)
    with pytest.raises(StorageAwayError, match=r"cannot be opened or written .*refused") as opening:
        Repository("postgresql+psycopg://me@127.0.0.1:1/base")
    assert "\n" not in str(opening.value)


def test_a_server_that_never_answers_is_away_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr(storage.repository, "SILENCE_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(StorageAwayError, match=r"cannot be opened or written .*timeout"):
            Repository(f"postgresql+psycopg://me@127.0.0.1:{silent.getsockname()[1]}/base")
        assert time.monotonic() - began < 10


@linux
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("asked", "waits_ms"), [("", 7000), ("?tcp_user_timeout=3000", 3000)])
def test_a_server_whose_host_is_gone_is_not_waited_for(url: str, asked: str, waits_ms: int) -> None:
    repository = Repository(url + asked)
    with repository._transaction() as connection:
        descriptor: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(descriptor.fileno())) as wire:
            names = (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            user_ms, idle_s, interval_s, count = (wire.getsockopt(socket.IPPROTO_TCP, name) for name in names)
            assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert user_ms == waits_ms
    assert idle_s + interval_s * count <= 7
    repository.close()

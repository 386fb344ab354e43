"""Who works on a search: one process, by a token in its row that every write compares, for as long as it renews it.

A claim is kept in two columns. `owner` says whose it is, in JSON; `heartbeat_at` when it was renewed last, by the clock
of the database: those of the processes may differ, and step.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

from sqlalchemy import ColumnElement, Connection, DateTime, Update, func, or_, select, update

from storage.errors import ClaimLostError, SearchBusyError, StorageAwayError
from storage.tables import SEARCHES, SearchRow

LEASE = timedelta(seconds=60)  # after so long without a renewal anybody may take a search over


@dataclass(frozen=True)
class Claim:
    """That a process holds a search, once; another claim of the same process is another one.

    Attributes:
        search_id: Of the search.
        name: Of the search.
        token: Random; what tells this claim from every other.
        trouble: What ended its renewal in the background, if anything did.
    """

    search_id: int
    name: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    trouble: list[Exception] = field(default_factory=list, compare=False, repr=False)

    @property
    def held(self) -> ColumnElement[bool]:
        """The condition that the row of the search has this claim."""
        start = _document(token=self.token).removesuffix("}")
        return (SearchRow.id == self.search_id) & SearchRow.owner.startswith(start, autoescape=True)


def take(connection: Connection, search_id: int, name: str) -> Claim:
    """Claim a search that is free, whose lease has run out or whose holder is known to be dead.

    Raises:
        SearchBusyError: If another living process holds it.
    """
    owner = connection.scalar(select(SearchRow.owner).where(SearchRow.id == search_id))
    holder = _parse(owner)
    claim = Claim(search_id, name)
    # One statement compares and takes: of several processes that come here at once, one succeeds.
    free = or_(SearchRow.owner.is_(None), _run_out(connection))
    if _is_dead(holder):
        free = or_(free, SearchRow.owner == owner)
    mine = _document(token=claim.token, **_this_process())
    now = _clock(_is_sqlite(connection))
    if not _update(connection, (SearchRow.id == search_id) & free, owner=mine, heartbeat_at=now):
        who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
        raise SearchBusyError(f"search {name!r} is being worked on by {who}; watch it with nas-yolo status {name}")
    return claim


def is_held(connection: Connection, search_id: int) -> bool:
    """Whether a process that may be alive holds a search."""
    query = select(SearchRow.owner, _run_out(connection)).where(SearchRow.id == search_id)
    owner, run_out = connection.execute(query).one()
    return owner is not None and not run_out and not _is_dead(_parse(owner))


@cache
def _renewal(claim: Claim, sqlite: bool) -> Update:
    """The statement that renews a claim, made once: it is part of every transaction."""
    return update(SEARCHES).where(claim.held).values(heartbeat_at=_clock(sqlite))


def fence(connection: Connection, claim: Claim) -> None:
    """Renew a claim; the first statement of every transaction that changes a search, which then has the row's lock.

    Raises:
        ClaimLostError: If another process took the search over.
    """
    if claim.trouble:
        raise claim.trouble[0]
    if not connection.execute(_renewal(claim, _is_sqlite(connection))).rowcount:
        raise ClaimLostError(
            f"search {claim.name!r} was taken over by another process while this one did not answer; "
            f"this one stops and has written nothing more; watch it with nas-yolo status {claim.name}"
        )


def release(connection: Connection, claim: Claim) -> None:
    """Give a claim back, unless it is lost."""
    _update(connection, claim.held, owner=None, heartbeat_at=None)


@contextmanager
def renewing(claim: Claim, renew: Callable[[Claim], None]) -> Iterator[None]:
    """Renew a claim in the background: whatever its process is busy with, it is alive."""
    ended = Event()

    def work() -> None:
        while not ended.wait(LEASE.total_seconds() / 4):
            try:
                renew(claim)
            except StorageAwayError:
                pass  # it may be back the next time; whoever needs it before then is told by it
            except Exception as error:
                claim.trouble.append(error)
                return

    thread = Thread(target=work, name=f"lease of {claim.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _update(connection: Connection, where: ColumnElement[bool], **values: Any) -> bool:
    """Change the one row for which a condition holds; whether there is one."""
    return bool(connection.execute(update(SEARCHES).where(where).values(values)).rowcount)


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _clock(sqlite: bool, ago: timedelta = timedelta()) -> ColumnElement[datetime]:
    """The database's time, of the statement rather than of the transaction, which may have waited for a lock."""
    if sqlite:
        back = f"-{ago.total_seconds():f} seconds"
        return func.strftime("%Y-%m-%d %H:%M:%f", "now", back, type_=DateTime())
    return func.timezone("utc", func.clock_timestamp(), type_=DateTime()) - ago


def _run_out(connection: Connection) -> ColumnElement[bool]:
    return or_(SearchRow.heartbeat_at.is_(None), SearchRow.heartbeat_at <= _clock(_is_sqlite(connection), LEASE))


def _document(**values: Any) -> str:
    """What `owner` holds: at most 200 characters, the token first."""
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _parse(owner: str | None) -> dict[str, Any]:
    """What is known of a holder; nothing if there is none, or another version of nas-yolo wrote it."""
    with suppress(ValueError):
        match json.loads(owner or "null"):
            case {"host": str(), "pid": int()} as holder:
                return dict(holder)
            case [str() as host, int() as pid, _]:  # the lease alone tells whether that one is alive
                return {"host": host, "pid": pid}
    return {}


def _this_process() -> dict[str, Any]:
    """This process, such that another can tell whether it is alive, where Linux lets it."""
    host, pid = platform.node()[:64], os.getpid()
    known = {"host": host, "pid": pid, "ticks": None, "boot": None, "namespace": None}
    with suppress(OSError):
        if os.readlink("/proc/self") == str(pid):  # else /proc shows the processes of another namespace
            namespace = os.readlink("/proc/self/ns/pid").removeprefix("pid:[").removesuffix("]")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
            known |= {"ticks": _state(pid)[1], "boot": boot, "namespace": namespace}
    return known


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether a holder is known to have ended: one whose number would be its own here, and who is not there."""
    here = _this_process()
    if here["ticks"] is None or any(holder.get(key) != here[key] for key in ("host", "boot", "namespace")):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's; what nas-yolo never wrote
        pass
    try:
        state, ticks = _state(holder["pid"])
    except OSError:  # /proc may hide the processes of other users
        return False
    return state == "Z" or ticks != holder.get("ticks")


def _state(pid: int) -> tuple[str, int]:
    """State and start of a process, in ticks since boot: clocks that are set do not change them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # a name may have spaces and brackets
    return fields[0], int(fields[19])

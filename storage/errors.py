"""What can be wrong with a database, each in one line that says what to do."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError

from search_spaces.errors import UserError

# Of PostgreSQL's errors: a lost connection, a transaction that gave way to another, a lock, a server that is stopped.
PASSING = ("08", "40", "55", "57")
TOO_MANY_CONNECTIONS = "53300"


class StorageError(UserError, RuntimeError):
    """The database cannot be used; one line that says what to do."""


class StorageAwayError(StorageError):
    """The database cannot be used now, which may pass: the same is worth another try."""


class SearchNotFoundError(StorageError):
    """There is no search of that name."""


class SearchExistsError(StorageError):
    """The name is taken."""


class SearchBusyError(StorageError):
    """Another process works on the search."""


class ClaimLostError(StorageError):
    """Another process took the search over."""


def may_pass(error: DBAPIError) -> bool:
    """Whether what failed may succeed later without anybody's doing: locks, a server that restarts, a lost network."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return any(word in str(error.orig) for word in ("locked", "busy"))  # error codes came with Python 3.11
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # nothing came from the server: it refused the connection, or does not answer
        return True
    return str(state).startswith(PASSING) or state == TOO_MANY_CONNECTIONS


def reason(error: DBAPIError) -> str:
    """What the database said, in one line."""
    return " ".join(str(error.orig).split())


def broken(shown_url: str, error: DBAPIError) -> StorageError:
    """The error to raise for one of a database that could be used before."""
    if may_pass(error):
        return StorageAwayError(
            f"storage {shown_url} does not answer ({reason(error)}); nothing that it held is lost, "
            "continue with nas-yolo resume once it does"
        )
    return StorageError(
        f"storage {shown_url} does not work any more ({reason(error)}); "
        "once that is mended, continue with nas-yolo resume"
    )

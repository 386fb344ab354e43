"""Where files are that must outlive a machine: in a folder, or at any URL that fsspec can write to."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from upath import UPath

    Location = Path | UPath
    """A path; of a folder on this machine, it is one of the standard library's."""


class StoreError(UserError, OSError):
    """A place that cannot be read or written; one line that says why."""


def locate(url: str) -> Location:
    """The place that a path or a URL names, e.g. `s3://bucket/searches`; nothing is connected yet.

    Raises:
        StoreError: If no such kind of URL is known.
    """
    if "://" not in url:
        return Path(url)
    from upath import UPath

    try:
        place = UPath(url)
    except (ImportError, ValueError) as error:
        raise StoreError(f"{url} cannot be used: {_words(error)}") from error
    return Path(place.path) if place.protocol in ("file", "local") else place


def absolute(url: str) -> str:
    """The same place, said so that it means the same from any folder.

    Raises:
        StoreError: If no such kind of URL is known.
    """
    place = locate(url)
    return str(place.expanduser().absolute()) if isinstance(place, Path) else url


def check_writable(url: str) -> None:
    """Write a small file there, write it again, and take it away.

    Raises:
        StoreError: If that fails.
    """
    probe = locate(url) / "nas-yolo.probe"
    write_whole(lambda file: file.write(b"written"), probe)
    write_whole(lambda file: file.write(b"written again"), probe)
    with open_whole(probe) as file:
        kept = file.read() == b"written again"
    try:
        probe.unlink()
    except Exception as error:
        raise StoreError(f"{probe} cannot be deleted ({_words(error)}); see that you may") from error
    if not kept:
        raise StoreError(f"{url} does not keep what is written there; choose another place")


def write_whole(write: Callable[[BinaryIO], object], location: Location) -> None:
    """Write a file that nobody else writes; what is there under its name is always complete.

    Args:
        write: Writes its content.
        location: Where.

    Raises:
        StoreError: If that fails; what was there before is still there.
    """
    try:
        location.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(location, Path):
            _write_here(write, location)
        else:
            _write_there(write, location)
    except MemoryError:
        raise
    except Exception as error:  # every kind of store has its own
        raise StoreError(
            f"{location} cannot be written ({_words(error)}); see that there is room, and that you may write there"
        ) from error


def _write_here(write: Callable[[BinaryIO], object], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())  # else a power failure could leave an empty file under the name
    temporary.replace(path)


def _write_there(write: Callable[[BinaryIO], object], place: UPath) -> None:
    temporary = place.with_suffix(".tmp")
    write(buffer := BytesIO())
    temporary.write_bytes(buffer.getvalue())
    place.fs.mv(temporary.path, place.path)


def open_whole(location: Location) -> BinaryIO:
    """Open a file to read.

    Raises:
        FileNotFoundError: If there is none.
        StoreError: If it cannot be read.
    """
    try:
        return open(location, "rb") if isinstance(location, Path) else BytesIO(location.read_bytes())
    except FileNotFoundError:
        raise
    except Exception as error:  # every kind of store has its own
        raise StoreError(f"{location} cannot be read ({_words(error)})") from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]

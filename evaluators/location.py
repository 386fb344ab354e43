"""Where files are that must outlive a machine: in a folder, or at any URL that fsspec can write to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from upath import UPath

    Location = Path | UPath
    """A path; of a folder on this machine, it is one of the standard library's."""


def locate(url: str) -> Location:
    """The place that a path or a URL names, e.g. `s3://bucket/searches`.

    Raises:
        UserError: If nothing that is installed can write to such a URL.
    """
    if "://" not in url:
        return Path(url)
    from upath import UPath

    try:
        place = UPath(url)
        _ = place.fs
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be used: {' '.join(str(error).split())}") from error
    return Path(place.path) if place.protocol in ("file", "local") else place


def absolute(url: str) -> str:
    """The same place, said so that it means the same from any folder.

    Raises:
        UserError: If nothing that is installed can write to such a URL.
    """
    place = locate(url)
    return str(place.expanduser().absolute()) if isinstance(place, Path) else url


def check_writable(url: str) -> None:
    """Write a small file there, and take it away again.

    Raises:
        UserError: If that fails.
    """
    place = locate(url)
    probe = place / ".nas-yolo"
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"written")
        written = probe.read_bytes() == b"written"
        probe.unlink()
    except Exception as error:  # every store has its own
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise UserError(f"{url} cannot be written ({text}); check the address and your rights there") from error
    if not written:
        raise UserError(f"{url} does not keep what is written there; choose another place")

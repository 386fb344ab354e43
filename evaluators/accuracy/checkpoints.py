"""Checkpoints as files: in a folder, or wherever fsspec can write (`s3://`, `gs://`, `sftp://` ...).

They hold tensors and plain values, no pickled classes, and are replaced as a whole: what is there under the name is
always complete.
"""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from evaluators.location import Location

torch.serialization.set_crc32_options(False)  # nothing in PyTorch reads it, and it takes as long as writing


def save_checkpoint(document: dict[str, Any], location: Location) -> None:
    """Write a checkpoint; nobody else writes the same at the same time."""
    if isinstance(location, Path):
        location.parent.mkdir(parents=True, exist_ok=True)
        temporary = location.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save(document, file)
            file.flush()
            os.fsync(file.fileno())  # else a power failure could leave an empty file under the name
        temporary.replace(location)
        return
    buffer = io.BytesIO()
    torch.save(document, buffer)
    write_whole(buffer.getvalue(), location)


def load_checkpoint(location: Location) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        OSError: If it cannot be read.
        pickle.UnpicklingError: If it holds something else than tensors and plain values.
    """
    file = location if isinstance(location, Path) else io.BytesIO(location.read_bytes())
    document: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return document


def copy_checkpoint(source: Location, target: Location) -> None:
    """Copy a checkpoint, as a whole."""
    save_checkpoint(load_checkpoint(source), target)


def version(location: Location) -> str:
    """Another one when the file was written again."""
    if isinstance(location, Path):
        return str(location.stat().st_mtime_ns)
    return str(location.fs.ukey(location.path))


def write_whole(content: bytes, location: Any) -> None:
    """Write a file at a URL; some stores show half a file while it is written, so it is moved there."""
    location.parent.mkdir(parents=True, exist_ok=True)
    temporary = location.with_name(f"{location.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content)
    location.fs.mv(temporary.path, location.path)

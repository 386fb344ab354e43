"""The checkpoint that the trainings of a search begin with, where a user gives one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import platformdirs

from search_spaces.errors import UserError


def find_checkpoint(given: str) -> str:
    """The absolute path of a checkpoint; one that is only named is downloaded, as Ultralytics does.

    Raises:
        UserError: If it is not there and cannot be downloaded.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return str(path.resolve())
    if path.name != given:
        raise UserError(f"--pretrained {given} does not exist; give an Ultralytics checkpoint, e.g. yolov8n.pt")
    from ultralytics.utils.downloads import attempt_download_asset

    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = Path(attempt_download_asset(folder / given))
    except Exception:  # of many libraries, and of the network
        found = folder / given
    if not found.is_file():
        raise UserError(
            f"--pretrained {given} is no file here, and could not be downloaded; give the path of an Ultralytics "
            "checkpoint, or its name (e.g. yolov8n.pt) where there is a network"
        )
    return str(found.resolve())


def read_digest(checkpoint: str) -> str:
    """The SHA-256 of a checkpoint that holds weights to begin with.

    Raises:
        UserError: If it holds none.
    """
    from evaluators.accuracy.checkpoints import version
    from evaluators.accuracy.inheritance import read_parent

    path = Path(checkpoint)
    read_parent(path, version(path))
    return digest(path)


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()

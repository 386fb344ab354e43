"""The machine and the environment that a search finds and sets."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import platformdirs

from evaluators.data_file import USERS_CONFIG, users_settings

# For Ultralytics. Autoinstall would install a package named like a missing module of a checkpoint; and a checkpoint may
# run code unless it is loaded safely.
NO_DOWNLOADS = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "ULTRALYTICS_SAFE_LOAD": "true"}


def count_cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def ultralytics_environment() -> dict[str, str]:
    """Settings of its own, no network, no installing of packages, no chatter. To be set before it is imported."""
    return {**_own_folder("ultralytics"), **NO_DOWNLOADS, "YOLO_VERBOSE": "false"}


def users_environment() -> dict[str, str]:
    """No network, no installing of packages, and a copy of the user's settings, which Ultralytics may write to."""
    found = _own_folder("ultralytics-user")
    folder = Path(found["YOLO_CONFIG_DIR"]) / "Ultralytics"
    folder.mkdir(exist_ok=True)
    copy = folder / "settings.json"
    copy.unlink(missing_ok=True)
    with suppress(OSError):  # without any, Ultralytics begins with its own
        copy.write_bytes(users_settings().read_bytes())
    return {**found, **NO_DOWNLOADS}


def _own_folder(name: str) -> dict[str, str]:
    cache = Path(platformdirs.user_cache_dir("nas-yolo"))
    (cache / name).mkdir(parents=True, exist_ok=True)
    now = os.environ.get("YOLO_CONFIG_DIR", "")
    ours = bool(now) and Path(now).parent == cache  # as in a process that another one of ours started
    return {"YOLO_CONFIG_DIR": str(cache / name), USERS_CONFIG: os.environ.get(USERS_CONFIG, "") if ours else now}

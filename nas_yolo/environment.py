"""The machine and the environment that a search finds and sets."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

# For Ultralytics. Autoinstall would install a package named like a missing module of a checkpoint; and a checkpoint may
# run code unless it is loaded safely.
NO_DOWNLOADS = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "ULTRALYTICS_SAFE_LOAD": "true"}


def count_cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def ultralytics_environment() -> dict[str, str]:
    """Settings of its own, no network, no installing of packages, no chatter. To be set before it is imported."""
    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / "ultralytics"
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "YOLO_CONFIG_DIR": str(folder),
        **NO_DOWNLOADS,
        "YOLO_VERBOSE": "false",
    }

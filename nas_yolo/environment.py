"""What processes that run Ultralytics for a search find in their environment."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def ultralytics_environment() -> dict[str, str]:
    """Settings of its own, no network, no installing of packages, no chatter. To be set before it is imported."""
    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / "ultralytics"
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",  # it would install a package named like a missing module of a checkpoint
        "YOLO_VERBOSE": "false",
    }

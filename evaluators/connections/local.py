"""This machine, with the Python that runs nas-yolo."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.connections._exchange import BOOT, exchange
from evaluators.errors import LatencyError
from evaluators.target import Target


def perform(target: Target, job: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """One job; the probe reads the files where they are.

    Raises:
        LatencyError: If there is no result.
    """
    paths = {
        role: str(next(path for name, path in files.items() if name.startswith(f"{role}.")))
        for role in ("model", "reference")
        if files
    }
    # -I: neither the caller's folder nor his environment decides what is imported.
    return exchange([target.python or sys.executable, "-I", "-c", BOOT], job | paths, {}, _explain)


def _explain(status: int, said: str) -> LatencyError:
    last = (said.splitlines() or ["it said nothing"])[-1]
    return LatencyError("crash", f"the probe ended with status {status}: {last[:200]}", said)

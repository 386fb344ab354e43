"""How a job reaches a device: one file per way, each with `perform(target, job, files)`.

Nothing listens on the device. Python there is given the text of `probe.py` and one job on its standard input, and
answers in lines of JSON, below a marker; nothing that it says is trusted to be well-formed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from evaluators.target import Target


class Perform(Protocol):
    """One job on the device of a target."""

    def __call__(self, target: Target, job: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
        """The result of a job.

        Args:
            target: Where.
            job: What `probe.run_job` reads, as far as it is known here.
            files: Models by the name that they have in the job's folder on the device.

        Raises:
            LatencyError: If there is none.
        """


def connection(target: Target) -> Perform:
    """The way to a target."""
    name = "ssh" if target.ssh else "ray" if target.ray else "local"
    perform: Perform = importlib.import_module(f"evaluators.connections.{name}").perform
    return perform

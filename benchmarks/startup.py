"""How long `nas-yolo --help` takes, as a whole process, against an empty Python process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

from benchmarks.report import report


def seconds(*command: str) -> float:
    """Of one run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


@click.command()
@click.option("--rounds", default=10, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(rounds: int, file: Path | None) -> None:
    """Print the seconds of `nas-yolo --help`."""
    helped = [seconds(sys.executable, "-m", "nas_yolo", "--help") for _ in range(rounds)]
    empty = [seconds(sys.executable, "-c", "") for _ in range(rounds)]
    median = statistics.median(helped)
    rows = [
        ("nas-yolo --help, s (median, largest)", f"{median:.3f}, {max(helped):.3f}"),
        ("an empty Python process, s", f"{statistics.median(empty):.3f}"),
    ]
    report("Start of the command line", rows, {"help_seconds": median, "help_seconds_max": max(helped)}, file)


if __name__ == "__main__":
    main()

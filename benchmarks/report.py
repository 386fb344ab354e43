"""What all benchmarks share: where the figures go."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nas_yolo.environment import count_cores


def report(title: str, rows: list[tuple[str, str]], document: dict[str, Any], file: Path | None) -> None:
    """Print rows of (what, figure) and write the JSON document, with what it was measured on, if a file is given."""
    table = Table("what", "figure", title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    machine = {"cores": count_cores(), "python": platform.python_version(), "system": platform.system()}
    if file:
        file.write_text(json.dumps({"machine": machine, **document}, indent=2) + "\n")

"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from storage import Repository

Command = TypeVar("Command", bound=Callable[..., Any])


def storage_option(command: Command) -> Command:
    """`--storage URL`."""
    return click.option(
        "--storage",
        "url",
        metavar="URL",
        help="Database, e.g. sqlite:///search.db. Default: $NAS_YOLO_STORAGE, else a file in your data folder.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")(command)


def open_repository(url: str | None) -> Repository:
    """The database that a user means."""
    from storage import Repository, default_url

    return Repository(url or default_url())


def console(as_json: bool = False) -> Console:
    """For people: standard output, or standard error where standard output belongs to JSON."""
    from rich.console import Console

    return Console(file=sys.stderr if as_json else sys.stdout, highlight=False)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, default=str))

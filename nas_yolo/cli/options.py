"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from nas_yolo.config import SearchConfig
    from search_spaces.image_size import ImageSize
    from storage import Repository, Search, Trial

Command = TypeVar("Command", bound=Callable[..., Any])
IMGSZ_HELP = "Image size, pixels: 640, which is square, or 640x384, width x height; multiples of 32."


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


def targets_option(command: Command) -> Command:
    """`--targets FILE`."""
    return click.option(
        "--targets",
        "targets_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="File of your targets. Default: targets.yaml in your configuration folder.",
    )(command)


def skip_bad_option(command: Command) -> Command:
    """`--skip-bad`."""
    help_text = "Leave out images that cannot be used (nas-yolo check-data shows which) instead of refusing them."
    return click.option("--skip-bad", is_flag=True, help=help_text)(command)


def postprocess_option(command: Command) -> Command:
    """`--with-postprocess`."""
    help_text = "Time decoding and suppression (NMS) with the network; some networks need none."
    return click.option("--with-postprocess", is_flag=True, help=help_text)(command)


def gpus_per_trial_option(command: Command) -> Command:
    """`--gpus-per-trial auto|F`."""

    def checked(_context: click.Context, _option: click.Parameter, text: str) -> float | str:
        from search_spaces import UserError

        if text == "auto":
            return text
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number <= 1 and number not in range(2, 9):
            raise UserError(f"--gpus-per-trial {text} must be auto, a share above 0 to 1, or a whole number up to 8")
        return number

    return click.option(
        "--gpus-per-trial",
        default="1",
        show_default=True,
        metavar="auto|F",
        callback=checked,
        help="GPUs, or a share of one, for each training. auto: measure once how many share a GPU with gain.",
    )(command)


def imgsz_option(default: int) -> Callable[[Command], Command]:
    """`--imgsz`."""

    def parsed(_context: click.Context, option: click.Parameter, text: str) -> ImageSize:
        from search_spaces.image_size import ImageSize

        return ImageSize.parse(text, option.opts[0])

    default_text = str(default)
    return click.option("--imgsz", default=default_text, show_default=True, callback=parsed, help=IMGSZ_HELP)


def open_repository(url: str | None) -> Repository:
    """The database that a user means."""
    from storage import Repository, default_url

    return Repository(url or default_url())


def chosen_trial(
    search: Search,
    trials: Sequence[Trial],
    config: SearchConfig,
    number: int | None,
    max_latency_ms: float | None = None,
    target: str = "",
) -> Trial:
    """The trial that a user means by `--trial`, by `--max-latency` or by neither.

    Raises:
        click.UsageError: If both were given.
        NoSuchTrialError: If there is none.
    """
    from nas_yolo.results import best_trial, numbered_trial

    if number is None:
        return best_trial(trials, config, max_latency_ms, target)
    if max_latency_ms is not None:
        raise click.UsageError("give --trial or --max-latency, not both")
    return numbered_trial(search, trials, number)


def console(as_json: bool = False) -> Console:
    """For people: standard output, or standard error where standard output belongs to JSON."""
    from rich.console import Console

    return Console(file=sys.stderr if as_json else sys.stdout, highlight=False)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, default=str))

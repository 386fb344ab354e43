"""`check-data`, and what `search` shows of the data before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from nas_yolo.cli.options import console, json_option, print_json, skip_bad_option

if TYPE_CHECKING:
    from rich.console import Console

    from evaluators.dataset import Reading

MEANING = ("single_cls", "classes")  # training arguments that change what labels mean


@click.command("check-data")
@click.argument("data", metavar="YAML")
@skip_bad_option
@click.option(
    "--train", "training", multiple=True, metavar="KEY=VALUE", help="As for search: single_cls=True, classes=[0,2]."
)
@json_option
def check_data_command(data: str, skip_bad: bool, training: tuple[str, ...], as_json: bool) -> None:
    """Show what a search would use of a data set, what it would not, and why. Nothing is written.

    Images with boxes, backgrounds, images that cannot be used, boxes of each class, pictures that are in both splits;
    all problems at once. Exit status 1 if there is any.

    \b
    Examples:
      nas-yolo check-data my.yaml
      nas-yolo check-data my.yaml --skip-bad
      nas-yolo check-data my.yaml --json
    """
    from nas_yolo.cli.search import parse_training
    from nas_yolo.report.data import reading_document, show_reading

    screen = console(as_json)
    reading = read_data(data, skip_bad, parse_training(training), screen)
    if as_json:
        print_json(reading_document(reading))
    else:
        show_reading(screen, reading)
    reading.checked("; --skip-bad leaves such images out")


def read_data(data: str, skip_bad: bool, arguments: Mapping[str, Any], screen: Console | None) -> Reading:
    """Read a data set.

    Args:
        data: The data YAML.
        skip_bad: Leave out what cannot be used.
        arguments: Of the trainings; some change what labels mean.
        screen: To show progress on, if it is a terminal.
    """
    from rich.progress import Progress

    from evaluators.dataset import read_dataset

    classes = arguments.get("classes")
    with Progress(console=screen, transient=True, disable=screen is None or not screen.is_terminal) as progress:
        bar = progress.add_task("reading images and labels", total=None)
        return read_dataset(
            data,
            skip_bad,
            single_cls=bool(arguments.get("single_cls")),
            classes=[classes] if isinstance(classes, int) else classes,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )

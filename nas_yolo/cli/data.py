"""`check-data`, and what `search` shows of the data before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from nas_yolo.cli.options import console, json_option, print_json, skip_bad_option

if TYPE_CHECKING:
    from rich.console import Console

    from evaluators.dataset import Reading


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
    from nas_yolo.application.arguments import parse_training
    from nas_yolo.report.data import reading_document, show_reading

    screen = console(as_json)
    reading = read_with_bar(data, skip_bad, parse_training(training), screen)
    if as_json:
        print_json(reading_document(reading))
    else:
        show_reading(screen, reading)
    reading.checked("; --skip-bad leaves such images out")


class DataReader:
    """Reads the data of a search; shows how far it is, and then what is wrong, if that is more than a line can say.

    Attributes:
        screen: Where.
        reading: What was read, after the call.
    """

    reading: Reading

    def __init__(self, screen: Console):
        self.screen = screen

    def __call__(self, data: str, skip_bad: bool, arguments: Mapping[str, Any]) -> Reading:
        """Read them."""
        from nas_yolo.report.data import show_reading

        self.reading = read_with_bar(data, skip_bad, arguments, self.screen)
        if len(self.reading.problems) > 1:
            show_reading(self.screen, self.reading)
        return self.reading


def read_with_bar(data: str, skip_bad: bool, arguments: Mapping[str, Any], screen: Console) -> Reading:
    """Read a data set, as `read_data` does; on a terminal, a bar shows how far it is."""
    from rich.progress import Progress

    from nas_yolo.application.data import read_data

    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("reading images and labels", total=None)
        return read_data(
            data, skip_bad, arguments, lambda done, total: progress.update(bar, completed=done, total=total)
        )

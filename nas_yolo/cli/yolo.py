"""`yolo`."""

from __future__ import annotations

import sys

import click


@click.command(
    "yolo", context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def yolo_command(arguments: tuple[str, ...]) -> None:
    """Ultralytics' own command line, with nas-yolo's blocks known.

    \b
    Example:
      nas-yolo yolo train model=best.yaml data=my.yaml epochs=300
    """
    from search_spaces import hook

    hook.install()
    from ultralytics.cfg import entrypoint

    sys.argv[:] = ["yolo", *arguments]  # in place: Ultralytics took hold of the list when it was imported
    entrypoint()

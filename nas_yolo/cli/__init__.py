"""The command line. One file per group of commands; each imports what it needs when it runs: help is instant."""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

# Command: (module, name of the function, one line of help). Listing them here spares importing them for --help.
COMMANDS = {
    "search": ("search", "Search for detectors for your data and your device."),
    "resume": ("search", "Go on with a search that was stopped or killed, or has more budget now."),
    "list": ("results", "List all searches."),
    "status": ("results", "Show how a search stands, trial by trial."),
    "front": ("results", "Show the Pareto front of a search."),
    "export": ("results", "Write a trial as a model YAML to train with Ultralytics."),
    "train": ("train", "Train a trial on, to a full model."),
    "validate": ("validate", "Validate a trial's exported file: the accuracy of what is deployed."),
    "library": ("library", "List, show and remove libraries of blocks that imitate the stock model."),
    "dashboard": ("dashboard", "Open optuna-dashboard on your searches."),
    "check-data": ("data", "Show what is used of a data set, and what is not."),
    "profile": ("models", "Measure a model: parameters, GFLOPs, latency."),
    "models": ("models", "List known designs."),
    "spaces": ("models", "List search spaces."),
    "target": ("target", "Add, list, check and remove devices to measure on."),
    "yolo": ("yolo", "Ultralytics' own command line, with nas-yolo's blocks."),
    "doctor": ("doctor", "Check that everything that a search needs is there."),
    "demo": ("demo", "Run a real search on an embedded data set, in minutes."),
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used; turns errors that a user can mend into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"nas_yolo.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Name the nearest command when there is none of that name."""
        if args and args[0] not in COMMANDS:
            from search_spaces.names import unknown

            ctx.fail(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a `UserError` becomes `Error: ...` and exit 1, unless --debug asks for the traceback."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from search_spaces.errors import UserError

            if isinstance(error, UserError) and not ctx.params["debug"]:
                raise click.ClickException(str(error)) from error
            raise


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nas-yolo")
@click.option("--debug", is_flag=True, help="Show tracebacks of expected errors.")
def main(debug: bool) -> None:
    """Neural architecture search for YOLO detectors, on your data and for your device.

    \b
    nas-yolo demo                                             a real search in minutes, nothing to prepare
    nas-yolo search --data my.yaml --target cpu --budget 8h   your images
    nas-yolo front my                                         what it found
    nas-yolo export my -o best.yaml                           the best, ready to train
    nas-yolo train my --epochs 300                            the best, trained to a full model
    """
    from nas_yolo.environment import ultralytics_environment, users_environment

    command = click.get_current_context().invoked_subcommand
    if command == "train":  # the user's own settings hold
        os.environ.update(users_environment())
    elif command != "yolo":  # there, everything is the user's own
        os.environ.update(ultralytics_environment())

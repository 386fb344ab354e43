"""`search` and `resume`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas_yolo.cli.interrupt import sigterm_as_ctrl_c
from nas_yolo.cli.options import (
    IMGSZ_HELP,
    console,
    gpus_per_trial_option,
    json_option,
    open_repository,
    postprocess_option,
    print_json,
    skip_bad_option,
    storage_option,
    targets_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from nas_yolo.application import OpenSearch
    from storage import Repository, Search

EXAMPLES = """
    \b
    Examples:
      nas-yolo search --data my.yaml --target cpu --budget 8h
      nas-yolo search --data my.yaml --target cpu --budget 50gpu-h --epochs 150 --imgsz 512
      nas-yolo search --data my.yaml --target cpu --budget 200trials --limit "latency_ms<=12" --train batch=32
      nas-yolo search --data my.yaml --target jetson --target rpi5 --budget 50gpu-h
"""


@click.command("search", epilog=EXAMPLES)
@click.option("--data", required=True, metavar="YAML", help="Your labelled images, in the Ultralytics layout.")
@click.option(
    "--target",
    "targets",
    required=True,
    multiple=True,
    metavar="NAME",
    help="Device to be fast on (nas-yolo target list). Repeatable: one training serves all, each gets a front.",
)
@targets_option
@postprocess_option
@click.option(
    "--budget",
    "budgets",
    required=True,
    multiple=True,
    metavar="AMOUNT",
    help="What the search may spend: 50gpu-h, 2cpu-h, 8h, 30min, 200trials. Repeatable; the first to run out ends it.",
)
@click.option(
    "--space",
    default="yolov8n",
    show_default=True,
    help="Search space: a name (nas-yolo spaces), a YAML, or your own model (model.yaml, best.pt) to search around.",
)
@click.option(
    "--blocks",
    type=click.Choice(["all", "stock"]),
    default="all",
    show_default=True,
    help="stock: only designs that Ultralytics loads without nas-yolo.",
)
@click.option("--name", help="Of the search. Default: from the data file.")
@storage_option
@click.option("--imgsz", default="640", show_default=True, help=IMGSZ_HELP)
@click.option("--epochs", default=100, show_default=True, help="Of a full training.")
@click.option("--limit", "limits", multiple=True, metavar="TEXT", help='E.g. "latency_ms<=12", "params_m<=3".')
@click.option(
    "--pretrained",
    metavar="W",
    help="Begin with the weights of this Ultralytics checkpoint: a file, or a name such as yolov8n.pt, which is "
    "downloaded. The stock model that blocks imitate is trained on from them; with --inherit, every design is.",
)
@click.option(
    "--inherit/--from-scratch",
    "inherit",
    default=None,
    help="Begin trainings with what fits of the stock model's weights, or with random ones. Default: with the weights "
    "of blocks that learned to imitate the stock model, which is trained first on your data.",
)
@click.option(
    "--trial-time",
    metavar="AMOUNT",
    help="End a training after this time, e.g. 2h, while no other tells how long one should take. Default: never.",
)
@click.option(
    "--sampler",
    default="frontier",
    show_default=True,
    help="Who decides: frontier, or Optuna's tpe, nsga2, gp or random with successive halving.",
)
@click.option(
    "--train", "training", multiple=True, metavar="KEY=VALUE", help="Ultralytics training argument, e.g. batch=32."
)
@click.option("--workers", type=click.IntRange(1), help="Trainings at once. Default: one per core, or per GPU.")
@gpus_per_trial_option
@click.option("--runner", default="ray", show_default=True, help="ray, or local: in this process, to debug.")
@click.option(
    "--warm-start/--no-warm-start",
    default=True,
    show_default=True,
    help="Learn from earlier searches in the same storage.",
)
@click.option(
    "--repeats",
    type=click.IntRange(0),
    help="Finalists trained once more with another seed, to know which differences are chance. Default: 2 where they "
    "take at most a tenth of the budget, else 0.",
)
@click.option(
    "--artifacts",
    metavar="URL",
    envvar="NAS_YOLO_ARTIFACTS",
    help="Where checkpoints are kept: a folder, or a URL such as s3://bucket/searches (needs fsspec's package for it, "
    "e.g. s3fs). Default: beside the database.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@skip_bad_option
@json_option
def search_command(**given: Any) -> None:
    """Search for detectors for your data and your device.

    Trains stock YOLO and the known designs first, then what the sampler proposes; measures every candidate's latency
    before its first epoch. Ctrl-C stops it and keeps everything; nas-yolo resume goes on.
    """
    from nas_yolo.application import create_search, free_name, make_config
    from nas_yolo.cli.data import DataReader
    from nas_yolo.report.data import show_reading

    repository = open_repository(given.pop("url"))
    as_json, name = given.pop("as_json"), given.pop("name")
    reader = DataReader(console(as_json))
    config = make_config(**given, read=reader)
    search = create_search(repository, name or free_name(repository, Path(given["data"])), config)
    show_reading(reader.screen, reader.reading)
    run_and_show(repository, search, as_json, checked=True)


@click.command("resume")
@click.argument("name")
@click.option(
    "--budget", "budgets", multiple=True, metavar="AMOUNT", help="Replace the budget: the whole, not what is left."
)
@storage_option
@json_option
def resume_command(name: str, budgets: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Go on with a search that was stopped or killed, or that gets more budget.

    \b
    Examples:
      nas-yolo resume my
      nas-yolo resume my --budget 100gpu-h
    """
    repository = open_repository(url)
    run_and_show(repository, repository.search(name), as_json, budgets)


def run_and_show(
    repository: Repository, search: Search, as_json: bool, budgets: Sequence[str] = (), checked: bool = False
) -> None:
    """Run a search to its end, show progress and the result; `budgets` and `checked` as of `open_search`.

    Raises:
        UserError: If it cannot run here and now.
    """
    from nas_yolo.application import open_search
    from nas_yolo.report.views import LineView, LiveView

    screen = console(as_json)

    def tell_of_probe() -> None:
        screen.print("Measuring how many trainings share a GPU: a minute or two", soft_wrap=True)

    try:
        with sigterm_as_ctrl_c(), open_search(repository, search, budgets, checked, tell_of_probe) as opened:
            announce(screen, opened)
            view = LiveView(screen) if screen.is_terminal and not as_json else LineView(screen)
            # Ray prints what happens to its workers on standard output, which belongs to the result.
            with closing(view), open(opened.folder / "ray.log", "a", encoding="utf-8") as log, redirect_stdout(log):
                opened.run(view)
    except KeyboardInterrupt:
        screen.print(f"Stopped; nothing is lost. Go on with: nas-yolo resume {search.name}", soft_wrap=True)
        raise SystemExit(130) from None
    show_result(repository, opened.search, as_json)


def announce(screen: Console, opened: OpenSearch) -> None:
    """Say what is about to run, and on what."""
    from evaluators.packing import Packing
    from nas_yolo.report.tables import count_text

    config, allotment = opened.config, opened.allotment
    if allotment.on_gpu and config.packing:
        screen.print(str(Packing.from_document(config.packing)), soft_wrap=True)
    screen.print(
        f"Search [bold]{opened.search.name}[/bold]: {count_text(config.space.size)} architectures, "
        f"{config.dataset.train_images} images, {allotment.slots} at once on {'GPU' if allotment.on_gpu else 'CPU'}",
        soft_wrap=True,
    )


def show_result(repository: Repository, search: Search, as_json: bool) -> None:
    """Print the front, write the best as a model file."""
    from nas_yolo.application import write_best
    from nas_yolo.application.data import MEANING
    from nas_yolo.config import SearchConfig
    from nas_yolo.report.tables import front_table
    from nas_yolo.results import NoSuchTrialError, designs, front_document, trust_text

    config = SearchConfig.from_document(search.config)
    trials = repository.trials(search)
    screen = console(as_json)
    for target, _ in config.targets:
        screen.print(front_table(trials, config, target.name))
    screen.print(trust_text(trials, config), soft_wrap=True)
    tried = designs(trials)
    trained, ended = sum(bool(trial.epochs) for trial in tried), sum(trial.state == "complete" for trial in tried)
    text = f"{len(tried)} architectures measured, {trained} of them trained, {ended} to the end."
    screen.print(text, soft_wrap=True)
    for target, _ in config.targets:
        on = f" on {target.name}" if len(config.targets) > 1 else ""
        try:
            best = write_best(repository, search, target.name)
        except NoSuchTrialError as error:
            screen.print(f"{str(error).capitalize()}{on}", soft_wrap=True)
            continue
        screen.print(f"Best{on} (trial {best.trial.number}): {best.model}", soft_wrap=True)
        meant = {key: str(config.training[key]).replace(" ", "") for key in MEANING if key in config.training}
        command = " ".join(["yolo train", f"model={best.model}", f"data={best.data}", *map("=".join, meant.items())])
        if not config.imgsz.is_square:  # Ultralytics would train it on squares
            command = f"train {search.name} --trial {best.trial.number}"
        screen.print(f"Train it:   nas-yolo {command}", soft_wrap=True)
    screen.print(f"Dashboard:  nas-yolo dashboard {search.name}", soft_wrap=True)
    if as_json:
        print_json(front_document(search, config, trials, repository.spent(search)))

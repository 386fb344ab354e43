"""`train`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas_yolo.cli.interrupt import sigterm_as_ctrl_c
from nas_yolo.cli.options import chosen_trial, console, json_option, open_repository, print_json, storage_option

if TYPE_CHECKING:
    from nas_yolo.config import SearchConfig
    from storage import Repository, Search, Trial

EPOCHS = 300

# Ultralytics arguments that make no sense here, and why.
REFUSED = {
    "model": "cannot be given: the network is the trial's; choose another with --trial",
    "pretrained": "cannot be given: the first weights are the trial's; choose another with --trial",
    "epochs": "is an option: --epochs 300",
    "cfg": "cannot be given: write its arguments one by one, e.g. batch=32",
    "single_cls": "cannot be given: whether boxes count as one class is as in the search",
    "task": "cannot be given: a trial is a detector",
    "save": "cannot be given: the weights are what a training is for",
    "mode": "cannot be given: this command trains; see nas-yolo yolo for the rest",
}

EXAMPLES = """
    \b
    Examples:
      nas-yolo train my
      nas-yolo train my --max-latency 8 --epochs 300 batch=32 device=0
      nas-yolo train my --trial 7 --epochs 100 device=0,1 project=/data/runs name=final
      nas-yolo train my --trial 7 resume=True
      nas-yolo yolo predict model=runs/detect/my-trial-7/weights/best.pt source=images/
"""


@dataclass(frozen=True)
class Chosen:
    """The trial that is trained on."""

    repository: Repository
    search: Search
    config: SearchConfig
    trial: Trial


@click.command("train", epilog=EXAMPLES)
@click.argument("name")
@click.argument("given", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--trial", "number", type=int, help="Which trial. Default: the most accurate that is as fast as the stock model."
)
@click.option("--max-latency", type=float, metavar="MS", help="Instead: the most accurate within so many milliseconds.")
@click.option("--epochs", type=click.IntRange(1), help=f"To train, on top of the search's.  [default: {EPOCHS}]")
@storage_option
@json_option
def train_command(
    name: str,
    given: tuple[str, ...],
    number: int | None,
    max_latency: float | None,
    epochs: int | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Train a trial on, to a full model: Ultralytics' own training, begun with the trial's weights.

    Data, image size and training arguments are the search's; any Ultralytics argument may be given as KEY=VALUE. The
    run folder is that of `yolo train`: plots, results.csv, weights/best.pt and weights/last.pt. After Ctrl-C or a
    crash, resume=True goes on with the trial's last run, resume=PATH with the last.pt of another.
    """
    from nas_yolo.application.arguments import parse_arguments
    from nas_yolo.config import SearchConfig
    from search_spaces import UserError
    from search_spaces.image_size import ImageSize

    repository = open_repository(url)
    search = repository.search(name)
    config = SearchConfig.from_document(search.config)
    trial = chosen_trial(search, repository.trials(search), config, number, max_latency)
    chosen = Chosen(repository, search, config, trial)
    with _standard_output_kept(as_json):
        arguments = parse_arguments(given, REFUSED)
        if not isinstance(size := arguments.get("imgsz", 0), int):
            arguments["imgsz"] = ImageSize.parse(size, "imgsz").argument
        if resume := arguments.pop("resume", None):
            if epochs is not None:
                raise UserError("--epochs cannot be given: a resumed run goes on to the epochs that it was begun with")
            overrides = _resumed(chosen, arguments, resume)
        else:
            overrides = _begun(chosen, arguments, epochs or EPOCHS)
        best = _train(chosen, overrides, as_json)
    _show(chosen, best, as_json)


def _begun(chosen: Chosen, arguments: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Ultralytics' arguments for a new run.

    Raises:
        UserError: If the trial has no weights, or the data do not fit it.
    """
    from search_spaces import UserError
    from search_spaces.hook import model_file

    config, trial = chosen.config, chosen.trial
    checkpoint = chosen.repository.checkpoint(chosen.search, trial.number)
    if not checkpoint.exists():
        raise UserError(f"trial {trial.number} has no trained weights; choose another with --trial")
    if config.training.get("single_cls") and len(config.dataset.names) > 1:
        raise UserError(
            "the search trained with single_cls=True, but networks for all classes: it is of an earlier kind"
        )
    data = _check_data(chosen, arguments.pop("data", None))
    nms_free = model_file(trial.architecture, len(config.dataset.names)).get("end2end")
    return {
        **({"nms": False} if nms_free else {}),  # the half of the head that is deployed
        # Ultralytics' 0.1 is for a head with random weights; it would spoil a trained one.
        "warmup_bias_lr": 0.0,
        **config.training,
        **({"batch": trial.batch} if trial.batch else {}),
        "seed": config.seed,
        "data": str(data),
        "imgsz": config.imgsz_of(trial.architecture).argument,
        "name": _run_name(chosen),
        **arguments,
        "model": str(checkpoint),
        "epochs": epochs,
    }


def _resumed(chosen: Chosen, arguments: dict[str, Any], resume: Any) -> dict[str, Any]:
    """Ultralytics' arguments to go on with a run.

    Raises:
        UserError: If there is no such run, it has ended, or it is not one of the trial.
    """
    from evaluators.accuracy.full import first_network, layers_of, read_weights
    from search_spaces import UserError

    last = _last_run(chosen, arguments) if resume is True else Path(str(resume)).absolute()
    if not last.is_file():
        raise UserError(f"{last} does not exist; give the weights/last.pt of a run, or resume=True for the last one")
    try:
        saved = read_weights(last)
    except ValueError as error:
        raise UserError(f"{error}; give the weights/last.pt of a run") from error
    network = first_network(chosen.trial.architecture, len(chosen.config.dataset.names))
    if saved.layers != layers_of(network.yaml):
        raise UserError(f"{last} is no training of trial {chosen.trial.number}; choose its trial with --trial")
    if not saved.resumable:
        raise UserError(f"the training of {last} has ended, nothing is left to resume; leave resume out for another")
    _check_data(chosen, saved.arguments["data"])
    rest = {key: value for key, value in arguments.items() if key not in ("project", "name")}
    return {**rest, "resume": str(last), "save_dir": str(last.parent.parent)}


def _check_data(chosen: Chosen, given: str | None) -> Path:
    """A data file that means the same from any folder: of the search's own data, as they were, or of others.

    Raises:
        UserError: If they changed and were not asked for, or do not have the trial's classes.
    """
    from evaluators.dataset import find_change, load_dataset, write_data_file
    from nas_yolo.application.checks import change_text
    from search_spaces import UserError

    known, folder = chosen.config.dataset, chosen.repository.run_folder(chosen.search)
    change = find_change(known)
    if given is None or Path(given).resolve() == _own_data(chosen).resolve():
        if change:
            raise UserError(
                f"the data of {known.file} {change_text(change, chosen.search.name)}: put them back, or train on them "
                f"as they are: data={known.file}"
            )
        return write_data_file(known, folder)
    if Path(given).resolve() == Path(known.file).resolve() and not change:
        return write_data_file(known, folder)
    data = load_dataset(given, single_cls=known.single_cls, classes=known.classes)
    if data.names != known.names:
        raise UserError(
            f"{data.file} has {len(data.names)} classes ({', '.join(data.names[:5])} ...), the trial was trained for "
            f"{len(known.names)} ({', '.join(known.names[:5])} ...); give data with the same classes in the same order"
        )
    return write_data_file(data, folder / f"data-{data.fingerprint}")


def _own_data(chosen: Chosen) -> Path:
    return chosen.repository.run_folder(chosen.search) / "data.yaml"


def _run_name(chosen: Chosen) -> str:
    return f"{chosen.search.name}-trial-{chosen.trial.number}"


def _last_run(chosen: Chosen, arguments: dict[str, Any]) -> Path:
    """The `last.pt` that was written last, of all runs that the same arguments have begun."""
    from evaluators.accuracy.full import run_folder
    from search_spaces import UserError

    place = {key: value for key, value in arguments.items() if key in ("project", "name")}
    folder = run_folder({"name": _run_name(chosen), **place})
    names = re.compile(re.escape(folder.name) + r"(-?\d+)?")
    found = [file for file in folder.parent.glob("*/weights/last.pt") if names.fullmatch(file.parts[-3])]
    if not found:
        raise UserError(f"there is no run {folder} to resume; give the path of its weights: resume=.../weights/last.pt")
    return max(found, key=lambda file: file.stat().st_mtime)


def _train(chosen: Chosen, overrides: dict[str, Any], as_json: bool) -> Path:
    """Train to the end; returns `best.pt`.

    Raises:
        UserError: If the device is not there, memory ran out, or a process of a training on several GPUs died.
    """
    from evaluators.accuracy.full import FinalTrainer
    from search_spaces import UserError

    try:
        trainer = FinalTrainer(overrides=overrides)
    except (TypeError, ValueError) as error:
        raise UserError(str(error).strip().splitlines()[0]) from error
    try:
        with sigterm_as_ctrl_c():
            trainer.train()
    except KeyboardInterrupt:
        console(as_json).print(f"Stopped. {_how_to_go_on(chosen, trainer.last)}", soft_wrap=True)
        raise SystemExit(130) from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"a training process failed, as said above. {_how_to_go_on(chosen, trainer.last)}") from error
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise UserError(f"memory ran out with batch={trainer.batch_size}; give a smaller one, e.g. batch=8") from error
    best: Path = trainer.best
    return best


def _how_to_go_on(chosen: Chosen, last: Path) -> str:
    if not last.exists():
        return "No epoch was finished: begin anew."
    return f"Go on with: nas-yolo train {chosen.search.name} --trial {chosen.trial.number} resume={last}"


def _show(chosen: Chosen, best: Path, as_json: bool) -> None:
    """Where the model is, how accurate it was and is, and what to do with it."""
    from evaluators.accuracy.full import read_weights
    from nas_yolo.design_files import design_of
    from search_spaces.image_size import ImageSize

    search, config, trial = chosen.search, chosen.config, chosen.trial
    saved = read_weights(best)
    searched_at, trained_at = config.imgsz_of(trial.architecture), ImageSize.from_argument(saved.arguments["imgsz"])
    design = design_of(search.name, config, trial)
    if as_json:
        return print_json(
            {
                "name": search.name,
                "trial": trial.number,
                "path": str(best.parent.parent),
                "weights": str(best),
                "kind": "needs nas-yolo" if design.needs else "stock",
                "needs_nas_yolo": list(design.needs),
                "data": saved.arguments["data"],
                "before": {"map50_95": trial.map50_95, "epochs": trial.validated_epochs, "imgsz": searched_at.plain},
                "after": {"map50_95": saved.map50_95, "epochs": saved.epochs, "imgsz": trained_at.plain},
            }
        )
    screen = console()
    before = "-" if trial.map50_95 is None else f"{trial.map50_95:.3f}"
    screen.print(f"Trial {trial.number} of {search.name}, trained on: {best.parent.parent}", soft_wrap=True)
    searched = f"{trial.validated_epochs} epoch{'s' if trial.validated_epochs > 1 else ''}"
    text = f"{before} after the search's {searched} at {searched_at} px"
    text += f", now {saved.map50_95:.3f}, the best of {saved.epochs} more at {trained_at} px"
    screen.print(f"mAP50-95: {text}", soft_wrap=True)
    if Path(saved.arguments["data"]) not in (_own_data(chosen), Path(config.dataset.file)):
        screen.print(f"The first on the search's data, the second on {saved.arguments['data']}", soft_wrap=True)
    command = "nas-yolo yolo" if design.needs else "yolo"
    nms = " nms=False" if design.model_file.get("end2end") else ""
    size = f"imgsz={trained_at}" if trained_at.is_square else f"imgsz={trained_at.height},{trained_at.width}"
    commands = {
        "predict": f"model={best} {size}{nms} source=...",
        "val": f"model={best} {size}{nms} data={saved.arguments['data']}",
        "export": f"model={best} {size}{nms} format=onnx",
    }
    if not trained_at.is_square:  # Ultralytics validates a network on squares, an exported file at the file's size
        del commands["val"]
        commands["val"] = f"model={best.with_suffix('.onnx')}{nms} data={saved.arguments['data']}"
    why = f"needs nas-yolo, for {', '.join(design.needs)}" if design.needs else "stock, Ultralytics alone loads it"
    screen.print(f"Next ({why}):", soft_wrap=True)
    for task, arguments in commands.items():
        screen.print(f"  {command} {task} {arguments}", soft_wrap=True)
    return None


@contextmanager
def _standard_output_kept(for_json: bool) -> Iterator[None]:
    """Let Ultralytics and the processes that it starts write to standard error, where JSON has standard output."""
    if not for_json:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)

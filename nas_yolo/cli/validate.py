"""`validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nas_yolo.cli.options import chosen_trial, console, json_option, open_repository, print_json, storage_option

if TYPE_CHECKING:
    from rich.console import Console

    from evaluators.accuracy.request import DeployedRequest
    from evaluators.evaluation import DeployedAccuracy
    from evaluators.target import Target


@click.command("validate")
@click.argument("name")
@click.option(
    "--trial", "number", type=int, help="Which trial. Default: the most accurate that is as fast as the stock model."
)
@click.option(
    "--target",
    "given",
    multiple=True,
    metavar="NAME",
    help="Whose runtime and precision. Repeatable. Default: the search's targets.",
)
@storage_option
@json_option
def validate_command(name: str, number: int | None, given: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Validate a trial's exported file: the accuracy of what is deployed, beside that of PyTorch.

    Exports the trained network as for the target and runs Ultralytics' validation on all validation images, with the
    target's runtime on this machine. int8 is calibrated on training images.

    \b
    Examples:
      nas-yolo validate my
      nas-yolo validate my --trial 7 --target openvino
      nas-yolo validate my --target cpu --target nano --json
    """
    from evaluators.accuracy.checkpoints import trained_epochs
    from evaluators.accuracy.request import DeployedRequest
    from evaluators.errors import LatencyError
    from evaluators.target import get_target
    from nas_yolo.application.checks import check_dataset
    from nas_yolo.config import SearchConfig
    from nas_yolo.environment import count_cores
    from nas_yolo.results import deployed_document
    from search_spaces import UserError

    repository = open_repository(url)
    search = repository.search(name)
    config = SearchConfig.from_document(search.config)
    own = {target.name: target for target, _ in config.targets}
    targets = [own[one] if one in own else get_target(one) for one in dict.fromkeys(given or own)]
    trial = chosen_trial(search, repository.trials(search), config, number)
    checkpoint = repository.checkpoint(search, trial.number)
    if not trial.epochs or not checkpoint.exists():
        raise UserError(f"trial {trial.number} has no trained weights; choose another with --trial")
    check_dataset(search)
    screen = console(as_json)
    imgsz, epochs = config.imgsz_of(trial.architecture), trained_epochs(checkpoint)
    found: list[tuple[Target, DeployedAccuracy]] = []
    failed = []
    for target in targets:
        request = DeployedRequest(
            trial.architecture, checkpoint, epochs, config.dataset, imgsz, target, count_cores(), config.training
        )
        try:
            accuracy = _validate(request, screen)
        except LatencyError as error:
            failed.append(f"trial {trial.number} was not validated on {target.name}: {error}")
        else:
            repository.add_deployed(search, trial.number, accuracy)
            found.append((target, accuracy))
    if found and as_json:
        documents = {
            target.name: deployed_document(accuracy) | {"runtime": target.runtime, "runtime_of": _runtime_of(target)}
            for target, accuracy in found
        }
        print_json({"name": name, "trial": trial.number, "imgsz": imgsz.plain, "deployed": documents})
    elif found:
        screen.print(f"Trial {trial.number} of {name}, {epochs} epochs, {config.dataset.val_images} images, {imgsz} px")
        _print_table(found)
    if failed:
        raise UserError("; ".join(failed))


def _validate(request: DeployedRequest, screen: Console) -> DeployedAccuracy:
    from rich.progress import Progress

    from evaluators.accuracy.deployed import validate_deployed

    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bars:
        bar = bars.add_task(request.target.name, total=request.dataset.val_images)
        return validate_deployed(request, lambda images: bars.update(bar, completed=images))


def _runtime_of(target: Target) -> str:
    return "target" if target.is_local and target.python is None else "this machine"


def _print_table(found: list[tuple[Target, DeployedAccuracy]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("target", "precision", box=SIMPLE_HEAD)
    for heading in ("mAP50-95 PyTorch", "deployed", "difference", "mAP50 PyTorch", "deployed", "difference"):
        table.add_column(heading, justify="right")
    for target, accuracy in found:
        cells = []
        for deployed, torch in (
            (accuracy.map50_95, accuracy.torch_map50_95),
            (accuracy.map50, accuracy.torch_map50),
        ):
            cells += [f"{torch:.3f}", f"{deployed:.3f}", f"{deployed - torch:+.3f}"]
        table.add_row(target.name, accuracy.precision, *cells)
    console().print(table)
    for target, _ in found:
        if _runtime_of(target) == "this machine":
            text = f"{target.name}: computed by this machine's {target.runtime}, not by the device's."
            console().print(text, soft_wrap=True)

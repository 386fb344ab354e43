"""`search` and `resume`."""

from __future__ import annotations

import hashlib
import re
import signal
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

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

    from evaluators.dataset import Change, Dataset, Reading
    from evaluators.target import Target
    from nas_yolo.budget import Budget
    from nas_yolo.config import SearchConfig
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
    help="Begin trainings with the weights of this Ultralytics checkpoint: a file, or a name such as yolov8n.pt, which "
    "is downloaded.",
)
@click.option(
    "--inherit/--from-scratch",
    "inherit",
    default=None,
    help="Begin trainings with the weights of the stock model, which is trained first on your data; or with random "
    "ones. Default: inherit.",
)
@click.option(
    "--subset",
    default=1.0,
    show_default=True,
    help="Share of the training images that the first rung sees; grows to 1.",
)
@click.option("--small-imgsz", help="Image size of trainings below the last rung, of the same shape. Default: --imgsz.")
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
    from nas_yolo.report.data import show_reading

    repository = open_repository(given.pop("url"))
    as_json, name = given.pop("as_json"), given.pop("name")
    readings: list[Reading] = []
    config = make_config(**given, screen=console(as_json), readings=readings)
    name = name or free_name(repository, Path(given["data"]))
    search = start_search(repository, name, config)
    show_reading(console(as_json), readings[0])
    run_search(repository, search, as_json)


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
    search = repository.search(name)
    if budgets:
        from nas_yolo.budget import parse_budget

        parsed = [parse_budget(text) for text in budgets]
        check_devices(parsed)
        search = repository.set_config(search, search.config | {"budgets": [budget.text for budget in parsed]})
    check_dataset(search)
    check_pretrained(search)
    if artifacts := search.config.get("artifacts"):
        from evaluators.location import check_writable

        check_writable(artifacts)
    check_targets(search)
    run_search(repository, search, as_json)


def make_config(
    data: str,
    targets: tuple[str, ...],
    budgets: tuple[str, ...],
    space: str = "yolov8n",
    blocks: str = "all",
    imgsz: int | str = 640,
    epochs: int = 100,
    limits: tuple[str, ...] = (),
    sampler: str = "frontier",
    training: tuple[str, ...] = (),
    workers: int | None = None,
    gpus_per_trial: float | Literal["auto"] = 1.0,
    runner: str = "ray",
    seed: int = 0,
    warm_start: bool = True,
    repeats: int | None = None,
    pretrained: str | None = None,
    inherit: bool | None = None,
    subset: float = 1.0,
    small_imgsz: int | str | None = None,
    trial_time: str | None = None,
    artifacts: str | None = None,
    targets_file: Path | None = None,
    with_postprocess: bool = False,
    skip_bad: bool = False,
    screen: Console | None = None,
    readings: list[Reading] | None = None,
) -> SearchConfig:
    """Check everything that was given, cheapest first, before anything is spent.

    Progress of reading the data is shown on the screen, if there is one, and what is wrong with them, if that is more
    than a line can say. What was read is added to the readings.

    Raises:
        UserError: With one line on what to do.
    """
    from evaluators.latency import fingerprint_of
    from evaluators.location import absolute, check_writable
    from evaluators.target import get_target
    from nas_yolo.budget import parse_budget
    from nas_yolo.cli.data import read_data
    from nas_yolo.config import DEFAULT_WEIGHTS, SearchConfig, Weights
    from nas_yolo.objective import check_feasible, parse_limit
    from nas_yolo.packing import fixed_batch
    from nas_yolo.report.data import show_reading
    from nas_yolo.samplers import check_sampler
    from search_spaces import UserError
    from search_spaces.image_size import ImageSize
    from search_spaces.names import unknown
    from search_spaces.space_file import load_space

    size = ImageSize.parse(imgsz, "--imgsz")
    small = None if small_imgsz is None else ImageSize.parse(small_imgsz, "--small-imgsz")
    if epochs < 1:
        raise UserError(f"--epochs {epochs} must be at least 1")
    if not 0 < subset <= 1:
        raise UserError(f"--subset {subset:g} must be above 0 and at most 1, e.g. 0.25")
    if pretrained is not None and inherit is False:
        raise UserError("give --pretrained or --from-scratch, not both")
    if runner not in ("ray", "local"):
        raise UserError(unknown("runner", runner, ("ray", "local")))
    parsed_budgets = tuple(map(parse_budget, budgets))
    parsed_limits = tuple(map(parse_limit, limits))
    check_sampler(sampler)
    chosen = [replace(get_target(name, targets_file), postprocess=with_postprocess) for name in dict.fromkeys(targets)]
    loaded = load_space(space)
    if blocks == "stock":
        loaded = loaded.restricted_to_stock()
    sizes = loaded.choices.get("imgsz", (size.plain,))
    if size.plain not in sizes:
        raise UserError(f"--imgsz {size}, for the stock model, must be one that the space chooses from: {sizes}")
    smallest = ImageSize.parse(min(sizes))
    if small and small != (alike := smallest.at_width(min(small.width, smallest.width))):
        raise UserError(f"--small-imgsz {small} must be no larger than {smallest}, and of its shape, e.g. {alike}")
    arguments = parse_training(training)
    if gpus_per_trial == "auto":
        fixed_batch(arguments)
    check_devices(parsed_budgets)
    reading = read_data(data, skip_bad, arguments, screen)
    if readings is not None:
        readings.append(reading)
    if screen and len(reading.problems) > 1:
        show_reading(screen, reading)
    dataset: Dataset = reading.checked("; search --skip-bad leaves such images out")
    check_feasible(parsed_limits, loaded, len(dataset.names), size)
    store = None if artifacts is None else absolute(artifacts)
    if store is not None:
        check_writable(store)
    checkpoint = None if pretrained is None else find_checkpoint(pretrained)
    digest = None if checkpoint is None else checkpoint_digest(checkpoint)
    weights: Weights = DEFAULT_WEIGHTS
    if pretrained is not None or inherit is not None:
        weights = "scratch" if inherit is False else "inherited"
    identities = {target.name: ask_target(target) for target in chosen}
    return SearchConfig(
        dataset=dataset,
        space=loaded,
        targets=tuple((target, fingerprint_of(identities[target.name])) for target in chosen),
        identities=identities,
        imgsz=size,
        epochs=epochs,
        budgets=parsed_budgets,
        limits=parsed_limits,
        sampler=sampler,
        seed=seed,
        training=arguments,
        runner=runner,
        workers=workers,
        gpus_per_trial=1.0 if gpus_per_trial == "auto" else gpus_per_trial,
        packing={} if gpus_per_trial == "auto" and runner == "ray" else None,
        warm_start=warm_start,
        repeats=repeats,
        weights=weights,
        pretrained=checkpoint,
        pretrained_sha256=digest,
        subset=subset,
        small_imgsz=small,
        trial_time_s=None if trial_time is None else parse_time(trial_time),
        artifacts=store,
    )


def parse_training(given: tuple[str, ...]) -> dict[str, Any]:
    """Read `KEY=VALUE` pairs of Ultralytics training arguments.

    Raises:
        UserError: If one is unknown, of the wrong kind, or decided by the search itself.
    """
    from evaluators.accuracy.request import OWN_ARGUMENTS
    from nas_yolo.cli.arguments import parse_arguments

    reason = "is decided by the search itself (see nas-yolo search --help)"
    return parse_arguments(given, dict.fromkeys(OWN_ARGUMENTS, reason), "--train ")


def parse_time(text: str) -> float:
    """Read `--trial-time`, e.g. `2h`, as seconds.

    Raises:
        UserError: If it is not of that form.
    """
    from nas_yolo.budget import parse_budget
    from search_spaces import UserError

    budget = parse_budget(text)
    if budget.kind != "wall":
        raise UserError(f"--trial-time {text!r} must be a time, e.g. 2h or 30min")
    return budget.limit


def find_checkpoint(given: str) -> str:
    """The absolute path of a checkpoint; one that is only named is downloaded, as Ultralytics does.

    Raises:
        UserError: If it is not there and cannot be downloaded.
    """
    import platformdirs

    from search_spaces import UserError

    path = Path(given).expanduser()
    if path.is_file():
        return str(path.resolve())
    if path.name != given:
        raise UserError(f"--pretrained {given} does not exist; give an Ultralytics checkpoint, e.g. yolov8n.pt")
    from ultralytics.utils.downloads import attempt_download_asset

    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = Path(attempt_download_asset(folder / given))
    except Exception:  # of many libraries, and of the network
        found = folder / given
    if not found.is_file():
        raise UserError(
            f"--pretrained {given} is no file here, and could not be downloaded; give the path of an Ultralytics "
            "checkpoint, or its name (e.g. yolov8n.pt) where there is a network"
        )
    return str(found.resolve())


def checkpoint_digest(checkpoint: str) -> str:
    """The SHA-256 of a checkpoint that holds weights to begin with.

    Raises:
        UserError: If it holds none.
    """
    from evaluators.accuracy.checkpoints import version
    from evaluators.accuracy.inheritance import read_parent

    path = Path(checkpoint)
    read_parent(path, version(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_devices(budgets: tuple[Budget, ...] | list[Budget]) -> None:
    """Refuse a GPU budget where there is no GPU."""
    from nas_yolo.budget import BudgetError

    gpus = count_gpus()
    for budget in budgets:
        if budget.kind == "gpu" and not gpus:
            raise BudgetError(
                f"budget {budget.text}: this machine has no GPU that PyTorch can use; give a budget in wall-clock or "
                "CPU time, e.g. 8h or 16cpu-h"
            )


def check_dataset(search: Search) -> None:
    """Refuse to go on with images or labels that are not those that the search began with.

    Raises:
        UserError: If they are gone or changed.
    """
    from evaluators.dataset import find_change
    from nas_yolo.config import SearchConfig
    from search_spaces import UserError

    known = SearchConfig.from_document(search.config).dataset
    if change := find_change(known):
        raise UserError(
            f"the data of {known.file} {change_text(change, search.name)}; accuracies would not compare: "
            "put them back, or start a new search"
        )


def change_text(change: Change, name: str) -> str:
    """What to say of data that are not what they were when a search began."""
    return f"are gone: {change.text}" if change.gone else f"changed since search {name!r} began: {change.text}"


def check_pretrained(search: Search) -> None:
    """Refuse to go on without the checkpoint that trainings begin with.

    Raises:
        UserError: If it is gone or another.
    """
    from nas_yolo.config import SearchConfig
    from search_spaces import UserError

    config = SearchConfig.from_document(search.config)
    if config.pretrained is None:
        return
    file = Path(config.pretrained)
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != config.pretrained_sha256:
        what = "is another file now" if file.is_file() else "is gone"
        raise UserError(f"{file}, with which the trainings of {search.name!r} begin, {what}: put it back")


def ask_target(target: Target) -> dict[str, Any]:
    """What a target says of itself.

    Raises:
        UserError: If it does not answer, or cannot measure.
    """
    from evaluators.errors import LatencyError
    from evaluators.latency import identify
    from search_spaces import UserError

    try:
        return identify(target)
    except LatencyError as error:
        raise UserError(
            f"target {target.name} cannot be measured on: {error} (nas-yolo target check {target.name})"
        ) from error


def check_targets(search: Search) -> None:
    """Refuse to go on with devices that are not those that the search began with.

    Raises:
        UserError: If one does not answer, or changed, or does not tell whether it did; says what.
    """
    from evaluators.latency import differences, is_changed, is_same
    from nas_yolo.config import SearchConfig
    from search_spaces import UserError

    config = SearchConfig.from_document(search.config)
    for target, known in config.targets:
        identity, before = ask_target(target), config.identities.get(target.name, {})
        if is_same(before, known, identity):
            continue
        told = differences(before, identity) if before else "an earlier nas-yolo measured in another way"
        if before and not is_changed(before, identity):
            raise UserError(
                f"target {target.name!r} does not tell the same of itself as when search {search.name!r} began "
                f"({told}), so whether latencies would compare is not known: put that right, or start a new search"
            )
        raise UserError(
            f"target {target.name!r} is not what it was when search {search.name!r} began ({told}); latencies "
            "would not compare: put it back as it was, or start a new search"
        )


def count_gpus() -> int:
    """GPUs that PyTorch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_name() -> str:
    """Of the first."""
    import torch

    return torch.cuda.get_device_name(0)


def free_name(repository: Repository, data: Path) -> str:
    """A name from the data file: its folder's if the file is just called data.yaml; numbered if taken."""
    stem = data.resolve().parent.name if data.stem == "data" else data.stem
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "search"
    taken = {search.name for search in repository.searches()}
    number = 1
    while (name := stem if number == 1 else f"{stem}-{number}") in taken:
        number += 1
    return name


def start_search(repository: Repository, name: str, config: SearchConfig) -> Search:
    """Add a search to the database.

    Raises:
        UserError: If the name is taken or cannot be a folder's.
    """
    from search_spaces import UserError

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"name {name!r} may have letters, digits, '.', '_' and '-' only, and starts with one of the first two"
        )
    return repository.create_search(name, config.document())


def run_search(repository: Repository, search: Search, as_json: bool) -> None:
    """Run a search to its end, show progress and the result.

    Raises:
        UserError: If it cannot run here and now.
    """
    from evaluators.packing import Packing, trainings_at_once
    from nas_yolo.config import SearchConfig
    from nas_yolo.environment import count_cores
    from nas_yolo.packing import with_packing
    from nas_yolo.report.tables import count_text
    from nas_yolo.report.views import LineView, LiveView
    from nas_yolo.runners import Runner
    from nas_yolo.search import SearchLoop

    config = SearchConfig.from_document(search.config)
    screen = console(as_json)
    folder = repository.run_folder(search)
    folder.mkdir(parents=True, exist_ok=True)
    gpus, cores = count_gpus(), count_cores()
    if config.runner == "local":
        slots = 1
    elif gpus:
        if config.packing is not None:
            device = gpu_name()
            if config.packing.get("device") != device:
                screen.print("Measuring how many trainings share a GPU: a minute or two", soft_wrap=True)
            search = with_packing(repository, search, device, gpus, cores)
            config = SearchConfig.from_document(search.config)
        if config.packing:
            screen.print(str(Packing.from_document(config.packing)), soft_wrap=True)
        fit = trainings_at_once(gpus, config.gpus_per_trial)
        slots = min(config.workers or fit, fit)
    else:
        slots = config.workers or cores
    threads = max(cores // slots, 1)
    with repository.claimed(search):
        screen.print(
            f"Search [bold]{search.name}[/bold]: {count_text(config.space.size)} architectures, "
            f"{config.dataset.train_images} images, {slots} at once on {'GPU' if gpus else 'CPU'}",
            soft_wrap=True,
        )
        view = LiveView(screen) if screen.is_terminal and not as_json else LineView(screen)
        # Ray prints what happens to its workers on standard output, which belongs to the result.
        with open(folder / "ray.log", "a", encoding="utf-8") as log, redirect_stdout(log):
            runner: Runner
            if config.runner == "local":
                from nas_yolo.runners.local import LocalRunner

                runner = LocalRunner()
            else:
                from nas_yolo.runners.ray import RayRunner

                runner = RayRunner(slots, config.gpus_per_trial if gpus else 0.0, folder)
            previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                SearchLoop(repository, search, runner, threads, bool(gpus), view).run()
            except KeyboardInterrupt:
                view.close()
                screen.print(f"Stopped; nothing is lost. Go on with: nas-yolo resume {search.name}", soft_wrap=True)
                raise SystemExit(130) from None
            finally:
                view.close()
                signal.signal(signal.SIGTERM, previous)
                runner.close()
    show_result(repository, search, folder, as_json)


def show_result(repository: Repository, search: Search, folder: Path, as_json: bool) -> None:
    """Print the front, write the best as a model file."""
    from evaluators.dataset import write_data_file
    from nas_yolo.cli.data import MEANING
    from nas_yolo.config import SearchConfig
    from nas_yolo.design_files import design_of, write_yaml
    from nas_yolo.report.tables import front_table
    from nas_yolo.results import NoSuchTrialError, asked, best_trial, front_document, trust_text

    config = SearchConfig.from_document(search.config)
    trials = repository.trials(search)
    screen = console(as_json)
    for target, _ in config.targets:
        screen.print(front_table(trials, config, target.name))
    screen.print(trust_text(trials, config), soft_wrap=True)
    tried = asked(trials)
    trained, ended = sum(bool(trial.epochs) for trial in tried), sum(trial.state == "complete" for trial in tried)
    text = f"{len(tried)} architectures measured, {trained} of them trained, {ended} to the end."
    screen.print(text, soft_wrap=True)
    for place, (target, _) in enumerate(config.targets):
        on = f" on {target.name}" if len(config.targets) > 1 else ""
        try:
            best = best_trial(trials, config, target=target.name)
        except NoSuchTrialError as error:
            screen.print(f"{str(error).capitalize()}{on}", soft_wrap=True)
            continue
        path = folder / (f"best-{target.name}.yaml" if place else "best.yaml")
        write_yaml(design_of(search.name, config, best), path)
        screen.print(f"Best{on} (trial {best.number}): {path}", soft_wrap=True)
        resolved = write_data_file(config.dataset, folder)
        meant = {key: str(config.training[key]).replace(" ", "") for key in MEANING if key in config.training}
        command = " ".join(["yolo train", f"model={path}", f"data={resolved}", *map("=".join, meant.items())])
        if not config.imgsz.is_square:  # Ultralytics would train it on squares
            command = f"train {search.name} --trial {best.number}"
        screen.print(f"Train it:   nas-yolo {command}", soft_wrap=True)
    screen.print(f"Dashboard:  nas-yolo dashboard {search.name}", soft_wrap=True)
    if as_json:
        print_json(front_document(search, config, trials, repository.spent(search)))

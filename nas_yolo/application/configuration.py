"""What a search is asked to do, from what its user gave: checked before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from evaluators.latency import fingerprint_of
from evaluators.location import absolute
from evaluators.target import get_target
from nas_yolo.application import machine
from nas_yolo.application.arguments import parse_training
from nas_yolo.application.checks import ask_target, check_budgets
from nas_yolo.application.data import Reader, read_data
from nas_yolo.application.gpu_share import fixed_batch
from nas_yolo.application.pretrained import find_checkpoint, read_digest
from nas_yolo.budget import parse_budget
from nas_yolo.config import DEFAULT_WEIGHTS, SearchConfig, Weights
from nas_yolo.objective import check_feasible, parse_limit
from nas_yolo.samplers import check_sampler
from search_spaces.errors import UserError
from search_spaces.image_size import ImageSize
from search_spaces.kinds import can_have_library
from search_spaces.names import unknown
from search_spaces.space_file import load_space


def make_config(
    data: str,
    targets: Sequence[str],
    budgets: Sequence[str],
    space: str = "yolov8n",
    blocks: Literal["all", "stock"] = "all",
    imgsz: int | str = 640,
    epochs: int = 100,
    limits: Sequence[str] = (),
    sampler: str = "frontier",
    training: Sequence[str] = (),
    workers: int | None = None,
    gpus_per_trial: float | Literal["auto"] = 1.0,
    runner: str = "ray",
    seed: int = 0,
    warm_start: bool = True,
    repeats: int | None = None,
    pretrained: str | None = None,
    inherit: bool | None = None,
    trial_time: str | None = None,
    artifacts: str | None = None,
    targets_file: Path | None = None,
    with_postprocess: bool = False,
    skip_bad: bool = False,
    read: Reader = read_data,
) -> SearchConfig:
    """Check everything that was given, cheapest first, before anything is spent; nothing of a search is written.

    Args:
        data: The data YAML.
        targets: Names of the devices.
        budgets: E.g. `8h`, `50gpu-h`, `200trials`; the first to run out ends the search.
        space: A name, a YAML, or a model to search around.
        blocks: `stock`: only designs that Ultralytics loads without nas-yolo.
        imgsz: Image size, e.g. 640 or `640x384`.
        epochs: Of a full training.
        limits: E.g. `latency_ms<=12`.
        sampler: Name.
        training: Ultralytics training arguments, e.g. `batch=32`.
        workers: Trainings at once; None: one for each core, or for each GPU.
        gpus_per_trial: GPUs, or a share of one, for each training; `auto`: to be measured.
        runner: `ray` or `local`.
        seed: Of everything random.
        warm_start: Whether earlier searches in the same database inform it.
        repeats: Finalists trained once more with another seed; None: as the budget allows.
        pretrained: A checkpoint that trainings begin with: a file, or a name to download.
        inherit: Whether trainings begin with weights that a trained network has, or with random ones; None: with those
            of blocks that imitate the stock model, where the space allows.
        trial_time: End a training after this time while nothing tells how long it should take, e.g. `2h`.
        artifacts: Where checkpoints are kept, a folder or a URL; None: beside the database.
        targets_file: Of the user's own targets; None: the one in the configuration folder.
        with_postprocess: Whether decoding and suppression are timed with the network.
        skip_bad: Leave out images that cannot be used, instead of refusing the data.
        read: Reads the data; another one may show how far it is, or what it read.

    Raises:
        UserError: With one line on what to do.
    """
    size = ImageSize.parse(imgsz, "--imgsz")
    if epochs < 1:
        raise UserError(f"--epochs {epochs} must be at least 1")
    if pretrained is not None and inherit is False:
        raise UserError("give --pretrained or --from-scratch, not both")
    if runner not in ("ray", "local"):
        raise UserError(unknown("runner", runner, ("ray", "local")))
    parsed_budgets = tuple(map(parse_budget, budgets))
    parsed_limits = tuple(map(parse_limit, limits))
    trial_time_s = None if trial_time is None else parse_time(trial_time)
    store = None if artifacts is None else absolute(artifacts)
    check_sampler(sampler)
    chosen = [replace(get_target(name, targets_file), postprocess=with_postprocess) for name in dict.fromkeys(targets)]
    loaded = load_space(space)
    if blocks == "stock":
        loaded = loaded.restricted_to_stock()
    sizes = loaded.choices.get("imgsz", (size.plain,))
    if size.plain not in sizes:
        raise UserError(f"--imgsz {size}, for the stock model, must be one that the space chooses from: {sizes}")
    arguments = parse_training(training)
    if gpus_per_trial == "auto":
        fixed_batch(arguments)
    check_budgets(parsed_budgets)
    dataset = read(data, skip_bad, arguments).checked("; search --skip-bad leaves such images out")
    check_feasible(parsed_limits, loaded, len(dataset.names), size)
    identities = {target.name: ask_target(target) for target in chosen}
    checkpoint = None if pretrained is None else find_checkpoint(pretrained)
    digest = None if checkpoint is None else read_digest(checkpoint)
    # Blocks learn to imitate on the CPU: where trainings have GPUs, that would take longer than these do.
    weights: Weights = DEFAULT_WEIGHTS if can_have_library(loaded) and not machine.count_gpus() else "inherited"
    if inherit is not None:
        weights = "inherited" if inherit else "scratch"
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
        trial_time_s=trial_time_s,
        artifacts=store,
    )


def parse_time(text: str) -> float:
    """Read `--trial-time`, e.g. `2h`, as seconds.

    Raises:
        UserError: If it is not of that form.
    """
    budget = parse_budget(text)
    if budget.kind != "wall":
        raise UserError(f"--trial-time {text!r} must be a time, e.g. 2h or 30min")
    return budget.limit

"""What is to be computed for a piece of work: a function, and all that it needs to know."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from evaluators.accuracy.assembling import make_entries, score_designs
from evaluators.accuracy.deployed import validate_finalist
from evaluators.accuracy.handover import hand_over
from evaluators.accuracy.request import DeployedRequest, LibraryRequest, TrainingRequest
from evaluators.accuracy.training import prepare, train
from evaluators.dataset import Dataset, spread_images
from evaluators.latency import Calibration
from evaluators.measurement import MeasurementRequest, calibrate_target, check_target, measure
from evaluators.target import Target
from evaluators.zero_cost import IMAGES
from nas_yolo.fidelities import Rung
from nas_yolo.first_weights import parents_of, trained_parent
from nas_yolo.library import BATCH, library_key, steps_of
from nas_yolo.planning.situation import Context
from nas_yolo.runners import Work
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.kinds import Kind
from storage import Job, Repository, Search, State, Trial

if TYPE_CHECKING:
    from evaluators.location import Location


def work_of(job: Job, state: State, context: Context, repository: Repository, search: Search) -> Work:
    """The work of a job that was begun.

    Args:
        job: Of the state.
        state: Of the search.
        context: Of the search.
        repository: Says where checkpoints are.
        search: The search.
    """
    config, checkpoint = context.config, partial(repository.checkpoint, search)
    scratch = repository.run_folder(search) / "scratch"
    target = next((target for target, _ in context.devices if target.name == job.target), None)
    match job.purpose:
        case "prepare":
            return partial(prepare, config.dataset, config.imgsz, scratch / "images")
        case "calibrate":
            assert target is not None
            size = ImageSize.parse(job.key.split()[-2])
            return partial(calibrate_target, target, size, _mark(context, target), _identity(context, target))
        case "check":
            assert target is not None
            return partial(check_target, target, _calibration(context, state, target, config.imgsz))
        case "copy":
            return partial(hand_over, *(checkpoint(int(number)) for number in job.key.split()[1:]))
        case "imitate":
            library = _library(context, state, repository, search)
            assert library is not None
            return partial(make_entries, library, [Kind.parse(text) for text in job.content])
        case "assemble":
            library = _library(context, state, repository, search)
            assert library is not None
            points = [context.grid.values([int(code) for code in text.split(".")]) for text in job.content]
            return partial(score_designs, library, [config.space.architecture(point) for point in points])
    assert job.trial is not None
    trial = state.trials[job.trial]
    imgsz = config.imgsz_of(trial.architecture)
    match job.purpose:
        case "train":
            training = TrainingRequest(
                architecture=trial.architecture,
                dataset=config.dataset,
                imgsz=imgsz,
                epochs=config.epochs,
                until=job.until,
                seed=seed_of(trial, state, config.seed),
                checkpoint=checkpoint(trial.number),
                scratch=repository.trial_folder(search, trial.number),
                images=scratch / "images",
                known=len(trial.epochs),
                rungs=tuple(one.epochs for one in context.config.fidelities if isinstance(one, Rung)),
                parents=parents_of(trial, state.trials, config, checkpoint),
                library=None if trial.is_parent else _library(context, state, repository, search),
                threads=context.threads,
                gpu=context.gpus > 0,
                gpu_share=min(config.gpus_per_trial, 1.0),
                arguments=config.training | ({"batch": trial.batch} if trial.batch else {}),
            )
            return partial(train, training)
        case "validate":
            assert target is not None
            deployed = DeployedRequest(
                architecture=trial.architecture,
                checkpoint=checkpoint(trial.number),
                epochs=len(trial.epochs),
                dataset=config.dataset,
                imgsz=imgsz,
                target=target,
                threads=context.threads,
                arguments=config.training,
            )
            return partial(validate_finalist, deployed)
    due = [target] if target else [one for one, _ in context.devices if one.name not in trial.latencies]
    request = MeasurementRequest(
        architecture=trial.architecture,
        classes=len(config.dataset.names),
        imgsz=imgsz,
        targets=tuple((one, _calibration(context, state, one, imgsz)) for one in due),
        scratch=scratch,
        sessions=job.sessions,
        sized=trial.complexity is not None,
        images=() if trial.complexity else _scored_images(config.dataset),
        baseline=_trained_baseline(context, state, checkpoint),
    )
    return partial(measure, request)


def seed_of(trial: Trial, state: State, seed: int) -> int:
    """The search's own, or for a repeat one that no other training of the architecture has."""
    if trial.repeat_of is None:
        return seed
    earlier = [one for one in state.trials if one.repeat_of == trial.repeat_of and one.number < trial.number]
    return seed + 1 + len(earlier)


def _library(context: Context, state: State, repository: Repository, search: Search) -> LibraryRequest | None:
    """Of blocks that imitate the trained stock model; None if there is none, or will be none."""
    config, parent = context.config, trained_parent(state.trials)
    if config.weights != "library" or parent is None:
        return None
    return LibraryRequest(
        name=config.space.baseline,
        parent=repository.checkpoint(search, parent.number),
        dataset=config.dataset,
        imgsz=config.imgsz,
        space=config.space,
        start=context.changes.start,
        folder=repository.library(search) / library_key(config),
        images=repository.run_folder(search) / "scratch" / "images",
        steps=steps_of(config.dataset.train_images, config.epochs),
        batch=BATCH,
        seed=config.seed,
        threads=context.threads,
        arguments=config.training,
    )


@lru_cache(maxsize=1)
def _scored_images(dataset: Dataset) -> tuple[str, ...]:
    return tuple(map(str, spread_images(dataset, IMAGES)))


def _trained_baseline(
    context: Context, state: State, checkpoint: partial[Location]
) -> tuple[Architecture, Location] | None:
    """The stock model that scores compare with, and its checkpoint; None until one is complete."""
    for trial in state.trials:
        if trial.state == "complete" and (trial.is_parent or trial.preset == context.config.space.baseline):
            return trial.architecture, checkpoint(trial.number)
    return None


def _mark(context: Context, target: Target) -> str:
    return next(fingerprint for one, fingerprint in context.devices if one is target)


def _identity(context: Context, target: Target) -> dict[str, object]:
    return context.config.identities.get(target.name, {})


def _calibration(context: Context, state: State, target: Target, imgsz: ImageSize) -> Calibration:
    known = state.calibrations[_mark(context, target), imgsz]
    return Calibration(known.fingerprint, imgsz, known.reference_ms, known.spread, _identity(context, target))

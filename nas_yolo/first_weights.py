"""Where the first weights of trainings come from; the same for all of a search, since they would not compare else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.accuracy.request import Parent
from nas_yolo.config import SearchConfig
from nas_yolo.results import designs
from search_spaces.architecture import Architecture
from storage import Trial

if TYPE_CHECKING:
    from evaluators.location import Location


def parents_of(
    trial: Trial, trials: Sequence[Trial], config: SearchConfig, checkpoint: Callable[[int], Location]
) -> tuple[Parent, ...]:
    """What the first weights of a training are taken from; none: from scratch.

    The same for every trial: the stock model trained on this data, or what the user gave, which the parent of a library
    begins with, too. Behind it the nearest
    complete design, for what the first lacks; a repeat has that of the trial that it repeats, and differs by its seed.

    Args:
        trial: To be trained.
        trials: All.
        config: Of the search.
        checkpoint: Of the training of a trial, by its number.
    """
    if config.weights == "scratch" or (trial.is_parent and config.pretrained is None):
        return ()
    stock = trained_parent(trials)
    if config.pretrained is not None and (config.weights == "inherited" or trial.is_parent or stock is None):
        first = Parent(Path(config.pretrained).name, Path(config.pretrained))
    elif stock is None:
        return ()
    else:
        first = Parent(config.space.baseline, checkpoint(stock.number))
    if trial.is_parent or config.weights == "library":
        return (first,)  # a library has what the first lacks
    done = [other for other in designs(trials) if other.state == "complete" and other.number != trial.number]
    original = trial
    if trial.repeat_of is not None:
        original = next(other for other in trials if other.number == trial.repeat_of)
    if original.weights or trial.repeat_of is not None:  # begun again, it begins with the same
        taken = original.weights.parents if original.weights else ()
        done = [other for other in done if _name(other) in taken]
    if not done:
        return (first,)
    relative = max(done, key=lambda other: (likeness(trial.architecture, other.architecture), -other.number))
    return first, Parent(_name(relative), checkpoint(relative.number))


def trained_parent(trials: Sequence[Trial]) -> Trial | None:
    """The stock model that was trained for its weights, once it is complete."""
    return next((other for other in trials if other.is_parent and other.state == "complete"), None)


def _name(trial: Trial) -> str:
    return f"trial {trial.number}"


def likeness(one: Architecture, other: Architecture) -> int:
    """In how many places two designs have the same block, width or depth; one more for the same activation."""
    mine, theirs = _parts(one), _parts(other)
    return sum(theirs.get(name) == value for name, value in mine.items())


def _parts(architecture: Architecture) -> dict[str, Any]:
    parts: dict[str, Any] = {**architecture.places, "P1.width": architecture.stem.width}
    parts["activation"] = architecture.activation
    for name, stage in zip(("P2", "P3", "P4", "P5"), architecture.stages, strict=True):
        parts |= {f"{name}.width": stage.width, f"{name}.depth": stage.depth}
    for name, level in zip(("P3", "P4", "P5"), architecture.neck.levels, strict=True):
        parts |= {f"neck.{name}.width": level.width, f"neck.{name}.depth": level.depth}
    return parts

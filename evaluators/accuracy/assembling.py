"""Making entries of a library, and scoring designs that are put together from it. Runs on a worker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from evaluators.accuracy.request import LibraryRequest
from evaluators.errors import TrainingError
from evaluators.evaluation import AssembledScore, Failure, FirstWeights, LibraryEntry, failure_from
from evaluators.host_lock import TrainingSlot
from evaluators.host_lock import training as training_slot
from evaluators.location import StoreError
from evaluators.memory import keep_memory
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind
from search_spaces.parts import parts_of

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

    from evaluators.accuracy.imitation.build import Workshop
    from evaluators.accuracy.imitation.score import Scorer

LIBRARY_OF = "library of"  # in records of first weights, before the parent's name
IMAGES = 128  # validation images of a score, at most

# The parent, decoded images and entries, kept between pieces of work: to read them takes longer than most of these.
_kept: dict[str, tuple[Workshop, Scorer]] = {}


def make_entries(request: LibraryRequest, kinds: Sequence[Kind]) -> Iterator[LibraryEntry | Failure]:
    """Make entries, each yielded once it is kept; what is there already is found.

    One that cannot be trained is yielded with its problem, and touches no other.
    """
    try:
        with training_slot() as slot, _workshop(request, slot) as (workshop, _):
            for ready in workshop.build(kinds):
                kind = ready.kind
                error = ready.error if math.isfinite(ready.error) else None
                yield LibraryEntry(kind.place, kind.block, kind.widen, error, ready.seconds, ready.problem)
    except Exception as error:
        yield _failure(error)


def score_designs(request: LibraryRequest, designs: Sequence[Architecture]) -> Iterator[AssembledScore | Failure]:
    """Put designs together from entries that are there, and validate each."""
    try:
        with training_slot() as slot, _workshop(request, slot) as (workshop, scorer):
            for design in designs:
                slot.give_way()
                began_s = time.perf_counter()
                accuracy: float | None
                try:
                    accuracy, problem = scorer.score(assembled(workshop, design))["map50_95"], ""
                    if not math.isfinite(accuracy):
                        accuracy, problem = None, "its score is not finite"
                except (KeyError, RuntimeError, ValueError) as error:
                    accuracy, problem = None, f"{type(error).__name__}: {error}"[:300]
                yield AssembledScore(design, accuracy, time.perf_counter() - began_s, problem)
    except Exception as error:
        yield _failure(error)


def assembled(workshop: Workshop, design: Architecture) -> DetectionModel:
    """A design with weights from the library; entries that it needs are read, or made if they are not there.

    Raises:
        KeyError: If one is missing.
    """
    from evaluators.accuracy.imitation.assembly import assemble

    _add_entries(workshop, design)
    return assemble(workshop.library.interfaces.parent, design, workshop.library)


def fill_from_library(
    request: LibraryRequest, slot: TrainingSlot, network: DetectionModel, design: Architecture
) -> FirstWeights:
    """Give a network the weights of all of its places that the library or the parent has; others stay as they are."""
    from evaluators.accuracy.imitation.assembly import fill_part

    filled = 0
    with _workshop(request, slot) as (workshop, _):
        _add_entries(workshop, design)
        for part in parts_of(design).values():
            with suppress(KeyError, RuntimeError, ValueError):
                filled += fill_part(network, workshop.library.interfaces.parent, design, part, workshop.library)
    learned = sum(value.numel() for value in network.parameters() if value.requires_grad)
    return FirstWeights((f"{LIBRARY_OF} {request.name}",) if filled else (), filled / learned)


def _add_entries(workshop: Workshop, design: Architecture) -> None:
    library = workshop.library
    kinds = [Kind.of(place, design) for place, part in parts_of(design).items() if not library.parent_has(design, part)]
    for _ in workshop.build([kind for kind in kinds if not library.has_kind(kind)]):
        pass


@contextmanager
def _workshop(request: LibraryRequest, slot: TrainingSlot) -> Iterator[tuple[Workshop, Scorer]]:
    import torch

    from evaluators.accuracy.imitation.build import Workshop
    from evaluators.accuracy.imitation.score import Scorer

    keep_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(request.threads)
    try:
        if (key := repr(request)) not in _kept:
            _kept.clear()
            workshop = Workshop(request)
            given = workshop.decoded, request.dataset, request.imgsz, request.arguments, workshop.statistics
            _kept[key] = workshop, Scorer(*given, IMAGES, request.images)
        workshop, scorer = _kept[key]
        workshop.between = slot.give_way
        yield workshop, scorer
    finally:
        torch.set_num_threads(threads)


def _failure(error: Exception) -> Failure:
    if isinstance(error, StoreError):
        return failure_from(error, "storage")
    return failure_from(error, error.cause if isinstance(error, TrainingError) else "error")

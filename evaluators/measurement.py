"""Everything that is known of an architecture before its first epoch: size, scores, then latency on each target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.errors import LatencyError
from evaluators.evaluation import Complexity, Failure, Latency, Scores, failure_from
from evaluators.host_lock import training
from evaluators.latency import (
    BRIEF_S,
    Calibration,
    calibrate,
    check_same,
    check_session,
    measure_latency,
    reference_files,
    time_files,
)
from evaluators.memory import release_memory
from evaluators.target import Target
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from evaluators.location import Location

WEIGHTS_SEED = 0  # scores depend a little on the random weights: the same architecture has the same scores


@dataclass(frozen=True)
class MeasurementRequest:
    """What a worker needs to know.

    Attributes:
        architecture: What to measure.
        classes: Number of classes, which the head's size depends on.
        imgsz: Size of the image.
        targets: Those on which no latency is known yet, each with its calibration.
        scratch: A folder for the exported file.
        sessions: Fresh processes in which it is timed on each target.
        sized: Whether its size, and what scores it has, are known.
        images: Files of which zero-cost scores are computed; none: no scores.
        baseline: The trained stock model and its checkpoint, for scores that compare with it; None: not there yet.
    """

    architecture: Architecture
    classes: int
    imgsz: ImageSize
    targets: tuple[tuple[Target, Calibration], ...]
    scratch: Path
    sessions: int = 1
    sized: bool = False
    images: tuple[str, ...] = ()
    baseline: tuple[Architecture, Location] | None = None


def measure(request: MeasurementRequest) -> Iterator[Complexity | Scores | Latency | Failure]:
    """Yield the size, the scores, then each session on each target, or what went wrong there."""
    try:
        import torch

        from evaluators.complexity import measure_complexity
        from evaluators.zero_cost import compute_scores
        from search_spaces import hook

        hook.install()  # which draws random numbers, the first time
        torch.set_num_threads(1)
        with training():  # it computes, which must not disturb a measurement on this machine
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(WEIGHTS_SEED)
                network = hook.build(hook.model_file(request.architecture, request.classes))
            complexity, scores = None, None
            if not request.sized:
                complexity = measure_complexity(network, request.imgsz)
                if request.images:
                    known = request.classes, request.imgsz, request.baseline
                    scores = compute_scores(network, request.images, *known)
    except Exception as error:
        yield failure_from(error, "build")
        return
    try:
        if scores:
            yield scores
        if complexity:  # last: that a trial's size is known says that its scores are
            yield complexity
        request.scratch.mkdir(parents=True, exist_ok=True)
        for target, calibration in request.targets:
            try:
                yield from measure_latency(network, target, calibration, request.scratch, request.sessions)
            except LatencyError as error:  # another device may do better
                yield Failure(error.cause, str(error), error.detail, target.name)
    except Exception as error:
        yield failure_from(error, "export")
    finally:
        release_memory()


def check_target(target: Target, calibration: Calibration) -> Iterator[Failure]:
    """Time the reference on a target; yield what went wrong."""
    try:
        files = reference_files(target, calibration.imgsz)
        check_session(target, time_files(target, files, files, BRIEF_S), calibration)
    except LatencyError as error:
        yield Failure(error.cause, str(error), error.detail, target.name)


def calibrate_target(
    target: Target, imgsz: ImageSize, fingerprint: str, identity: Mapping[str, Any]
) -> Iterator[Calibration | Failure]:
    """Yield the reference's time on a target, or what went wrong: it may be another than had this fingerprint."""
    try:
        found = calibrate(target, imgsz)
        known = replace(found, fingerprint=fingerprint, identity=identity)
        check_same(target, found.identity, known)
        yield known
    except LatencyError as error:
        yield Failure(error.cause, str(error), error.detail, target.name)
    except Exception as error:
        yield failure_from(error)

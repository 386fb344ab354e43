"""Train an architecture from one rung to the next, reporting each epoch. Runs on a worker; imports are made there."""

from __future__ import annotations

import fcntl
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.accuracy.assembling import fill_from_library
from evaluators.accuracy.request import TrainingRequest
from evaluators.dataset import Dataset
from evaluators.errors import TrainingError
from evaluators.evaluation import Epoch, Failure, FirstWeights, Pace, failure_from
from evaluators.host_lock import TrainingSlot
from evaluators.host_lock import training as training_slot
from evaluators.location import StoreError
from evaluators.memory import keep_memory, release_memory
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel


def train(request: TrainingRequest) -> Iterator[FirstWeights | Pace | Epoch | Failure]:
    """Train up to `request.until`, yielding each epoch; that of a rung's end once its checkpoint is on disk.

    A training that begins with others' weights yields what it took before its first epoch. One of which no epoch is
    known yields its pace some seconds into the first, unless that is very short. Epochs that the checkpoint holds
    beyond `request.known` (the search died before it recorded them) are yielded first, and not trained again. Those
    that are known but not in the checkpoint (the training died) are trained again, come out the same, and are not
    yielded. Whatever goes wrong in the training is yielded as a failure, the last item.
    Closing the iterator stops the training after the current batch.
    """
    reports: queue.SimpleQueue[FirstWeights | Pace | Epoch | Failure | None] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        try:
            with _alone(request), training_slot() as slot:
                from evaluators.accuracy.gpu_sharing import hold_to_share
                from evaluators.accuracy.trainer import train_rung

                if request.gpu:
                    hold_to_share(request.gpu_share)
                keep_memory()
                train_rung(request, slot, reports.put, stop, _first_weights(request, slot))
        except Exception as error:
            reports.put(_failure(error))
        finally:
            release_memory()
            reports.put(None)

    # Ultralytics' loop calls back, this generator is asked: a thread turns one into the other.
    thread = threading.Thread(target=run, name="training", daemon=True)
    thread.start()
    try:
        while (report := reports.get()) is not None:
            yield report
    finally:
        stop.set()
        thread.join()


def _first_weights(request: TrainingRequest, slot: TrainingSlot) -> Callable[[DetectionModel], FirstWeights] | None:
    if not request.parents and request.library is None:
        return None
    return lambda network: _give_weights(request, slot, network)


def _give_weights(request: TrainingRequest, slot: TrainingSlot, network: DetectionModel) -> FirstWeights:
    """The parents' weights, and over them those of the library."""
    from evaluators.accuracy.inheritance import inherit

    given = FirstWeights()
    if request.parents:
        given = inherit(network, request.architecture, request.parents, request.seed)
    if request.library is not None:
        filled = fill_from_library(request.library, slot, network, request.architecture)
        # What the library has is part of what the parents would have given, or more.
        given = FirstWeights((*filled.parents, *given.parents), max(filled.share, given.share))
    return given


@contextmanager
def _alone(request: TrainingRequest) -> Iterator[None]:
    """Wait until no other process trains on a checkpoint: a killed search's worker outlives it by some seconds."""
    request.scratch.mkdir(parents=True, exist_ok=True)
    with open(request.scratch / f"{request.checkpoint.stem}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(dataset: Dataset, imgsz: ImageSize, images: Path) -> Iterator[Failure]:
    """Decode the images once, into the folder that trainings are given as `images`."""
    try:
        with training_slot():
            from evaluators.accuracy.trainer import decode_images

            decode_images(dataset, imgsz, images)
    except Exception as error:
        yield _failure(error)


def _failure(error: Exception) -> Failure:
    if isinstance(error, StoreError):
        return failure_from(error, "storage")
    return failure_from(error, error.cause if isinstance(error, TrainingError) else "error")

"""Train an architecture from one rung to the next, reporting each epoch. Runs on a worker; imports are made there."""

from __future__ import annotations

import fcntl
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.dataset import Dataset
from evaluators.evaluation import Cause, Epoch, Failure, FirstWeights, failure_from
from evaluators.host_lock import training as training_slot
from evaluators.location import StoreError
from evaluators.memory import keep_memory, release_memory
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from torch import Tensor

    from evaluators.location import Location

# Ultralytics' arguments that the search decides itself, and those that would change what a rung means.
OWN_ARGUMENTS = frozenset(
    {
        *("model", "data", "imgsz", "epochs", "seed", "device", "pretrained", "resume", "task", "mode"),
        *("project", "name", "exist_ok", "save_dir", "save", "save_period", "plots", "verbose", "val", "split"),
        *("patience", "time", "fraction", "workers", "cache", "compile", "freeze", "distill_model", "quantize"),
        *("rect", "deterministic", "nms"),
    }
)


class TrainingError(RuntimeError):
    """A training that cannot go on.

    Attributes:
        cause: `nan`: a loss or a weight is not finite; `diverged`: the mean loss of an epoch is more than 50 and ten
            times the lowest so far at the same image size, or over a million in a first one; `data_changed`: images or
            labels are not what the search began with.
    """

    def __init__(self, cause: Cause, message: str):
        super().__init__(message)
        self.cause: Cause = cause


@dataclass(frozen=True)
class Parent:
    """A trained network that another one's first weights are taken from.

    Attributes:
        name: For the record, e.g. `trial 3` or `yolov8n.pt`.
        file: A checkpoint of a search's training, or one of Ultralytics'.
    """

    name: str
    file: Location


@dataclass(frozen=True)
class TrainingRequest:
    """What a worker needs to know to train one rung.

    Attributes:
        architecture: What to train.
        dataset: On which images.
        imgsz: Size of the images.
        epochs: Of the whole schedule: the learning rate is that of a training of so many epochs, also when it pauses.
        until: Pause after this epoch, 1 to `epochs`.
        seed: Weights, order of the images and augmentation follow from it and the epoch.
        arguments: Further Ultralytics training arguments. A smaller `batch` takes the same optimizer steps, each over
            `nbs` images (64 unless given), as long as it divides `nbs`.
        checkpoint: Where the training is kept; continued from there if the file exists.
        scratch: A folder for what Ultralytics writes, on this machine, and the checkpoint's own.
        images: A folder for decoded images that all trainings on this machine share; None: in `scratch`.
        known: Epochs that the search has on record.
        rungs: Epochs at which a decision follows, ascending: only these are validated, and the last of a request.
        parents: What first weights are taken from: as far as the first has them, else the second, and so on; none for
            random ones.
        subset: Share of the training images, above 0 to 1, that epochs up to the first rung see. It grows by a constant
            factor from rung to rung, to all up to the last. Drawn once, from the seed; larger ones hold smaller.
        small_imgsz: Size at which epochs below the last rung train; None: `imgsz`. Validation is always at `imgsz`.
        threads: Computing threads.
        gpu: Train on the GPU that the worker sees rather than on the CPU.
        gpu_share: Of the GPU's memory that the process may use, above 0 to 1: beyond it, it runs out of memory, and
            others on the same GPU do not.
    """

    architecture: Architecture
    dataset: Dataset
    imgsz: ImageSize
    epochs: int
    until: int
    seed: int
    checkpoint: Location
    scratch: Path
    images: Path | None = None
    known: int = 0
    rungs: tuple[int, ...] = ()
    parents: tuple[Parent, ...] = ()
    subset: float = 1.0
    small_imgsz: ImageSize | None = None
    threads: int = 1
    gpu: bool = False
    gpu_share: float = 1.0
    arguments: dict[str, Any] = field(default_factory=dict)


def train(request: TrainingRequest) -> Iterator[FirstWeights | Epoch | Failure]:
    """Train up to `request.until`, yielding each epoch; that of a rung's end once its checkpoint is on disk.

    A training that begins with others' weights yields what it took before its first epoch. Epochs that the checkpoint
    holds beyond `request.known` (the search died before it recorded them) are yielded first, and not trained again.
    Those that are known but not in the checkpoint (the training died) are trained again, come out the same, and are
    not yielded. Whatever goes wrong in the training is yielded as a failure, the last item.
    Closing the iterator stops the training after the current batch.
    """
    reports: queue.SimpleQueue[FirstWeights | Epoch | Failure | None] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        try:
            with _alone(request), training_slot() as slot:
                from evaluators.accuracy.gpu_sharing import hold_to_share
                from evaluators.accuracy.trainer import train_rung

                if request.gpu:
                    hold_to_share(request.gpu_share)
                keep_memory()
                train_rung(request, slot, reports.put, stop)
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


def trained_weights(checkpoint: Location) -> dict[str, Tensor] | None:
    """The moving average of the weights that a training has reached; None before its first checkpoint.

    Raises:
        StoreError: If the checkpoint cannot be read.
    """
    from evaluators.accuracy.checkpoints import load_checkpoint

    try:
        weights: dict[str, Tensor] = load_checkpoint(checkpoint)["ema"]
    except FileNotFoundError:
        return None
    return weights


def trained_epochs(checkpoint: Location) -> int:
    """After which epoch a checkpoint was written: the weights that it holds."""
    from evaluators.accuracy.checkpoints import load_checkpoint

    return int(load_checkpoint(checkpoint)["epoch"])


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

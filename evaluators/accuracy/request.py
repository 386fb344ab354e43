"""What a worker is asked for, a training or a validation: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.dataset import Dataset
from evaluators.target import Target
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.space import Choices, SearchSpace

if TYPE_CHECKING:
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
class LibraryRequest:
    """What a library of blocks that imitate a trained model is of.

    Attributes:
        name: Of the parent, for the record.
        parent: Checkpoint of the trained model, as a search's trainings write it.
        dataset: That it was trained on.
        imgsz: Size of the images.
        space: Whose designs are put together.
        start: The parent in the space, or the point nearest to it.
        folder: Where entries are kept, by content: what another search made is found.
        images: A folder for decoded images that trainings on this machine share.
        steps: Of the training of an entry.
        batch: Images in a step.
        seed: Of all that is random.
        threads: Computing threads.
        arguments: Ultralytics training arguments.
    """

    name: str
    parent: Location
    dataset: Dataset
    imgsz: ImageSize
    space: SearchSpace
    start: Choices
    folder: Location
    images: Path
    steps: int = 100
    batch: int = 16
    seed: int = 0
    threads: int = 1
    arguments: dict[str, Any] = field(default_factory=dict)


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
        library: First weights are put together from its entries where it has all that a design needs, else they are
            the parents'; None: there is none.
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
    library: LibraryRequest | None = None
    threads: int = 1
    gpu: bool = False
    gpu_share: float = 1.0
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeployedRequest:
    """What is validated.

    Attributes:
        architecture: Of the trial.
        checkpoint: Where its training is kept.
        epochs: That it was trained for.
        dataset: Validation images; training images, to calibrate int8 on.
        imgsz: Size of the images.
        target: Runtime and precision.
        threads: Computing threads: those of the target are for latency.
        arguments: Ultralytics arguments that the search trained and validated with.
    """

    architecture: Architecture
    checkpoint: Location
    epochs: int
    dataset: Dataset
    imgsz: ImageSize
    target: Target
    threads: int = 1
    arguments: dict[str, Any] = field(default_factory=dict)

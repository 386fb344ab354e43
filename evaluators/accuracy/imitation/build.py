"""Building a library: the entries that are not there yet, each written as a whole once it is trained."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from evaluators.accuracy.checkpoints import load_checkpoint, save_checkpoint
from evaluators.accuracy.decoded import Decoded
from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.imitate import Task, imitate
from evaluators.accuracy.imitation.library import Kind, Library, forms_of, largest_of
from evaluators.accuracy.imitation.parent import Interfaces, ParentNetwork
from evaluators.accuracy.imitation.stream import training_batches
from evaluators.accuracy.trainer import decode_images
from evaluators.dataset import Dataset
from search_spaces import hook
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.parts import parts_of
from search_spaces.space import Choices, SearchSpace

if TYPE_CHECKING:
    from evaluators.location import Location

FORMAT = 1
GROUP = 32  # entries that share a pass of the parent and are in memory at once
OWN = 3  # times the steps of others: the parent's own blocks are in every design of other widths
STATISTICS_IMAGES = 64


@dataclass(frozen=True)
class LibraryRequest:
    """What a library is of.

    Attributes:
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
        arguments: Ultralytics training arguments.
    """

    parent: Location
    dataset: Dataset
    imgsz: ImageSize
    space: SearchSpace
    start: Choices
    folder: Location
    images: Path
    steps: int = 100
    batch: int = 32
    seed: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EntryReady:
    """An entry that is there.

    Attributes:
        kind: What it is of.
        error: How far it was from the parent in its last steps, lower is better; NaN: it could not be trained.
        seconds: Its share of what making it took; 0 if it was there already.
    """

    kind: Kind
    error: float
    seconds: float


class Workshop:
    """The parent, ready to be imitated.

    Args:
        request: What the library is of.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        StoreError: If it cannot be read.
        TrainingError: `data_changed`.
    """

    def __init__(self, request: LibraryRequest):
        self.request = request
        saved = load_checkpoint(request.parent)
        architecture = Architecture.from_document(saved["architecture"])
        network = hook.build(hook.model_file(architecture, len(request.dataset.names)))
        network.load_state_dict(saved["ema"])
        self.decoded: Decoded = decode_images(request.dataset, request.imgsz, request.images)
        self.statistics = list(islice(self.batches(), max(STATISTICS_IMAGES // request.batch, 1)))
        self._digest = _digest(saved["ema"], request)
        parent = ParentNetwork(network, architecture, self.statistics)
        self.library = Library(Interfaces(parent, parent.measure_importance(self.statistics)))

    def batches(self) -> Iterator[Tensor]:
        """The same for every entry, so that it does not matter which others are trained beside it."""
        asked = self.request
        return training_batches(self.decoded, asked.dataset, asked.imgsz, asked.arguments, asked.batch, asked.seed)

    def build(self, kinds: Sequence[Kind]) -> Iterator[EntryReady]:
        """Add entries to the library in this order, some at a time; those that are there are read.

        Raises:
            StoreError: If one cannot be read or written.
        """
        own = {Kind.of(place, self._parent.architecture) for place in self._parent.parts}
        missing = []
        for kind in kinds:
            if (ready := self._read(kind, self._steps(kind, own))) is not None:
                yield ready
            else:
                missing.append(kind)
        for alike in ([kind for kind in missing if kind in own], [kind for kind in missing if kind not in own]):
            for first in range(0, len(alike), GROUP):
                yield from self._make(alike[first : first + GROUP], self._steps(alike[first], own))

    @property
    def _parent(self) -> ParentNetwork:
        return self.library.interfaces.parent

    def _steps(self, kind: Kind, own: set[Kind]) -> int:
        return self.request.steps * (OWN if kind in own else 1)

    def _make(self, kinds: Sequence[Kind], steps: int) -> Iterator[EntryReady]:
        began = time.perf_counter()
        tasks = []
        for kind in kinds:
            entry = Entry(self.library.interfaces, kind.place, self._largest(kind), self.request.seed)
            tasks.append(Task(entry, self._forms(kind)))
        errors = imitate(self._parent, tasks, self.batches(), steps, self.request.seed)
        seconds = (time.perf_counter() - began) / len(kinds)
        for kind, task, error in zip(kinds, tasks, errors, strict=True):
            document = {
                "format": FORMAT,
                "error": error,
                "weights": {name: value.detach() for name, value in task.entry.weights.items()},
                "importance": dict(task.entry.importance),
            }
            save_checkpoint(document, self._place(kind, steps))
            yield self._ready(kind, task.entry, error, seconds)

    def _read(self, kind: Kind, steps: int) -> EntryReady | None:
        try:
            saved = load_checkpoint(self._place(kind, steps))
        except FileNotFoundError:
            return None
        entry = Entry(self.library.interfaces, kind.place, self._largest(kind), self.request.seed)
        entry.load(saved["weights"], saved["importance"])
        return self._ready(kind, entry, saved["error"], 0.0)

    def _ready(self, kind: Kind, entry: Entry, error: float, seconds: float) -> EntryReady:
        """Designs are made of it, unless it could not be trained."""
        if math.isfinite(error):
            self.library.add(entry)
        return EntryReady(kind, error, seconds)

    def _place(self, kind: Kind, steps: int) -> Location:
        """By all that an entry follows from."""
        forms = [parts_of(form)[kind.place].shape for form in (self._largest(kind), *self._forms(kind))]
        document = json.dumps([FORMAT, self._digest, kind.place, forms, steps, self.request.batch, self.request.seed])
        return self.request.folder / f"{hashlib.sha256(document.encode()).hexdigest()[:16]}.pt"

    def _largest(self, kind: Kind) -> Architecture:
        return largest_of(self.request.space, self.request.start, kind)

    def _forms(self, kind: Kind) -> list[Architecture]:
        return forms_of(self.request.space, self.request.start, kind, self.request.seed)


def _digest(weights: dict[str, Tensor], request: LibraryRequest) -> str:
    """Of the parent, and of the images that it is shown."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(name.encode())
        found.update(value.numpy().tobytes())
    shown = [request.dataset.fingerprint, request.imgsz.plain, sorted(request.arguments.items())]
    found.update(json.dumps(shown, default=str).encode())
    return found.hexdigest()

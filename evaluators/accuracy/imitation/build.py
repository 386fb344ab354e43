"""Building a library: the entries that are not there yet, each written as a whole once it is trained."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from torch import Tensor

from evaluators.accuracy.checkpoints import load_checkpoint, save_checkpoint
from evaluators.accuracy.decoded import Decoded
from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.imitate import Task, imitate
from evaluators.accuracy.imitation.library import Library
from evaluators.accuracy.imitation.parent import Interfaces, ParentNetwork
from evaluators.accuracy.imitation.stream import training_batches
from evaluators.accuracy.request import LibraryRequest
from evaluators.accuracy.trainer import decode_images
from search_spaces import hook
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind, forms_of, largest_of
from search_spaces.parts import parts_of

if TYPE_CHECKING:
    from evaluators.location import Location

FORMAT = 1
GROUP = 32  # entries that share a pass of the parent and are in memory at once
OWN = 3  # times the steps of others: the parent's own blocks are in every design of other widths
STATISTICS_IMAGES = 64


@dataclass(frozen=True)
class EntryReady:
    """An entry that is there.

    Attributes:
        kind: What it is of.
        error: How far it was from the parent in its last steps, lower is better; NaN: it could not be trained.
        seconds: Its share of what making it took; 0 if it was there already.
        problem: Why it could not be trained; empty otherwise.
    """

    kind: Kind
    error: float
    seconds: float
    problem: str = ""


class Workshop:
    """The parent, ready to be imitated.

    Args:
        request: What the library is of.
        between: Called before each batch of images.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        StoreError: If it cannot be read.
        TrainingError: `data_changed`.
    """

    def __init__(self, request: LibraryRequest, between: Callable[[], object] = lambda: None):
        self.request, self.between = request, between
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
        given = self.decoded, asked.dataset, asked.imgsz, asked.arguments, asked.batch, asked.seed
        for images in training_batches(*given):
            self.between()
            yield images

    def build(self, kinds: Sequence[Kind]) -> Iterator[EntryReady]:
        """Add entries to the library in this order, some at a time; those that are there are read.

        Raises:
            StoreError: If one cannot be read or written.
        """
        found = {ready.kind for ready in (yield from self._found(kinds))}
        missing = [kind for kind in kinds if kind not in found]
        for alike in ([kind for kind in missing if kind in self._own], [k for k in missing if k not in self._own]):
            for first in range(0, len(alike), GROUP):
                yield from self._make(alike[first : first + GROUP], self._steps(alike[first]))

    @property
    def _parent(self) -> ParentNetwork:
        return self.library.interfaces.parent

    @cached_property
    def _own(self) -> set[Kind]:
        return {Kind.of(place, self._parent.architecture) for place in self._parent.parts}

    def _steps(self, kind: Kind) -> int:
        return self.request.steps * (OWN if kind in self._own else 1)

    def _found(self, kinds: Iterable[Kind]) -> Generator[EntryReady, None, list[EntryReady]]:
        found = []
        for kind in kinds:
            try:
                ready = self._read(kind, self._steps(kind))
            except (KeyError, ValueError):  # such a block cannot stand there: that is said where it is made
                continue
            if ready is not None:
                found.append(ready)
                yield ready
        return found

    def _make(self, kinds: Sequence[Kind], steps: int) -> Iterator[EntryReady]:
        began = time.perf_counter()
        tasks, made = [], []
        for kind in kinds:
            try:  # a block may be able to stand at a place, and yet not in all of its widths, or next to all others
                entry = Entry(self.library.interfaces, kind.place, self._largest(kind), self.request.seed)
                forms = self._forms(kind)
                for form in forms:
                    entry.form(form, parts_of(form)[kind.place])
            except (KeyError, RuntimeError, ValueError) as reason:
                yield EntryReady(kind, math.nan, 0.0, f"{type(reason).__name__}: {reason}"[:300])
            else:
                tasks.append(Task(entry, forms))
                made.append(kind)
        if not made:
            return
        errors = imitate(self._parent, tasks, self.batches(), steps, self.request.seed)
        seconds = (time.perf_counter() - began) / len(made)
        for kind, task, error in zip(made, tasks, errors, strict=True):
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
        return EntryReady(kind, error, seconds, "its error is not finite")

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

"""Work that is only imagined: results from functions, on a clock of its own, with faults by a seed.

A search that runs on it decides as it would in earnest, in a thousandth of the time; tests and benchmarks do.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from evaluators.accuracy.pace import PaceMeter
from evaluators.evaluation import (
    AssembledScore,
    Complexity,
    DeployedAccuracy,
    Epoch,
    Failure,
    FirstWeights,
    HandedOver,
    Latency,
    LibraryEntry,
    Pace,
)
from evaluators.latency import Calibration
from evaluators.target import Target
from nas_yolo.runners import Kind, Report, Work
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.kinds import Kind as BlockKind

BASELINE_MS = 1.0  # of the reference model, on every target

T = TypeVar("T")
Timed = tuple[float, Any]
"""Seconds since the result before, and a result."""


@dataclass
class World:
    """What is true of a simulation, whoever asks, and what was trained so far: it outlives runners.

    Attributes:
        map50_95: Of an architecture, trained so many epochs with a seed.
        latency_ms: Of an architecture on a target.
        epoch_s: What an epoch of it takes, counted from 1.
        steps: Batches in an epoch, by which its time is predicted; 0: it is not.
        score: Of an architecture that is put together from the library, with no training of its own.
        entry_s: What an entry of the library takes, and a tenth of it a score.
        measure_s: What a measurement takes, on each target.
        fault_share: Chance that a piece of work fails before its last result.
        faults: Causes, with which a training or a measurement then fails.
        seed: Of the faults.
        checkpoints: Epochs that are kept, by the place of the checkpoint.
    """

    map50_95: Callable[[Architecture, int, int], float]
    latency_ms: Callable[[Architecture, str], float]
    epoch_s: Callable[[Architecture, int], float] = lambda architecture, epoch: 10.0
    score: Callable[[Architecture], float] = lambda architecture: 0.0
    entry_s: float = 1.0
    steps: int = 100
    measure_s: float = 2.0
    fault_share: float = 0.0
    faults: tuple[str, ...] = ("crash", "unreachable")
    seed: int = 0
    checkpoints: dict[str, int] = field(default_factory=dict)
    _begun: Counter[str] = field(default_factory=Counter)

    def results(self, key: str, work: Any) -> Iterator[Timed]:
        """What a piece of work comes to, by the function that it would call."""
        name = work.func.__name__
        answer: Callable[..., Iterator[Timed]] = getattr(self, f"_{name}")
        results = answer(*work.args)
        self._begun[key] += 1
        if not self.fault_share:
            yield from results
            return
        draws = np.random.default_rng((self.seed, zlib.crc32(key.encode()), self._begun[key]))
        fails = draws.random() < self.fault_share
        after, cause = int(draws.integers(3)), str(draws.choice(self.faults))
        target = next(iter(getattr(work.args[0], "targets", ())), None) if work.args else None
        if not fails or name not in ("train", "measure") or (target is None) == (cause == "unreachable"):
            yield from results
            return
        for count, (seconds, item) in enumerate(results):
            if count == after:
                break
            yield seconds, item
        yield 1.0, Failure(cause, "a fault of the simulation", target=target[0].name if target else "")  # type: ignore[arg-type]

    def _prepare(self, *_: Any) -> Iterator[Timed]:
        return iter(())

    def _calibrate_target(self, target: Target, imgsz: ImageSize, fingerprint: str, identity: Any) -> Iterator[Timed]:
        yield self.measure_s, Calibration(fingerprint, imgsz, BASELINE_MS, 0.01, identity)

    def _check_target(self, target: Target, calibration: Calibration) -> Iterator[Timed]:
        return iter(())

    def _train(self, request: Any) -> Iterator[Timed]:
        place, architecture = str(request.checkpoint), request.architecture
        kept = self.checkpoints.get(place, 0)
        if (request.parents or request.library) and not kept:
            names = [parent.name for parent in request.parents]
            yield 0.0, FirstWeights((*([f"library of {request.library.name}"] if request.library else []), *names), 0.5)
        for epoch in range(1, max(request.until, kept) + 1):
            validated = epoch in request.rungs or epoch == request.until
            accuracy = self.map50_95(architecture, epoch, request.seed) if validated else None
            seconds, ended_s = self.epoch_s(architecture, epoch), 0.0
            if epoch == 1 and request.known == kept == 0:
                for ended_s, pace in _pace(seconds, self.steps):
                    yield ended_s, pace
            if epoch > kept and validated:
                self.checkpoints[place] = epoch
            if epoch > request.known:
                yield 0.0 if epoch <= kept else seconds - ended_s, Epoch(epoch, accuracy, accuracy, 1.0, seconds)
            elif epoch > kept:
                yield seconds, None

    def _make_entries(self, request: Any, kinds: Sequence[BlockKind]) -> Iterator[Timed]:
        for kind in kinds:
            found = f"{request.parent} {kind.text}" in self.checkpoints
            self.checkpoints[f"{request.parent} {kind.text}"] = 1
            seconds = 0.0 if found else self.entry_s
            yield seconds, LibraryEntry(kind.place, kind.block, kind.widen, 0.1, seconds)

    def _score_designs(self, _: Any, designs: Sequence[Architecture]) -> Iterator[Timed]:
        for design in designs:
            yield self.entry_s / 10, AssembledScore(design, self.score(design), self.entry_s / 10)

    def _hand_over(self, source: Any, target: Any) -> Iterator[Timed]:
        if str(source) in self.checkpoints:
            self.checkpoints[str(target)] = self.checkpoints[str(source)]
        yield 0.0, HandedOver()

    def _measure(self, request: Any) -> Iterator[Timed]:
        if not request.sized:
            yield 0.0, Complexity(1_000_000, 1.0, 1_000_000, 1.0, 100)
        for target, calibration in request.targets:
            for _ in range(request.sessions):
                value = self.latency_ms(request.architecture, target.name)
                found = latency(value, target.name, calibration.fingerprint, request.imgsz)
                yield self.measure_s, replace(found, conditions={"seconds": {"time": self.measure_s}})

    def _validate_finalist(self, request: Any) -> Iterator[Timed]:
        accuracy = self.map50_95(request.architecture, request.epochs, 0)
        target = request.target
        yield (
            self.measure_s,
            DeployedAccuracy(target.name, "", target.precision, request.epochs, 1, *[accuracy] * 4),
        )


def _pace(epoch_s: float, steps: int) -> Iterator[tuple[float, Pace]]:
    """The pace of a training and the time into its first epoch when it is known; none of an epoch that ends before."""
    meter = PaceMeter(steps)
    for number in range(steps):
        at_s = epoch_s * number / steps
        if pace := meter.begin_step(number, at_s):
            yield at_s, pace


def latency(value_ms: float, target: str, fingerprint: str, imgsz: ImageSize) -> Latency:
    """A latency without error."""
    return Latency(
        target=target,
        fingerprint=fingerprint,
        imgsz=imgsz,
        latency_ms=value_ms,
        ci_low_ms=value_ms,
        ci_high_ms=value_ms,
        ratio=value_ms / BASELINE_MS,
        reference_ms=BASELINE_MS,
        median_ms=value_ms,
        p90_ms=value_ms,
        samples=100,
        drift=0.0,
        load=0.0,
        quality="good",
    )


class SimulatedRunner:
    """Runs work of a `World`: trainings wait for a slot, as on Ray; everything takes simulated time only.

    Args:
        world: What results come to.
        slots: Trainings at once.
        start: Time on the clock, seconds.
        leaps: Whether a poll that waits goes on to what happens next, however long that takes: nobody looks on between.
    """

    def __init__(self, world: World, slots: int = 1, start: float = 0.0, leaps: bool = False):
        self.slots, self.now = slots, start
        self._leaps = leaps
        self._world = world
        self._waiting: dict[str, Work] = {}
        self._running: dict[str, _Running] = {}
        self._due: list[tuple[float, int, _Running, Any]] = []
        self._count = 0

    def submit(self, key: str, kind: Kind, work: Work) -> None:
        """Begin it now, or once a slot is free."""
        self._waiting[key] = work
        if kind == "measure":
            self._begin(key, kind)
        else:
            self._fill()

    def poll(self, timeout_s: float) -> Sequence[Report]:
        """What happens next, and all else at the same moment; the clock moves on to it, at most by the timeout."""
        until = self.now + timeout_s
        while self._due and not self._goes_on(self._due[0][2]):
            heapq.heappop(self._due)
        if self._leaps and timeout_s > 0 and self._due:
            until = max(until, self._due[0][0])
        if not self._due or self._due[0][0] > until:
            self.now = until
            return []
        self.now = max(self.now, self._due[0][0])
        reports: list[Report] = []
        while self._due and self._due[0][0] <= self.now:
            due_s, _, work, item = heapq.heappop(self._due)
            if not self._goes_on(work):
                continue
            if item is END:
                del self._running[work.key]
                reports.append(Report(work.key, None))
                self._fill()
                continue
            if item is not None:
                reports.append(Report(work.key, item))
            self._next(work, due_s)  # it went on, also if nobody asked for a while
        return reports

    def cancel(self, key: str) -> None:
        """Forget it."""
        self._waiting.pop(key, None)
        self._running.pop(key, None)
        self._fill()

    def close(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._running.clear()

    def _fill(self) -> None:
        busy = sum(work.kind == "train" for work in self._running.values())
        for key in list(self._waiting)[: self.slots - busy]:
            self._begin(key, "train")

    def _begin(self, key: str, kind: Kind) -> None:
        work = _Running(key, kind, self._world.results(key, self._waiting.pop(key)))
        self._running[key] = work
        self._next(work, self.now)

    def _next(self, work: _Running, since_s: float) -> None:
        seconds, item = next(work.results, (0.0, END))
        self._count += 1
        heapq.heappush(self._due, (since_s + seconds, self._count, work, item))

    def _goes_on(self, work: _Running) -> bool:
        return self._running.get(work.key) is work


class Inline(Executor):
    """Computes at once what is submitted, in the caller's thread: decisions then take no time of the simulation."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """The result, done."""
        future: Future[T] = Future()
        future.set_result(function(*args, **kwargs))
        return future


@dataclass(eq=False)
class _Running:
    key: str
    kind: Kind
    results: Iterator[Timed]


END = object()
"""Nothing more comes of a piece of work."""

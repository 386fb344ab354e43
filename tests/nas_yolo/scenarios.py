"""Searches in simulation, and what they did: the actions of a search, one a line."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.dataset import Dataset
from evaluators.target import Target
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.objective import parse_limit
from nas_yolo.runners import Kind, Report, Work
from nas_yolo.runners.simulated import SimulatedRunner, World
from search_spaces import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.space import values_of
from search_spaces.space_file import load_space
from storage import Repository, Search, Trial

SPACE = Path(__file__).parent / "space.yaml"


@dataclass(frozen=True)
class Scenario:
    """A search, and what befalls it.

    Attributes:
        stops: After so many polls each, it is interrupted and resumed.
        scale: Of the time that an epoch takes.
        steps: Batches in an epoch, by which its time is predicted; 0: it is not.
    """

    name: str
    sampler: str = "random"
    budgets: tuple[str, ...] = ("8trials",)
    targets: tuple[str, ...] = ("cpu",)
    inherits: bool = False
    library: bool = False
    repeats: int | None = 0
    epochs: int = 9
    slots: int = 1
    gpu: bool = False
    limits: tuple[str, ...] = ()
    space: str = str(SPACE)
    fault_share: float = 0.0
    faults: tuple[str, ...] = ("crash", "unreachable")
    seed: int = 0
    stops: tuple[int, ...] = ()
    scale: float = 1.0
    steps: int = 0

    @property
    def config(self) -> SearchConfig:
        size = ImageSize(32, 32)
        targets = {name: Target(name, threads=2 if name == "two" else 1) for name in self.targets}
        marks = {"cpu": "one", "two": "two", "twin": "one"}  # of a twin, the device is the same
        return SearchConfig(
            dataset=Dataset("made up", (), (), ("a", "b"), 100, 10, "0" * 16),
            space=load_space(self.space),
            targets=tuple((target, marks[name]) for name, target in targets.items()),
            identities={name: {} for name in targets},
            imgsz=size if self.space == str(SPACE) else ImageSize(64, 64),
            epochs=self.epochs,
            budgets=tuple(map(parse_budget, self.budgets)),
            limits=tuple(map(parse_limit, self.limits)),
            sampler=self.sampler,
            seed=self.seed,
            weights="library" if self.library else "inherited" if self.inherits else "scratch",
            repeats=self.repeats,
            warm_start=False,
        )

    def world(self) -> World:
        return World(
            map50_95=map50_95,
            latency_ms=latency_ms,
            epoch_s=lambda architecture, epoch: self.scale * (5 + 5 * share("time", architecture.key)),
            steps=self.steps,
            score=score,
            entry_s=self.scale,
            fault_share=self.fault_share,
            faults=self.faults,
            seed=self.seed,
        )


def share(what: str, key: str) -> float:
    """A number from 0 to 1 that an architecture always has."""
    return zlib.crc32(f"{what} {key}".encode()) / 2**32


def latency_ms(architecture: Architecture, target: str) -> float:
    slow = 2.0 if target == "two" else 1.0
    return slow * (0.5 + 1.5 * share("latency", architecture.key) + 0.2 * share(target[:1] + "w", architecture.key))


def map50_95(architecture: Architecture, epochs: int, seed: int) -> float:
    final = 0.2 + 0.1 * latency_ms(architecture, "cpu") + 0.2 * share("accuracy", architecture.key)
    noise = 0.01 * share(f"{seed} {epochs}", architecture.key)
    return final * (1 - math.exp(-epochs / 4)) + noise


def score(architecture: Architecture) -> float:
    """Less the more it differs from the first design of the space; the stock model's is .3."""
    return 0.3 * math.prod(1 - 0.3 * share("lost", f"{name} {value}") for name, value in changes(architecture))


def changes(architecture: Architecture) -> list[tuple[str, object]]:
    stock = values_of(Scenario("stock").config.known_designs["yolov8n"])
    return [(name, value) for name, value in values_of(architecture).items() if value != stock[name]]


class RecordingRunner(SimulatedRunner):
    """Writes down what it is told to do; is interrupted after so many polls."""

    def __init__(self, world: World, slots: int, start: float, lines: list[str], polls: float):
        super().__init__(world, slots, start)
        self._lines, self._polls = lines, polls
        self._turn: list[str] = []

    def submit(self, key: str, kind: Kind, work: Work) -> None:
        self._turn.append(" ".join([key, *detail(work)]))
        super().submit(key, kind, work)

    def cancel(self, key: str) -> None:
        self._turn.append(f"cancel {key}")
        super().cancel(key)

    def close(self) -> None:
        self._end_turn()
        super().close()

    def _end_turn(self) -> None:
        if self._turn:  # within a turn, no time passes: the order is of no importance
            self._lines.append(" | ".join(sorted(self._turn)))
            self._turn.clear()

    def poll(self, timeout_s: float) -> Sequence[Report]:
        self._end_turn()
        self._polls -= 1
        if self._polls < 0:
            raise KeyboardInterrupt
        return super().poll(timeout_s)


def detail(work: Any) -> Iterator[str]:
    request = work.args[0] if work.args else None
    if hasattr(request, "until"):
        yield f"{request.known} to {request.until} of {request.epochs} seed {request.seed}"
        yield from (f"from {parent.name}" for parent in request.parents)
    elif hasattr(request, "sessions"):
        yield f"{request.sessions} on " + ", ".join(target.name for target, _ in request.targets)


Drive = Callable[[Repository, Search, RecordingRunner, bool], None]


def record(scenario: Scenario, folder: Path, drive: Drive) -> list[str]:
    """What a search does, then what comes of it.

    Args:
        scenario: Which.
        folder: For its database.
        drive: Runs a search until it ends or is interrupted.
    """
    folder.mkdir(parents=True)
    repository = Repository(f"sqlite:///{folder / 'search.db'}")
    search = repository.create_search("one", scenario.config.document())
    lines: list[str] = []
    world, now = scenario.world(), 0.0
    for polls in [*scenario.stops, math.inf]:
        runner = RecordingRunner(world, scenario.slots, now, lines, polls)
        try:
            drive(repository, search, runner, scenario.gpu)
        except KeyboardInterrupt:
            runner.close()
            lines.append("interrupted")
        except RuntimeError as error:
            runner.close()
            lines.append(f"ended: {error}")
            break
        else:
            runner.close()
        now = runner.now
    lines += map(outcome, repository.trials(search))
    spent = repository.spent(search)
    lines.append(f"spent {spent.wall_seconds:.0f} s, {spent.cpu_seconds:.0f} CPU s, {spent.gpu_seconds:.0f} GPU s")
    repository.close()
    return lines


def outcome(trial: Trial) -> str:
    sessions = ", ".join(f"{latency.sessions} on {name}" for name, latency in sorted(trial.latencies.items()))
    accuracy = "" if trial.map50_95 is None else f" {trial.map50_95:.4f}"
    return f"trial {trial.number} {trial.origin}: {trial.state} after {len(trial.epochs)}{accuracy}; {sessions}"


SAMPLERS = ("frontier", "tpe", "nsga2", "gp", "random")
SCENARIOS = [
    *(Scenario(f"{sampler} in trials", sampler, ("14trials",)) for sampler in SAMPLERS),
    *(Scenario(f"{sampler} in time", sampler, ("10min",), inherits=True, repeats=None) for sampler in SAMPLERS),
    *(Scenario(f"{sampler} with faults", sampler, ("12trials",), fault_share=0.3, slots=2) for sampler in SAMPLERS),
    *(Scenario(f"{sampler} resumed", sampler, ("10trials",), stops=(7, 3, 19), inherits=True) for sampler in SAMPLERS),
    Scenario("GPU hours", budgets=("0.4gpu-h",), gpu=True, slots=2, inherits=True, repeats=None, scale=2),
    Scenario("CPU hours", budgets=("0.25cpu-h",), slots=2, repeats=1),
    Scenario("two budgets", budgets=("10min", "6trials"), repeats=None),
    Scenario("no time", budgets=("30s",)),
    Scenario("a parent too expensive", budgets=("15min",), inherits=True, scale=3),
    Scenario("a parent too expensive, resumed", budgets=("15min",), inherits=True, scale=3, stops=(14, 30)),
    Scenario(
        "a parent that its first batches give away", budgets=("285s",), inherits=True, epochs=6, scale=3, steps=100
    ),
    Scenario(
        "a parent that its first batches give away, resumed",
        budgets=("285s",),
        inherits=True,
        epochs=6,
        scale=3,
        steps=100,
        stops=(3, 4),
    ),
    Scenario("no parent for so few", budgets=("2trials",), inherits=True),
    Scenario("two targets", "frontier", ("8trials",), targets=("cpu", "two"), slots=2),
    Scenario("three names", budgets=("6trials",), targets=("cpu", "two", "twin"), slots=2),
    Scenario("two targets with faults", budgets=("8trials",), targets=("cpu", "two"), fault_share=0.4, seed=3),
    Scenario("two targets resumed", budgets=("8trials",), targets=("cpu", "two"), stops=(5, 11, 23), slots=3),
    Scenario("out of memory", budgets=("6trials",), fault_share=0.5, faults=("oom",), seed=5),
    Scenario("all fail", budgets=("9trials",), fault_share=1.0, faults=("nan",)),
    Scenario("an unreachable device", budgets=("6trials",), fault_share=0.6, faults=("unreachable",), seed=2),
    Scenario("repeats", budgets=("8trials",), repeats=3, inherits=True),
    Scenario("repeats, resumed", budgets=("8trials",), repeats=3, inherits=True, stops=(40, 20, 9)),
    Scenario("repeats in time", "frontier", ("10min",), repeats=2, slots=2),
    Scenario("a limit", budgets=("10trials",), limits=("latency_ms<=1.2",), slots=2),
    Scenario("a limit on size", budgets=("6trials",), limits=("params_m<=0.08",)),
    Scenario("four slots", "frontier", ("5min",), slots=4, inherits=True),
    Scenario("one rung", budgets=("6trials",), epochs=2),
    Scenario("two rungs", "frontier", ("15min",), epochs=6),
    Scenario("presets", "frontier", ("12trials",), space="yolov8n", inherits=True),
    Scenario("a library", "frontier", ("0.4cpu-h",), library=True, slots=2, repeats=None),
    Scenario("a library, resumed", "frontier", ("0.4cpu-h",), library=True, stops=(9, 15, 22, 31), repeats=None),
    Scenario("a library, halving", "random", ("0.4cpu-h",), library=True),
    Scenario("no budget for a library's parent", "frontier", ("0.02cpu-h",), library=True),
    Scenario("stopped at once", budgets=("5trials",), stops=(0, 1, 2, 3, 4), inherits=True),
]

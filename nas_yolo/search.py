"""The loop: propose, measure, train, decide, until the budget is spent.

Every step is written down before the next one is taken, so that a search that dies can go on from its database.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from evaluators.accuracy.deployed import validate_finalist
from evaluators.accuracy.request import DeployedRequest, TrainingRequest
from evaluators.accuracy.training import prepare, train
from evaluators.dataset import spread_images
from evaluators.errors import AWAY
from evaluators.evaluation import Complexity, DeployedAccuracy, Epoch, Failure, FirstWeights, Latency, Scores, combine
from evaluators.latency import Calibration
from evaluators.location import StoreError
from evaluators.measurement import MeasurementRequest, calibrate_target, check_target, measure
from evaluators.target import Target
from evaluators.zero_cost import IMAGES
from nas_yolo.budget import Purse
from nas_yolo.config import SearchConfig
from nas_yolo.costs import Costs, rung_efforts
from nas_yolo.decisions import (
    distinct,
    finalists,
    half_batch,
    may_explore,
    next_finalist,
    next_rung,
    sessions_missing,
    time_limit_s,
)
from nas_yolo.devices import Device, after_failure, is_given_up, is_ready, is_suspect
from nas_yolo.first_weights import coming_parent, parents_of, too_dear, wants_parent
from nas_yolo.objective import too_slow
from nas_yolo.proposals import propose, stock_design
from nas_yolo.results import asked, is_design
from nas_yolo.runners import Event, Kind, Runner, Work
from nas_yolo.samplers import Seen
from nas_yolo.samplers._grid import Grid
from nas_yolo.schedulers import get_strategy, rungs
from nas_yolo.warm_start import earlier_designs
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.image_size import ImageSize
from search_spaces.space import Choices
from storage import Repository, Search, Spent, Trial

if TYPE_CHECKING:
    from evaluators.location import Location

ATTEMPTS = 2  # a crash may be the machine's fault: once more, from the last checkpoint
MENDABLE = frozenset({"crash", "timeout", "garbage"})
FRONT_SESSIONS, FINAL_SESSIONS = 2, 5  # fresh processes in which what is on the front is timed, and in the end
MAX_FAILURES = 5  # with nothing trained at all: something is wrong that more trials will not mend
TICK_S = 1.0

T = TypeVar("T")
JobKind = Kind | Literal["session"]
Purpose = Literal["prepare", "calibrate", "check", "measure", "confirm", "validate", "train", "session"]
Phase = Literal["preparing", "exploring", "finishing", "done"]


class SearchError(UserError, RuntimeError):
    """The search cannot go on; one line that says why."""


@dataclass(frozen=True)
class Snapshot:
    """How a search stands, for a view.

    Attributes:
        running: What runs now: kind and trial number (None: preparations).
        away: Targets that do not answer, and why; the rest of the search goes on.
    """

    search: Search
    config: SearchConfig
    phase: Phase
    trials: tuple[Trial, ...]
    purse: Purse
    running: tuple[tuple[JobKind, int | None], ...]
    away: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Job:
    kind: JobKind
    purpose: Purpose
    trial: int | None
    entry: int
    target: str = ""
    gpus: float = 0.0
    cpus: float = 0.0
    expected_s: float = 0.0
    started: float = field(default_factory=time.monotonic)
    charged_s: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    def seconds(self, now: float) -> float:
        """Since its start."""
        return now - self.started

    def owed(self, now: float) -> float:
        """Seconds since the ledger was last brought up to date."""
        return self.seconds(now) - self.charged_s


class _BudgetSpentError(Exception):
    """A limit in time was reached while the next step was thought out."""


class SearchLoop:
    """Runs one search until its budget is spent or the space is exhausted.

    Args:
        repository: Where the search is stored.
        search: The search; `run` continues wherever its trials stand.
        runner: Where work runs; closed by the caller.
        threads: Of one training.
        on_gpu: Whether trainings use a GPU.
        view: Called after every change and every second.
    """

    def __init__(
        self,
        repository: Repository,
        search: Search,
        runner: Runner,
        threads: int,
        on_gpu: bool,
        view: Callable[[Snapshot], None],
    ):
        self.repository, self.search, self.runner, self.view = repository, search, runner, view
        self.scratch = repository.run_folder(search) / "scratch"
        self.config = SearchConfig.from_document(search.config)
        self.levels = rungs(self.config.epochs)
        self.grid = Grid(self.config.space.choices)
        bounds = [limit.bound for limit in self.config.limits if limit.metric == "latency_ms"]
        self.strategy = get_strategy(
            self.config.sampler,
            self.grid,
            rung_efforts(self.config),
            self.config.seed,
            min(bounds, default=math.inf),
            earlier_designs(repository, search, self._codes) if self.config.warm_start else (),
        )
        self.threads, self.on_gpu = threads, on_gpu
        self.baseline = self.config.space.baseline
        self.trials: dict[int, Trial] = {}
        self.calibrations: dict[tuple[str, ImageSize], Calibration] = {}  # by target
        self.devices = {target.name: Device() for target, _ in self.config.targets}
        self.phase: Phase = "preparing"
        self.exhausted_space = False
        self._codes_of: dict[int, tuple[int, ...] | None] = {}
        self._confirmed: Counter[tuple[int, str]] = Counter()  # attempts at more sessions, by trial and target
        self._validated: set[tuple[int, str]] = set()  # attempts at the accuracy of the exported file, likewise
        self._jobs: dict[str, _Job] = {}
        self._ticked = 0.0
        self._thoughts = ThreadPoolExecutor(1, "decisions")

    # The loop -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until nothing is left to do within the budget.

        Raises:
            SearchError: If the images or a target cannot be used, or a target is not what it was.
            KeyboardInterrupt: If the user stops it. As after a crash, nothing is lost, `run` on a new loop continues.
        """
        self.repository.set_state(self.search, "running")
        self.trials = {trial.number: self._settled(trial) for trial in self.repository.trials(self.search)}
        with self._session():
            try:
                self._prepare()
                self.phase = "exploring"
                while self._start_work():
                    self._wait()
            except _BudgetSpentError:
                pass
            except KeyboardInterrupt:
                self.repository.set_state(self.search, "stopped")
                raise
            finally:
                self._thoughts.shutdown(wait=False, cancel_futures=True)
                self._abandon()
        self.phase = "done"
        self.repository.set_state(self.search, "done")
        shutil.rmtree(self.scratch / "images", ignore_errors=True)  # large, and made again if need be
        self._show()

    def _prepare(self) -> None:
        """Scan the images once and time the reference model on every target that has not been."""
        config = self.config
        self._submit("prepare", None, partial(prepare, config.dataset, config.imgsz, self.scratch / "images"))
        for (target, fingerprint), imgsz in product(distinct(self.config.targets), config.image_sizes):
            known, identity = self.repository.calibration(fingerprint, imgsz), config.identities.get(target.name, {})
            if known:
                self.calibrations[target.name, imgsz] = replace(known, identity=identity)
            else:
                work = partial(calibrate_target, target, imgsz, fingerprint, identity)
                self._submit("calibrate", None, work, target, f"at {imgsz} px")
        while self._jobs:
            self._wait()

    def _start_work(self) -> bool:
        """Start what should run now; whether anything runs."""
        purse = self._purse()
        if purse.exhausted:
            return False
        while self._count("train") < self.runner.slots and (choice := self._next_training(purse)):
            self._start_training(*choice)
            purse = self._purse()
        while self.phase == "exploring" and self._wants_trial(purse):
            trial = self._propose()
            if trial is None:
                self.exhausted_space = True
                break
            purse = self._purse()
        self._measure()
        self._show()
        return bool(self._jobs) or self._waits_for_device()

    def _wait(self) -> None:
        for event in self.runner.poll(min(TICK_S, self._purse().seconds_left)):
            self._handle(event)
        self._end_hopeless()
        self._tick()
        if self._purse().exhausted:
            self._abandon()

    def _end_hopeless(self) -> None:
        """End trainings that hang, and that of a parent that turns out too dear."""
        now = time.monotonic()
        for key, job in list(self._jobs.items()):
            if job.purpose != "train" or job.trial is None:
                continue
            trial = self.trials[job.trial]
            if trial.is_parent and (reason := too_dear(trial, self._costs(), self._purse())):
                self.runner.cancel(key)
                self._charge([job])
                del self._jobs[key]
                self._give_up(trial, reason)
                continue
            # A training of which nothing was expected tells what to expect once it reports an epoch.
            told_s = self._costs().per_epoch(trial) * self.config.epochs if trial.epochs else 0.0
            expected_s = job.expected_s or told_s
            if job.seconds(now) > (limit := time_limit_s(expected_s, self.config.trial_time_s)):
                self.runner.cancel(key)
                expected = f"{expected_s:.0f} s were expected" if expected_s else "as --trial-time says"
                failure = Failure("timeout", f"its training was ended after {limit:.0f} s; {expected}")
                self._handle(Event(key, failure))
                self._handle(Event(key, None))

    # Decisions ------------------------------------------------------------------------------------------------------

    def _think(self, decide: Callable[..., T], *arguments: Any) -> T:
        """What the strategy says. Meanwhile the clock is kept: what runs is charged, and stopped when the budget ends.

        Raises:
            _BudgetSpentError: If that happened.
        """
        answer = self._thoughts.submit(decide, *arguments)
        while not wait([answer], min(TICK_S, self._purse().seconds_left)).done:
            self._tick()
            if self._purse().exhausted:
                self._abandon()
                raise _BudgetSpentError
        return answer.result()

    def _next_training(self, purse: Purse) -> tuple[Trial, int] | None:
        """The trial to train next, and until which epoch."""
        costs = self._costs()
        if wants_parent(costs.trials, self.config):
            return self._add_parent(), self.config.epochs
        if parent := coming_parent(costs.trials):  # nothing else is trained before it is known where to begin
            if parent.state == "training":
                return None
            if not (reason := too_dear(parent, costs, purse)):
                return parent, self.config.epochs
            self._give_up(parent, reason)
            costs = self._costs()
        if self.phase == "exploring" and not may_explore(costs, purse, self.exhausted_space):
            self.phase = "finishing"
        for trial in self.trials.values():  # stopped between its last epoch and its end: little is left to do
            if trial.state == "paused" and len(trial.epochs) >= self.config.epochs:
                return trial, self.config.epochs
        seen = self._seen()
        if self.phase == "exploring":
            found = next_rung(costs, purse, seen, partial(self._think, self.strategy.order))
        else:
            found = next_finalist(costs, purse, seen, partial(self._think, self.strategy.finalists), FINAL_SESSIONS)
        if found is None:
            return None
        return (self._add_repeat(found.trial) if found.again else found.trial), found.until

    def _wants_trial(self, purse: Purse) -> bool:
        if self.exhausted_space or not purse.trials_left:
            return False
        return self._think(self.strategy.wants, list(self._seen().values()), self.runner.slots)

    def _costs(self) -> Costs:
        return Costs(tuple(self.trials.values()), self.config)

    def _propose(self) -> Trial | None:
        """A new trial; None if nothing new was found."""
        tried = {trial.architecture.key for trial in asked(self.trials.values())}
        number = len(self.trials)
        found = propose(self.config, tried, number, self._suggested)
        return self._add(*found, number) if found else None

    def _suggested(self) -> Iterator[Choices]:
        """The sampler's choices, best first."""
        for codes in self._think(self.strategy.candidates, list(self._seen().values())):
            yield self.grid.values(codes)

    def _seen(self) -> dict[int, Seen]:
        """All trials that are points of the space, as decisions see them, by number."""
        targets = [target.name for target, _ in self.config.targets]
        costs, seen = self._costs(), {}
        for trial in asked(self.trials.values()):
            if trial.number not in self._codes_of:
                self._codes_of[trial.number] = self._codes(trial.architecture)
            if (codes := self._codes_of[trial.number]) is None:
                continue
            reached = trial.reached(self.levels)
            measured = trial.state not in ("new", "measuring") and all(name in trial.latencies for name in targets)
            seen[trial.number] = Seen(
                codes=codes,
                latencies_ms=tuple(trial.latencies[name].latency_ms for name in targets) if measured else (),
                accuracies=reached,
                heading=min(len(reached), len(self.levels) - 1) if trial.state == "training" else None,
                over=not trial.alive or len(reached) == len(self.levels),
                epoch_s=costs.per_epoch(trial) if trial.epochs else None,
                scores=trial.scores,
            )
        return seen

    def _codes(self, architecture: Architecture) -> tuple[int, ...] | None:
        choices = self.config.space.choices_of(architecture)
        return None if choices is None else self.grid.codes(choices)

    # Work -----------------------------------------------------------------------------------------------------------

    def _add(self, architecture: Architecture, origin: str, number: int) -> Trial:
        trial = self.repository.add_trial(self.search, number, architecture, origin)
        self.trials[number] = trial
        return trial

    def _add_repeat(self, trial: Trial) -> Trial:
        """A new trial of the same architecture, measured as that is."""
        repeat = self._add(trial.architecture, f"repeat:{trial.number}", len(self.trials))
        if trial.complexity:
            self.repository.set_complexity(repeat, trial.complexity)
        if trial.batch:
            self.repository.set_batch(repeat, trial.batch)
        known = replace(repeat, complexity=trial.complexity, latencies=trial.latencies, batch=trial.batch)
        self._move(known, "ready")
        return self.trials[repeat.number]

    def _add_parent(self) -> Trial:
        """The stock model, to be trained for its weights; its measurements are those of the stock trial."""
        parent = self._add(stock_design(self.config), f"parent:{self.baseline}", len(self.trials))
        self._move(parent, "ready")
        return self.trials[parent.number]

    def _give_up(self, parent: Trial, reason: str) -> None:
        """Train from scratch instead."""
        self._hand_over(parent)
        self._move(parent, "rejected", reason)

    def _hand_over(self, parent: Trial) -> None:
        """Let the stock trial go on where the parent's training ended: from scratch, they are the same.

        Before the parent is put away: after a crash it is done again, and only what is missing.
        """
        stock = next((trial for trial in asked(self.trials.values()) if trial.preset == self.baseline), None)
        if stock is None or len(stock.epochs) >= len(parent.epochs):
            return
        from evaluators.accuracy.checkpoints import copy_checkpoint

        source, target = (self.repository.checkpoint(self.search, trial.number) for trial in (parent, stock))
        try:
            copy_checkpoint(source, target)
        except FileNotFoundError:  # it died before its first
            pass
        except StoreError as error:
            raise self._cannot_store(str(error)) from error
        if parent.batch:
            self.repository.set_batch(stock, parent.batch)
        for epoch in parent.epochs[len(stock.epochs) :]:
            self.repository.add_epoch(stock, epoch)
        self._update(replace(stock, epochs=parent.epochs, batch=parent.batch))

    def _cannot_store(self, message: str) -> SearchError:
        return SearchError(f"{message}; nothing is lost: mend it and go on with nas-yolo resume {self.search.name}")

    def _seed(self, trial: Trial) -> int:
        """The search's own, or for a repeat one that no other training of the architecture has."""
        if trial.repeat_of is None:
            return self.config.seed
        earlier = [t for t in self.trials.values() if t.repeat_of == trial.repeat_of and t.number < trial.number]
        return self.config.seed + 1 + len(earlier)

    def _measure(self) -> None:
        """Start the measurements that are due, as many at once as there are targets."""
        most = len(distinct(self.config.targets))
        for target, _ in distinct(self.config.targets):
            if is_suspect(self.devices[target.name]) and not self._is_measuring(target=target.name):
                calibration = self.calibrations[target.name, self.config.imgsz]
                self._submit("check", None, partial(check_target, target, calibration), target)
        for trial in list(self.trials.values()):
            if self._count("measure") >= most:
                return
            if trial.state == "new" and self._are_ready(unknown := self._unknown(trial)):
                self._start_measuring(trial, unknown)
        for trial, target, sessions in self._confirmations():
            if self._count("measure") >= most:
                return
            if self._are_ready([target]) and not self._is_measuring(trial=trial.number):
                self._confirmed[trial.number, target.name] += 1
                self._submit("confirm", trial, partial(measure, self._request(trial, [target], sessions)), target)

        for trial, target in self._validations():
            if self._count("measure") >= most:
                return
            self._validated.add((trial.number, target.name))
            request = DeployedRequest(
                architecture=trial.architecture,
                checkpoint=self.repository.checkpoint(self.search, trial.number),
                epochs=len(trial.epochs),
                dataset=self.config.dataset,
                imgsz=self.config.imgsz_of(trial.architecture),
                target=target,
                threads=self.threads,
                arguments=self.config.training,
            )
            self._submit("validate", trial, partial(validate_finalist, request), target)

    def _unknown(self, trial: Trial) -> list[Target]:
        """Targets on which no search has measured it yet; of several names of the same, the first."""
        unknown = []
        for target, fingerprint in distinct(self.config.targets):
            if known := self._known_latency(trial, fingerprint):
                self._set_latency(trial.number, fingerprint, known)
            else:
                unknown.append(target)
        return unknown

    def _set_latency(self, number: int, fingerprint: str, latency: Latency | None) -> None:
        """Under every name of the target; None: there is none any more."""
        names = [target.name for target, mark in self.config.targets if mark == fingerprint]
        rest = {name: one for name, one in self.trials[number].latencies.items() if name not in names}
        mine = {name: replace(latency, target=name) for name in names} if latency else {}
        self._update(replace(self.trials[number], latencies={**rest, **mine}))

    def _known_latency(self, trial: Trial, fingerprint: str) -> Latency | None:
        classes, imgsz = len(self.config.dataset.names), self.config.imgsz_of(trial.architecture)
        return self.repository.find_latency(trial.architecture, classes, imgsz, fingerprint)

    def _start_measuring(self, trial: Trial, unknown: list[Target]) -> None:
        self._move(self.trials[trial.number], "measuring")
        self._submit("measure", trial, partial(measure, self._request(trial, unknown)))

    def _request(self, trial: Trial, targets: list[Target], sessions: int = 1) -> MeasurementRequest:
        imgsz = self.config.imgsz_of(trial.architecture)
        return MeasurementRequest(
            architecture=trial.architecture,
            classes=len(self.config.dataset.names),
            imgsz=imgsz,
            targets=tuple((target, self.calibrations[target.name, imgsz]) for target in targets),
            scratch=self.scratch,
            sessions=sessions,
            sized=trial.complexity is not None,
            images=self._scored_images,
            baseline=self._trained_baseline(),
        )

    @cached_property
    def _scored_images(self) -> tuple[str, ...]:
        return tuple(map(str, spread_images(self.config.dataset, IMAGES)))

    def _trained_baseline(self) -> tuple[Architecture, Location] | None:
        """The stock model that scores compare with, and its checkpoint; None until one is complete."""
        for trial in self.trials.values():
            if trial.state == "complete" and (trial.is_parent or trial.preset == self.baseline):
                return trial.architecture, self.repository.checkpoint(self.search, trial.number)
        return None

    def _confirmations(self) -> Iterator[tuple[Trial, Target, int]]:
        """What should be timed in more processes, and in how many; finalists once there is nothing left to train."""
        wanted = FINAL_SESSIONS if self._only_finalists_left() else FRONT_SESSIONS
        for target, _ in distinct(self.config.targets):
            for trial, missing in sessions_missing(self._costs(), target.name, wanted):
                if self._confirmed[trial.number, target.name] < FRONT_SESSIONS + 1:
                    yield trial, target, missing

    def _only_finalists_left(self) -> bool:
        """Whether there is nothing left to train."""
        return self.phase == "finishing" and not self._count("train")

    def _validations(self) -> Iterator[tuple[Trial, Target]]:
        """Finalists whose exported file is to be validated, in the end."""
        if not self._only_finalists_left():
            return
        for trial, target in finalists(self._costs()):
            if target.name not in trial.deployed and (trial.number, target.name) not in self._validated:
                yield trial, target

    def _are_ready(self, targets: Sequence[Target]) -> bool:
        """Whether all can be measured on now."""
        now = time.monotonic()
        return all(is_ready(self.devices[target.name], now) for target in targets)

    def _is_measuring(self, trial: int | None = None, target: str | None = None) -> bool:
        jobs = [job for job in self._jobs.values() if job.kind == "measure"]
        return (
            any(job.trial == trial for job in jobs) if trial is not None else any(job.target == target for job in jobs)
        )

    def _waits_for_device(self) -> bool:
        """Whether something is left to measure once a device answers again.

        Raises:
            SearchError: If it has been away for too long.
        """
        waiting = any(trial.state == "new" for trial in self.trials.values()) and self.phase == "exploring"
        if not waiting:
            return False
        for name, device in self.devices.items():
            if is_given_up(device, time.monotonic()):
                raise SearchError(
                    f"target {name} is away: {device.reason}; nothing is lost: see nas-yolo target check {name}, then "
                    f"nas-yolo resume {self.search.name}"
                )
        return not self._are_ready([target for target, _ in self.config.targets])

    def _start_training(self, trial: Trial, until: int) -> None:
        request = TrainingRequest(
            architecture=trial.architecture,
            dataset=self.config.dataset,
            imgsz=self.config.imgsz_of(trial.architecture),
            epochs=self.config.epochs,
            until=until,
            seed=self._seed(trial),
            checkpoint=self.repository.checkpoint(self.search, trial.number),
            scratch=self.repository.trial_folder(self.search, trial.number),
            images=self.scratch / "images",
            known=len(trial.epochs),
            rungs=self.levels,
            parents=parents_of(
                trial, list(self.trials.values()), self.config, partial(self.repository.checkpoint, self.search)
            ),
            subset=self.config.subset,
            small_imgsz=self.config.small_imgsz,
            threads=self.threads,
            gpu=self.on_gpu,
            gpu_share=min(self.config.gpus_per_trial, 1.0),
            arguments=self.config.training | ({"batch": trial.batch} if trial.batch else {}),
        )
        expected = self._costs().of(trial, until)
        self._move(trial, "training")
        self._submit("train", trial, partial(train, request), expected_s=expected)

    def _submit(
        self,
        purpose: Purpose,
        trial: Trial | None,
        work: Work,
        target: Target | None = None,
        detail: str = "",
        expected_s: float = 0.0,
    ) -> None:
        kind: Kind = "train" if purpose in ("prepare", "train") else "measure"
        gpus = self.config.gpus_per_trial if self.on_gpu and kind == "train" else 0.0
        cpus = float(self.threads) if purpose in ("prepare", "train", "validate") else 1.0
        entry = self.repository.open_entry(self.search, trial, kind, gpus, cpus)
        number = trial.number if trial else None
        about = "" if number is None else str(number)
        key = " ".join(filter(None, (purpose, about, target.name if target else "", detail)))
        job = _Job(kind, purpose, number, entry, target.name if target else "", gpus, cpus, expected_s)
        self._jobs[key] = job
        self.runner.submit(key, kind, work)

    def _handle(self, event: Event) -> None:
        job = self._jobs.get(event.key)
        if job is None:
            return
        trial = self.trials[job.trial] if job.trial is not None else None
        match event.item:
            case None:
                self._charge([job])
                del self._jobs[event.key]
                self._after(event.key, job, trial)
            case Failure() as failure:
                job.failures.append(failure)
                if trial:
                    self.repository.add_failure(trial, failure)
                    self._update(replace(trial, failures=(*trial.failures, failure)))
            case Calibration() as calibration:
                self.repository.add_calibration(calibration)
                self.calibrations[job.target, calibration.imgsz] = calibration
            case Epoch() as epoch if trial:
                self.repository.add_epoch(trial, epoch)
                self._update(replace(trial, epochs=(*trial.epochs, epoch)))
            case FirstWeights() as weights if trial:
                self.repository.set_weights(trial, weights)
                self._update(replace(trial, weights=weights))
            case Complexity() as complexity if trial:
                for other in [one for one in self.trials.values() if one.architecture == trial.architecture]:
                    self.repository.set_complexity(other, complexity)
                    self._update(replace(other, complexity=complexity))
            case Scores() as scores if trial:
                self.repository.set_scores(trial, scores.values)
                self._update(replace(trial, scores=scores.values))
            case Latency() as latency if trial:
                self._add_session(trial, latency)
            case DeployedAccuracy() as accuracy if trial:
                self.repository.add_deployed(trial, accuracy)
                self._update(replace(trial, deployed={**trial.deployed, accuracy.target: accuracy}))
            case other:
                raise AssertionError(f"unexpected result {other!r}")

    def _add_session(self, trial: Trial, latency: Latency) -> None:
        classes = len(self.config.dataset.names)
        self.repository.add_latency(trial.architecture, classes, latency)
        self.devices[latency.target] = Device()
        if "off_calibration" in latency.flags:
            self.repository.invalidate_latencies(latency.fingerprint)
        for other in list(self.trials.values()):
            known = other.latencies.get(latency.target)
            doubtful = known is not None and "off_calibration" in latency.flags and "drifted" in known.flags
            if doubtful or other.architecture == trial.architecture:
                where = (other.architecture, classes, self.config.imgsz_of(other.architecture), latency.fingerprint)
                now = combine(self.repository.sessions(*where))
                self._set_latency(other.number, latency.fingerprint, now)
                if not now and other.state == "ready" and is_design(other):
                    self._move(self.trials[other.number], "new")

    def _after(self, key: str, job: _Job, trial: Trial | None) -> None:
        """What follows from the end of a piece of work."""
        for failure in job.failures:
            if failure.cause == "data_changed":
                raise SearchError(
                    f"{failure.message}; accuracies would not compare. Nothing is lost: put the data back as it was, "
                    f"and go on with nas-yolo resume {self.search.name}, or start a new search"
                )
            if failure.cause == "storage":
                raise self._cannot_store(failure.message)
            if failure.cause == "device_changed":
                raise SearchError(
                    f"{failure.message}; its latencies would not compare. Put it back as it was and go on with "
                    f"nas-yolo resume {self.search.name}, or start a new search"
                )
            if failure.target in self.devices:
                device = self.devices[failure.target]
                checked = job.purpose == "check"
                self.devices[failure.target] = after_failure(device, failure, time.monotonic(), checked)
        match job.purpose:
            case "prepare" | "calibrate":
                if job.failures:
                    raise SearchError(f"{key} failed: {job.failures[-1].message}")
            case "check":
                if not job.failures:
                    self.devices[job.target] = Device()
            case "train" if trial and not job.failures:
                self._move(trial, "complete" if len(trial.epochs) >= self.config.epochs else "paused")
            case "measure" if trial and not job.failures:
                self._after_measuring(trial)
            case "measure" | "train" if trial:
                self._after_failure(trial, job)

    def _after_measuring(self, trial: Trial) -> None:
        if len(trial.latencies) < len(self.config.targets):  # one was taken back meanwhile
            self._move(trial, "new")
            return
        limits = () if trial.preset == self.baseline else self.config.limits
        reason = too_slow(limits, trial.latencies.values())
        self._move(trial, "rejected" if reason else "ready", reason)

    def _after_failure(self, trial: Trial, job: _Job) -> None:
        """Try again after a crash, which may have been the machine's, and once with half the batch if memory ran out.

        Anything else would only happen again.
        A device that is away is no fault of the trial's, which waits for it.
        """
        own = [failure for failure in job.failures if failure.cause not in AWAY]
        attempts = sum(past.cause in MENDABLE for past in trial.failures)
        if not own or (own[-1].cause in MENDABLE and attempts < ATTEMPTS):
            self._move(self._settled(trial), self._settled(trial).state)
        elif job.kind == "train" and own[-1].cause == "oom" and (batch := half_batch(trial, self.config.training)):
            self.repository.set_batch(trial, batch)
            settled = self._settled(replace(trial, batch=batch))
            self._move(settled, settled.state)
        else:
            if trial.is_parent:
                self._hand_over(trial)
            self._move(trial, "failed", f"{own[-1].cause}: {own[-1].message}")
        designs = asked(self.trials.values())
        failed = [other for other in designs if other.state == "failed"]
        if len(failed) >= MAX_FAILURES and not any(other.epochs for other in designs):
            raise SearchError(
                f"the first {len(failed)} trials all failed, the last one with: {failed[-1].reason}; "
                f"details: nas-yolo status {self.search.name}"
            )

    # Bookkeeping ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _settled(trial: Trial) -> Trial:
        """The trial as it stands once nothing works on it."""
        if trial.state == "measuring":
            return replace(trial, state="new")
        if trial.state == "new" and not is_design(trial):
            return replace(trial, state="ready")  # it is measured as the trial that it repeats, or the stock model, is
        if trial.state == "training":
            return replace(trial, state="paused" if trial.epochs else "ready")
        return trial

    def _move(self, trial: Trial, state: Any, reason: str = "") -> None:
        self.repository.set_trial_state(trial, state, reason)
        self._update(replace(trial, state=state, reason=reason))

    def _update(self, trial: Trial) -> None:
        self.trials[trial.number] = trial

    def _count(self, kind: Kind) -> int:
        return sum(job.kind == kind for job in self._jobs.values())

    def _purse(self) -> Purse:
        now = time.monotonic()
        gpus = self.config.gpus_per_trial if self.on_gpu else 0.0
        ledger, jobs = self.repository.spent(self.search), self._jobs.values()
        return Purse(
            budgets=self.config.budgets,
            spent=Spent(
                wall_seconds=ledger.wall_seconds + self._session_job.owed(now),
                gpu_seconds=ledger.gpu_seconds + sum(job.gpus * job.owed(now) for job in jobs),
                cpu_seconds=ledger.cpu_seconds + sum(job.cpus * job.owed(now) for job in jobs),
            ),
            trials=len(asked(self.trials.values())),
            committed_seconds=tuple(max(job.expected_s - job.seconds(now), 0.0) for job in jobs if job.kind == "train"),
            measuring=self._count("measure"),
            gpus=gpus,
            cpus=float(self.threads),
        )

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Count the wall-clock time while this process works on the search."""
        self._session_job = _Job("session", "session", None, self.repository.open_entry(self.search, None, "session"))
        try:
            yield
        finally:
            self._charge([self._session_job])

    def _tick(self) -> None:
        """Keep the ledger, the lease and the view current, once a second."""
        now = time.monotonic()
        if now - self._ticked < TICK_S:
            return
        self._ticked = now
        self._charge([self._session_job, *self._jobs.values()])
        self.repository.heartbeat(self.search)
        self._show()

    def _charge(self, jobs: Sequence[_Job]) -> None:
        now = time.monotonic()
        for job in jobs:
            job.charged_s = job.seconds(now)
        self.repository.charge({job.entry: job.charged_s for job in jobs})

    def _abandon(self) -> None:
        """Stop whatever still runs; its checkpoints stay."""
        for key in self._jobs:  # all of them before the first is written down, which takes time
            self.runner.cancel(key)
        self._charge(list(self._jobs.values()))
        self._jobs.clear()
        for trial in list(self.trials.values()):
            settled = self._settled(trial)
            if settled is not trial:
                self._move(settled, settled.state)

    def _show(self) -> None:
        self.view(
            Snapshot(
                search=self.search,
                config=self.config,
                phase=self.phase,
                trials=tuple(self.trials.values()),
                purse=self._purse(),
                running=tuple((job.kind, job.trial) for job in self._jobs.values()),
                away={name: device.reason for name, device in self.devices.items() if device.away_since is not None},
            )
        )

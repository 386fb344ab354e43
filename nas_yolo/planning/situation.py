"""What policies look at: the state of a search at a moment, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from evaluators.evaluation import AssembledScore
from evaluators.target import Target
from nas_yolo.additive import Additive
from nas_yolo.budget import Spending, parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.costs import Costs
from nas_yolo.fidelities import accuracies_of
from nas_yolo.first_weights import trained_parent
from nas_yolo.library import Changes, exact_designs, predict_latency, predict_scores, scores_of, share_left
from nas_yolo.samplers import Assembled, Grid, Observation, Strategy, step_below
from search_spaces.architecture import Architecture
from search_spaces.space import Choices
from storage import Job, JobKind, State, Trial

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What stays the same while a process works on a search.

    Attributes:
        name: Of the search.
        config: What was asked for.
        strategy: Of the sampler.
        slots: Trainings at once.
        threads: Of one training.
        gpus: That one training holds; 0 on a CPU.
    """

    name: str
    config: SearchConfig
    strategy: Strategy
    slots: int = 1
    threads: int = 1
    gpus: float = 0.0
    _codes: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    _observations: dict[int, tuple[Trial, Observation | None]] = field(default_factory=dict)
    _found: dict[str, tuple[str, Any]] = field(default_factory=dict)

    @cached_property
    def grid(self) -> Grid:
        """The space as arrays."""
        return Grid(self.config.space.choices)

    @cached_property
    def changes(self) -> Changes:
        """The stock model in the space, and what differs from it in one choice."""
        return Changes(self.config)

    def has_library(self, trials: Sequence[Trial]) -> bool:
        """Whether there is a library of blocks to make: asked for, and the parent is trained."""
        return self.config.weights == "library" and trained_parent(trials) is not None

    def latency(self, trials: Sequence[Trial]) -> Additive:
        """What each change adds to the logarithm of the latency in ms; of several targets the geometric mean."""
        measured = []
        for trial in trials:
            if trial.is_design and (seen := self.observation(trial)) and seen.latencies_ms:
                logarithms = [math.log(latency) for latency in seen.latencies_ms]
                measured.append((seen.codes, math.exp(sum(logarithms) / len(logarithms))))
        known = measured[: step_below(len(measured))]  # found anew where much more is known
        return self._remembered(
            "latency",
            repr(known),
            lambda: predict_latency(self.changes, [(self.grid.values(codes), one) for codes, one in known]),
        )

    def exact(self, trials: Sequence[Trial], assemblies: Sequence[AssembledScore]) -> list[Choices]:
        """The designs that are best at every latency by what was scored and measured; none before enough was."""
        scored, latency = assemblies[: step_below(len(assemblies))], self.latency(trials)

        def find() -> list[Choices]:
            score = predict_scores(self.changes, scores_of(self.changes, scored))
            if score is None:
                return []
            try:
                return exact_designs(self.changes, latency, score)
            except RuntimeError:  # the solver gave up; what was put together so far is there nevertheless
                return []

        return self._remembered("exact", f"{len(scored)} {latency!r}", find)

    def assembled(self, trials: Sequence[Trial], assemblies: Sequence[AssembledScore]) -> tuple[Assembled, ...]:
        """Designs that were put together, as strategies see them."""
        if not assemblies:
            return ()
        latency = self.latency(trials)

        def find() -> tuple[Assembled, ...]:
            scored = scores_of(self.changes, assemblies)
            own = next((score for choices, score in scored if choices == self.changes.start), 0.0)
            if own <= 0:
                return ()
            return tuple(
                Assembled(self.grid.codes(choices), share_left(score, own), math.exp(latency.predict(choices)))
                for choices, score in scored
            )

        return self._remembered("assembled", f"{len(assemblies)} {latency!r}", find)

    def _remembered(self, name: str, key: str, find: Callable[[], T]) -> T:
        """What was found under this name, found anew if what it follows from is another."""
        if name not in self._found or self._found[name][0] != key:
            self._found[name] = key, find()
        found: T = self._found[name][1]
        return found

    @cached_property
    def devices(self) -> tuple[tuple[Target, str], ...]:
        """Targets with their fingerprints; of several names of one device that is set up in one way, the first."""
        first = {fingerprint: target for target, fingerprint in reversed(self.config.targets)}
        return tuple((target, mark) for target, mark in self.config.targets if first[mark] is target)

    def codes(self, architecture: Architecture) -> tuple[int, ...] | None:
        """The point of the space that it is; None: it is none."""
        if architecture.key not in self._codes:
            choices = self.config.space.choices_of(architecture)
            self._codes[architecture.key] = None if choices is None else self.grid.codes(choices)
        return self._codes[architecture.key]

    def observation(self, trial: Trial) -> Observation | None:
        """A trial as strategies see it; None: it is no point of the space."""
        known = self._observations.get(trial.number)
        if known is None or known[0] is not trial:  # most have not changed since they were looked at last
            known = self._observations[trial.number] = trial, self._observe(trial)
        return known[1]

    def _observe(self, trial: Trial) -> Observation | None:
        if (codes := self.codes(trial.architecture)) is None:
            return None
        names = [target.name for target, _ in self.config.targets]
        known, last = accuracies_of(trial, self.config.fidelities), len(self.config.fidelities) - 1
        measured = trial.state not in ("new", "measuring") and all(name in trial.latencies for name in names)
        return Observation(
            codes=codes,
            latencies_ms=tuple(trial.latencies[name].latency_ms for name in names) if measured else (),
            accuracies=known,
            coming_fidelity=min(len(known), last) if trial.state == "training" else None,
            over=not trial.alive or len(known) > last or bool(trial.scaled),  # others decide when that is trained
            epoch_s=_rounded(trial.epoch_s) if trial.epochs and trial.epoch_s else None,
            scores=trial.scores,
        )


@dataclass(frozen=True)
class Situation:
    """A state at a time, seconds of the search."""

    context: Context
    state: State
    now_s: float

    @property
    def config(self) -> SearchConfig:
        """What was asked for."""
        return self.context.config

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All, by number."""
        return self.state.trials

    @property
    def designs(self) -> tuple[Trial, ...]:
        """Trials that are designs of their own: neither repeats nor trained for their weights."""
        return self.state.designs

    @cached_property
    def costs(self) -> Costs:
        """What trainings should take."""
        return Costs(self.trials, self.config)

    @cached_property
    def spending(self) -> Spending:
        """The budgets and what is left of them."""
        return spending(self.context, self.state, self.now_s)

    def running(self, kind: JobKind) -> list[Job]:
        """Work of a kind that runs."""
        return [job for job in self.state.work if job.kind == kind]

    @property
    def free_slots(self) -> int:
        """Trainings that could be begun."""
        return self.context.slots - len(self.running("train"))

    @cached_property
    def may_train(self) -> bool:
        """Whether a training can be begun that is not a parent's: before that ends, it is not known where to begin."""
        return self.free_slots > 0 and not any(trial.is_parent and trial.alive for trial in self.trials)

    @property
    def free_probes(self) -> int:
        """Measurements that could be begun: as many at once as there are devices."""
        return len(self.context.devices) - len(self.running("measure"))

    @cached_property
    def observations(self) -> dict[int, Observation]:
        """All trials that are points of the space, as strategies see them, by number."""
        return {t.number: one for t in self.designs if (one := self.context.observation(t)) is not None}

    @cached_property
    def assembled(self) -> tuple[Assembled, ...]:
        """Designs put together from the library, as strategies see them."""
        return self.context.assembled(self.trials, self.state.assemblies)

    @cached_property
    def wants_design(self) -> bool:
        """Whether another design should be measured, and may be."""
        if self.state.exhausted or not self.spending.trials_left:
            return False
        return self.context.strategy.wants(list(self.observations.values()), self.context.slots, self.assembled)


def _rounded(seconds: float) -> float:
    """To three digits: less tells nothing, and beliefs would be found anew at the end of every epoch."""
    return float(f"{seconds:.3g}")


def spending(context: Context, state: State, now_s: float) -> Spending:
    """The budgets of a search and what is left of them."""
    trainings = [job for job in state.work if job.kind == "train"]
    return Spending(
        budgets=tuple(map(parse_budget, state.budgets)),
        spent=state.spent_at(now_s),
        trials=len(state.designs),
        committed_seconds=tuple(max(job.expected_s - (now_s - job.started_s), 0.0) for job in trainings),
        measuring=sum(job.kind == "measure" for job in state.work),
        gpus=context.gpus,
        cpus=float(context.threads),
        slots=context.slots,
    )

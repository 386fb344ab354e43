"""One file per sampler. Each proposes designs from all that is known, and keeps nothing a resumed search would miss.

`frontier` is the engine of the product. The others are Optuna's own, each a function `ask(grid, seen, seed)` that
returns the codes of one design.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from nas_yolo.samplers._grid import Codes, Grid
from search_spaces.names import UnknownNameError, unknown

if TYPE_CHECKING:
    from nas_yolo.samplers._optuna import distributions
    from nas_yolo.samplers._quantity import Fits, step_below
    from nas_yolo.samplers._scale import normal_ranks
    from nas_yolo.samplers._scores import ScoreVerdict, judge_scores

__all__ = [
    "Ask",
    "Assembled",
    "Codes",
    "Earlier",
    "Fits",
    "Grid",
    "Observation",
    "ScoreVerdict",
    "Strategy",
    "check_sampler",
    "distributions",
    "get_ask",
    "judge_scores",
    "list_samplers",
    "normal_ranks",
    "step_below",
]

# Parts of the engine that others need, imported when they do: some bring SciPy or Optuna with them.
_PARTS = {
    "Fits": "_quantity",
    "ScoreVerdict": "_scores",
    "distributions": "_optuna",
    "judge_scores": "_scores",
    "normal_ranks": "_scale",
    "step_below": "_quantity",
}


def __getattr__(name: str) -> Any:
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PARTS[name]}"), name)


@dataclass(frozen=True)
class Observation:
    """What decisions know of one trial.

    Attributes:
        codes: Its point, as positions of its choices among their alternatives.
        latencies_ms: On each target; empty until measured.
        accuracies: At each fidelity that it has reached, cheapest first.
        coming_fidelity: Index of the fidelity that it is being evaluated at; None if at none.
        over: Nothing more of it is to be decided here: it is complete, failed, was rejected, or is only compared with.
        epoch_s: Seconds that an epoch of its training takes; None until known.
        scores: What its untrained network was given, by name; none before it was built, and where one was not finite.
    """

    codes: tuple[int, ...]
    latencies_ms: tuple[float, ...] = ()
    accuracies: tuple[float, ...] = ()
    coming_fidelity: int | None = None
    over: bool = False
    epoch_s: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def idle(self) -> bool:
        """Whether it could be trained on now."""
        return bool(self.latencies_ms) and self.coming_fidelity is None and not self.over


@dataclass(frozen=True)
class Earlier:
    """What decisions know of a trial of an earlier search.

    Attributes:
        codes: Its point in the space of this search.
        standing: Its accuracy among the trials of its search, about standard normal.
        regret: How much more accurate, in that unit, the best trial of its search is that is no slower; 0 or more.
        same_data: Whether that search was on the same images.
    """

    codes: tuple[int, ...]
    standing: float
    regret: float
    same_data: bool


@dataclass(frozen=True)
class Assembled:
    """What decisions know of a design that was put together from a library of blocks, tried or not.

    Attributes:
        codes: Its point.
        left: Logarithm of what is left of the stock model's score; 0 is all of it.
        latency_ms: As predicted; lower is better.
    """

    codes: tuple[int, ...]
    left: float
    latency_ms: float


Ask = Callable[[Grid, Sequence[Observation], int], tuple[int, ...]]


class Strategy(Protocol):
    """Decides what to propose and what to train, from what is known alone: the same trials, the same answer.

    `assembled` is what was put together from a library of blocks, if there is one.
    """

    def candidates(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> Iterator[tuple[int, ...]]:
        """Designs worth measuring, by their codes, best first; some may have been tried already."""

    def order(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> list[int]:
        """Positions of the trials that may be trained on to their next fidelity now, the one worth most first."""

    def finalists(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> list[int]:
        """Positions of paused trials, the one that deserves most to be trained to the end first."""

    def wants(self, seen: Sequence[Observation], slots: int, assembled: Sequence[Assembled] = ()) -> bool:
        """Whether another design should be measured now, for `slots` trainings at once."""


def list_samplers() -> tuple[str, ...]:
    """All names, sorted."""
    names = (found.name for found in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if not name.startswith("_")))


def check_sampler(name: str) -> None:
    """Refuse a name that is not a sampler's.

    Raises:
        UnknownNameError: With the nearest.
    """
    if name not in list_samplers():
        raise UnknownNameError(unknown("sampler", name, list_samplers()))


def get_ask(name: str) -> Ask:
    """One of Optuna's samplers."""
    check_sampler(name)
    ask: Ask = importlib.import_module(f"{__name__}.{name}").ask
    return ask

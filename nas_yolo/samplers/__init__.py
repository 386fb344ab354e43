"""One file per sampler: `ask(space, observations, seed)` proposes the choices of the next architecture.

A sampler keeps nothing between calls: what it proposes follows from the observations and the seed, so a resumed search
goes on as if it had never stopped.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_spaces.registry import UnknownNameError, unknown
from search_spaces.space import Choices, SearchSpace


@dataclass(frozen=True)
class Observation:
    """What is known of one architecture.

    Attributes:
        choices: Its point in the space.
        accuracy: mAP50-95 at the fidelity that all observations share; None if not known (yet).
        latency_ms: On the first target; None if not known (yet).
        running: Whether its accuracy is still to come.
    """

    choices: Choices
    accuracy: float | None
    latency_ms: float | None
    running: bool


Ask = Callable[[SearchSpace, Sequence[Observation], int], Choices]


def list_samplers() -> tuple[str, ...]:
    """All names, sorted."""
    names = (found.name for found in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if not name.startswith("_")))


def get_sampler(name: str) -> Ask:
    """The sampler of that name.

    Raises:
        UnknownNameError: If there is none; the message names the nearest.
    """
    if name not in list_samplers():
        raise UnknownNameError(unknown("sampler", name, list_samplers()))
    ask: Ask = importlib.import_module(f"{__name__}.{name}").ask
    return ask

"""Where work runs.

A piece of work is a function that returns an iterator of results; a runner starts it somewhere and
hands the results over as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Work = Callable[[], Iterator[Any]]
Kind = Literal["train", "measure"]


@dataclass(frozen=True)
class Report:
    """Something that running work produced.

    Attributes:
        key: Of the work.
        item: A result, or None at its end. Work whose process died ends with a `Failure` of cause `crash` or `oom`.
    """

    key: str
    item: Any


class Runner(Protocol):
    """Runs work; keeps up to `slots` trainings going at once, and every measurement that it is given.

    It also has the only clock of a search, which nothing else reads, and is the only place that waits.
    """

    slots: int

    @property
    def now(self) -> float:
        """Seconds since it was made, in which this process was awake."""

    def submit(self, key: str, kind: Kind, work: Work) -> None:
        """Start a piece of work, or queue it until there is room."""

    def poll(self, timeout_s: float) -> Sequence[Report]:
        """What has happened since the last call; waits up to `timeout_s` for the first."""

    def cancel(self, key: str) -> None:
        """Stop a piece of work at once; nothing more is heard of it."""

    def close(self) -> None:
        """Stop everything."""

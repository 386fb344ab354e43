"""How a search stands, for whoever looks on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from nas_yolo.budget import Spending
from nas_yolo.config import SearchConfig
from storage import JobKind, Search, State, Trial
from storage.events import Event
from storage.trial import Phase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A search at a moment.

    Attributes:
        now_s: Time of the search.
        events: What happened since the last one.
        notice: What is wrong at the moment with what the search needs, if anything is.
    """

    search: Search
    config: SearchConfig
    state: State
    spending: Spending
    now_s: float
    events: tuple[Event, ...] = ()
    notice: str = ""

    @property
    def phase(self) -> Phase:
        """What the search is about."""
        return self.state.phase

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All, by number."""
        return self.state.trials

    @property
    def running(self) -> tuple[tuple[JobKind, int | None], ...]:
        """Kind and trial number (None: preparations) of what runs."""
        return tuple((job.kind, job.trial) for job in self.state.work)

    @property
    def away(self) -> Mapping[str, str]:
        """Targets that do not answer, and why; the rest of the search goes on."""
        devices = self.state.devices
        return {name: device.reason for name, device in devices.items() if device.away_since_s is not None}


Listener = Callable[[Snapshot], None]
"""Is told after every change and every second."""


def tell(listeners: Iterable[Listener], snapshot: Snapshot) -> None:
    """Tell all of them; one that fails is logged, and never stops a search."""
    for listener in listeners:
        try:
            listener(snapshot)
        except Exception:
            log.exception("a view of search %s failed", snapshot.search.name)

"""What happens in a search, written down however long the database is away, and told to whoever looks on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import TypeVar

from nas_yolo.planning.situation import Context, spending
from nas_yolo.snapshot import Listener, Snapshot, tell
from storage import Claim, Repository, Search, State, StorageAwayError
from storage.events import Event
from storage.journal import Page

PATIENCE_S, HURRY_S = 300.0, 10.0  # for how long a database that is away is tried again, and if the user waits for it
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)  # before each time; the last again and again

T = TypeVar("T")


class Record:
    """The record of a search that this process holds.

    Args:
        repository: Where the search is stored.
        search: The search.
        claim: That this process holds it.
        context: Of the search.
        listeners: Views, mirrors, trackers.
        clock: Time of the search, seconds.
        pause: Lets so many seconds pass, in which work goes on.
    """

    def __init__(
        self,
        repository: Repository,
        search: Search,
        claim: Claim,
        context: Context,
        listeners: Sequence[Listener],
        clock: Callable[[], float],
        pause: Callable[[float], None],
    ):
        self._search, self._context, self._listeners = search, context, listeners
        self._clock, self._pause = clock, pause
        self._journal = repository.journal(search, claim)
        self._untold: list[Event] = []
        self.charged_s = self._journal.charged

    @property
    def state(self) -> State:
        """As of the last event."""
        return self._journal.state

    def write(self, body: Callable[[Page], T], in_a_hurry: bool = False) -> T:
        """Write down what happened, all of it or nothing; what the body does.

        Args:
            body: Says what happened and changes nothing else: it is called again where the database is away.
            in_a_hurry: It is the last thing before the process ends, and somebody waits for that.

        Raises:
            StorageError: If it cannot be written.
        """

        def write(page: Page) -> tuple[T, list[Event]]:
            return body(page), page.facts

        patience_s = HURRY_S if in_a_hurry else PATIENCE_S
        try:
            result, facts = self._patiently(lambda: self._journal.write(write, self._clock()), patience_s)
        except StorageAwayError as error:
            if not in_a_hurry:
                raise
            raise StorageAwayError(
                f"stopped, but that is not written down: {error}, which ends what ran at the seconds last charged "
                "and goes on from the last checkpoints"
            ) from error
        self._untold += facts
        return result

    def charge(self) -> None:
        """Keep the ledger and the lease current."""
        self._patiently(lambda: self._journal.charge(self._clock()))

    def tell(self, notice: str = "", always: bool = True) -> None:
        """Tell listeners how the search stands.

        Args:
            notice: What is wrong at the moment.
            always: Though nothing has happened.
        """
        events, self._untold = tuple(self._untold), []
        if self._listeners and (events or always):
            now_s = self._clock()
            spent = spending(self._context, self.state, now_s)
            snapshot = Snapshot(self._search, self._context.config, self.state, spent, now_s, events, notice)
            tell(self._listeners, snapshot)

    def _patiently(self, write: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
        until_s, pauses_s = self._clock() + patience_s, chain(PAUSES_S, repeat(PAUSES_S[-1]))
        while True:
            try:
                return write()
            except StorageAwayError as error:
                if (left_s := until_s - self._clock()) <= 0:
                    raise
                self.tell(f"{error}; trying again")
                self._pause(min(next(pauses_s), left_s))

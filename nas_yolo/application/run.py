"""Open a stored search, run it, close it. In between no other process works on it, or changes what is stored of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nas_yolo.application import machine
from nas_yolo.application.checks import check_search
from nas_yolo.application.gpu_share import with_packing
from nas_yolo.application.machine import Allotment, allot
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.driver import Driver
from nas_yolo.environment import count_cores
from nas_yolo.runners import Runner
from nas_yolo.runners.local import LocalRunner
from nas_yolo.snapshot import Listener
from nas_yolo.strategy import context_of
from storage import Claim, Repository, Search
from storage.events import BudgetsSet


@dataclass(frozen=True)
class OpenSearch:
    """A search that this process holds, with what it gets of this machine.

    Attributes:
        repository: Where it is stored.
        search: As it is stored now.
        claim: That it is this process's.
        allotment: What each training gets.
    """

    repository: Repository
    search: Search
    claim: Claim
    allotment: Allotment

    @property
    def config(self) -> SearchConfig:
        """What it was asked to do."""
        return SearchConfig.from_document(self.search.config)

    @property
    def folder(self) -> Path:
        """Of its files; it is there."""
        return self.repository.run_folder(self.search)

    def run(self, *listeners: Listener) -> None:
        """Work until nothing is left to do within the budget.

        Args:
            listeners: Are told how it stands, after every change and every second.

        Raises:
            UserError: If it cannot go on.
            KeyboardInterrupt: If the user stops it; nothing is lost.
        """
        runner = self._runner()
        try:
            allotted = runner.slots, self.allotment.threads, self.allotment.on_gpu
            context = context_of(self.repository, self.search, *allotted)
            Driver(self.repository, self.search, self.claim, runner, context, listeners).run()
            shutil.rmtree(self.folder / "scratch" / "images", ignore_errors=True)  # large, and of no use any more
        finally:
            runner.close()

    def _runner(self) -> Runner:
        if self.config.runner == "local":
            return LocalRunner()
        from nas_yolo.runners.ray import RayRunner  # Ray takes long to import

        return RayRunner(self.allotment.slots, self.allotment.gpus_per_trial, self.folder)


@contextmanager
def open_search(
    repository: Repository,
    search: Search,
    budgets: Sequence[str] = (),
    checked: bool = False,
    on_probe: Callable[[], None] = lambda: None,
) -> Iterator[OpenSearch]:
    """Hold a search. Nothing of it is changed before it is held, and all that it began with was checked.

    Args:
        repository: Where it is stored.
        search: The search.
        budgets: In place of its own: the whole, not what is left.
        checked: Whether it was made just now, from what `make_config` checked.
        on_probe: Called before it is measured how many trainings share a GPU, which takes a minute or two.

    Raises:
        SearchBusyError: If another process holds it.
        UserError: If it cannot run here and now.
    """
    changes = {"budgets": [parse_budget(text).text for text in budgets]} if budgets else {}
    with repository.claimed(search) as claim:
        search = repository.search(search.name)  # whoever held it before may have changed it
        if not checked:
            check_search(replace(search, config=search.config | changes))
        if changes:
            journal = repository.journal(search, claim)
            journal.record([BudgetsSet(tuple(changes["budgets"]))], journal.state.spent.wall_seconds)
            search = repository.search(search.name)
        repository.run_folder(search).mkdir(parents=True, exist_ok=True)
        gpus, cores = machine.count_gpus(), count_cores()
        if gpus and search.config.get("packing") is not None:
            search = with_packing(repository, search, claim, machine.gpu_name(), gpus, cores, on_probe)
        yield OpenSearch(repository, search, claim, allot(SearchConfig.from_document(search.config), gpus, cores))


def run_search(
    repository: Repository,
    search: Search,
    *listeners: Listener,
    budgets: Sequence[str] = (),
    checked: bool = False,
) -> Search:
    """Run a search to its end, or that of its budget.

    Args:
        repository: Where it is stored.
        search: The search; one that was stopped goes on.
        listeners: Are told how it stands, after every change and every second.
        budgets: In place of its own: the whole, not what is left.
        checked: Whether it was made just now, from what `make_config` checked.

    Returns:
        The search as it is stored then.

    Raises:
        SearchBusyError: If another process works on it.
        UserError: If it cannot run here and now.
        KeyboardInterrupt: If the user stops it; nothing is lost.
    """
    with open_search(repository, search, budgets, checked) as opened:
        opened.run(*listeners)
    return repository.search(search.name)

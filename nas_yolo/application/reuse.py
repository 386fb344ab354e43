"""A library that an earlier search made: the same parent on the same data serves any target, limit or budget."""

from __future__ import annotations

from dataclasses import replace

from evaluators.accuracy.handover import copy_checkpoint
from evaluators.evaluation import FirstWeights
from evaluators.location import StoreError
from nas_yolo.config import SearchConfig
from nas_yolo.first_weights import trained_parent
from nas_yolo.library import library_key
from storage import Repository, Search, State, Trial
from storage.events import AssemblyScored, EntryMade, EpochEnded, Event, TrialAdded, TrialMoved, WeightsTaken

TAKEN_OVER = "search"  # before the name of the search that trained the parent, in the record of its first weights


def take_over(repository: Repository, search: Search) -> None:
    """Let a new search begin with the parent of the newest earlier one that trained the same, and with its library.

    What is taken over costs nothing. Where the checkpoint is gone, or cannot be read, the parent is trained anew.
    """
    config = SearchConfig.from_document(search.config)
    if config.weights != "library" or not config.warm_start:
        return
    for earlier in reversed(repository.searches()):
        its = SearchConfig.from_document(earlier.config)
        if earlier.id == search.id or its.weights != "library" or library_key(its) != library_key(config):
            continue
        state = repository.state(earlier)
        if (parent := trained_parent(state.trials)) is None:
            continue
        try:
            copy_checkpoint(repository.checkpoint(earlier, parent.number), repository.checkpoint(search, 0))
        except (FileNotFoundError, StoreError):
            continue
        same_space = config.space.choices == its.space.choices
        with repository.claimed(search) as claim:
            repository.journal(search, claim).record(_facts(earlier, parent, state if same_space else State()), 0.0)
        return


def _facts(earlier: Search, parent: Trial, state: State) -> list[Event]:
    origin = FirstWeights((f"{TAKEN_OVER} {earlier.name}",), 1.0)
    return [
        TrialAdded(0, parent.architecture, parent.origin, parent.batch),
        TrialMoved(0, "ready"),
        WeightsTaken(0, origin),
        TrialMoved(0, "training"),
        *(EpochEnded(0, epoch) for epoch in parent.epochs),
        TrialMoved(0, "complete"),
        *(EntryMade(replace(entry, seconds=0.0)) for entry in state.entries.values()),
        *(AssemblyScored(one.architecture, one.map50_95, 0.0, one.problem) for one in state.assemblies),
    ]

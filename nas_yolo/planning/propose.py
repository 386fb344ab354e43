"""Proposing new designs to measure, as many as the strategy wants."""

from __future__ import annotations

from collections.abc import Iterator

from nas_yolo.planning.actions import Action, Note
from nas_yolo.planning.situation import Situation
from nas_yolo.proposals import propose
from search_spaces.space import Choices
from storage.events import SpaceExhausted, TrialAdded


def new_design(situation: Situation) -> Action | None:
    """One more, while designs are explored; or that there is none."""
    state, strategy, seen = situation.state, situation.context.strategy, list(situation.seen.values())
    if state.phase != "exploring" or state.exhausted or not situation.spending.trials_left:
        return None
    if not strategy.wants(seen, situation.context.slots):
        return None

    def suggest() -> Iterator[Choices]:
        for codes in strategy.candidates(seen):
            yield situation.context.grid.values(codes)

    tried = {trial.architecture.key: trial.origin for trial in situation.designs}
    number = len(situation.trials)
    found = propose(situation.config, tried, number, suggest)
    return Note((TrialAdded(number, *found),)) if found else Note((SpaceExhausted(),))

"""Proposing new designs to measure, as many as the strategy wants."""

from __future__ import annotations

from collections.abc import Iterator

from nas_yolo.planning import first_weights
from nas_yolo.planning.actions import Action, Note
from nas_yolo.planning.devices import are_ready
from nas_yolo.planning.library import is_awaited
from nas_yolo.planning.situation import Situation
from nas_yolo.proposals import propose
from search_spaces.space import Choices
from storage.events import SpaceExhausted, TrialAdded

MEASURING_SHARE = 0.1  # of a first training, at most, that a slot waits for measurements


def comes_first(situation: Situation) -> bool:
    """Whether a slot should wait until designs that the strategy wants are measured.

    Those that wait were proposed before the last results: what these tell is worth a short delay, not a long one.
    """
    first_s, measuring_s = situation.costs.of_first(), situation.costs.of_measuring()
    if not first_s or measuring_s is None:
        return False
    begun = (trial.number for trial in situation.designs if trial.epochs or trial.state == "training")
    ahead = len(situation.trials) - 1 - max(begun, default=-1)  # what was waited for since the last of them
    if measuring_s * max(ahead, 1) > MEASURING_SHARE * first_s:
        return False
    if any(job.purpose == "measure" for job in situation.running("measure")):
        return True
    return situation.wants_design and are_ready(situation, [target for target, _ in situation.context.devices])


def new_design(situation: Situation) -> Action | None:
    """One more, while designs are explored; or that there is none."""
    if situation.state.phase != "exploring" or not situation.wants_design:
        return None
    # Where blocks imitate the stock model, other presets are designs like all others, and what is worth measuring is
    # known once something was put together.
    library = situation.config.weights == "library" and not first_weights.is_given_up(situation.trials)
    if library and situation.designs and is_awaited(situation):
        return None
    strategy, seen = situation.context.strategy, list(situation.observations.values())

    def suggest() -> Iterator[Choices]:
        for codes in strategy.candidates(seen, situation.assembled):
            yield situation.context.grid.values(codes)

    tried = {trial.architecture.key: trial.origin for trial in situation.designs}
    number = len(situation.trials)
    found = propose(situation.config, tried, number, suggest, presets=not library)
    return Note((TrialAdded(number, *found),)) if found else Note((SpaceExhausted(),))

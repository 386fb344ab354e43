"""What a search does next: pure decisions on a state, one small file for each policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from nas_yolo.planning import (
    complete,
    confirm,
    devices,
    explore,
    first_weights,
    leftovers,
    library,
    measure,
    opponents,
    prepare,
    propose,
    repeat,
    stop,
    validate,
)
from nas_yolo.planning.actions import Action, Stop, Wait, events_of, needs_answer
from nas_yolo.planning.situation import Context, Situation
from storage import State
from storage.state import fold

Policy = Callable[[Situation], Action | None]
"""What should be done now, or None: nothing, as far as this one is concerned."""

POLICIES: tuple[Policy, ...] = (
    stop.at_budgets_end,
    prepare.images_and_targets,
    devices.suspects,
    measure.new_trials,
    first_weights.train_parent,
    library.entries_and_scores,
    explore.end_exploring,
    complete.last_words,
    explore.next_fidelity,
    complete.finalists,
    opponents.train_opponent,
    repeat.repeats,
    leftovers.first_fidelity,
    opponents.new_opponent,
    propose.new_design,
    confirm.sessions,
    validate.finalists,
    stop.when_idle,
)
"""In their order of precedence: the first that has something to do is heard."""


def decide(context: Context, state: State, now_s: float) -> list[Action]:
    """What to do now, in this order, as if nothing came in between; nothing, until something happens."""
    return list(_decided(Situation(context, state, now_s)))


def _decided(situation: Situation) -> Iterator[Action]:
    while action := _next(situation):
        if isinstance(action, Wait):
            return
        yield action
        if isinstance(action, Stop) or needs_answer(action):
            return
        state = fold(events_of(action, situation.state, situation.now_s), situation.state)
        situation = replace(situation, state=state)


def _next(situation: Situation) -> Action | None:
    for policy in POLICIES:
        if action := policy(situation):
            return action
    return None

"""Making the library and scoring designs put together from it: after the parent, for a share of the budget."""

from __future__ import annotations

import math
from collections.abc import Iterable

from evaluators.evaluation import LibraryEntry
from nas_yolo.library import is_ready, kinds_due, swaps_due
from nas_yolo.planning.actions import Action, Begin, Note
from nas_yolo.planning.first_weights import coming_parent, wants_parent
from nas_yolo.planning.situation import Situation
from nas_yolo.samplers import Assembled
from search_spaces.kinds import Kind
from search_spaces.space import Choices
from storage import Job
from storage.events import AssemblyScored, EntryMade, Event
from storage.trial import Purpose

SHARE = 0.15  # of a budget in time that entries and scores may take
ENTRIES, SCORES = 12, 12  # made or scored in one piece of work, at most
TRIES = 2  # of a piece of work whose process dies, before each part of it is tried alone
AT_ONE_PLACE = 2  # choices that differ, at most, where a block is changed at one place: itself and its depth
DIED = "its process died"


def entries_and_scores(situation: Situation) -> Action | None:
    """Scores of what can be put together first, then the entries that are worth most."""
    context = situation.context
    if situation.state.phase != "exploring" or not situation.may_train or not context.has_library(situation.trials):
        return None
    if not within_share(situation):
        return None
    if designs := designs_due(situation):
        return _begin(situation, "assemble", [_text(situation, design) for design in designs], SCORES)
    if kinds := entries_due(situation):
        return _begin(situation, "imitate", [kind.text for kind in kinds], ENTRIES)
    return None


def is_awaited(situation: Situation) -> bool:
    """Whether there is more to be known from a library before new designs are worth measuring."""
    trials, config = situation.trials, situation.config
    if wants_parent(trials, config) or coming_parent(trials):
        return True
    if not situation.context.has_library(trials) or not within_share(situation):
        return False
    if any(_changes(situation, one) > AT_ONE_PLACE for one in situation.assembled):
        return False  # the best at every latency are known, if only among sizes: devices need not wait
    runs = any(job.purpose in ("imitate", "assemble") for job in situation.state.work)
    return runs or bool(designs_due(situation) or entries_due(situation))


def within_share(situation: Situation) -> bool:
    """Whether what was made and scored so far took less of the budget than it may."""
    return situation.spending.share(situation.state.library_seconds) < SHARE


def designs_due(situation: Situation) -> list[Choices]:
    """Designs that can be put together and were not: with one change, then those that are best as predicted."""
    context, state = situation.context, situation.state
    changes = context.changes
    made = {Kind(*key): entry.error is not None for key, entry in state.entries.items()}
    busy = {text for job in state.work if job.purpose == "assemble" for text in job.content}

    def due(wanted: Iterable[Choices]) -> list[Choices]:
        return [
            choices
            for choices in wanted
            if changes.config.space.architecture(choices).key not in state.assembled
            and _text(situation, choices) not in busy
            and is_ready(changes, choices, made)
        ]

    if any(kind not in made for kind in changes.own):
        return due([changes.start])  # all else needs these, and what it saves takes seconds to predict
    swaps = due(swaps_due(changes, context.latency(situation.trials)))
    if swaps or busy:
        return swaps[: SCORES * context.slots]
    return due(context.exact(situation.trials, state.assemblies))


def entries_due(situation: Situation) -> list[Kind]:
    """Entries to be made next."""
    state = situation.state
    running = [Kind.parse(text) for job in state.work if job.purpose == "imitate" for text in job.content]
    known, most = {*running, *(Kind(*key) for key in state.entries)}, ENTRIES * situation.context.slots
    if own := [kind for kind in situation.context.changes.own if kind not in known]:
        return own[:most]
    return kinds_due(situation.context.changes, situation.context.latency(situation.trials), known)[:most]


def _begin(situation: Situation, purpose: Purpose, texts: list[str], most: int) -> Action:
    """A share of what is due for each free slot; what keeps dying is tried alone, then left out."""
    context, state = situation.context, situation.state
    share = min(math.ceil(len(texts) / max(situation.free_slots, 1)), most)
    content = texts[:share]
    key = f"{purpose} {content[0]} +{len(content) - 1}"
    if state.attempts.get(key, 0) >= TRIES:
        content, key = content[:1], f"{purpose} {content[0]} +0"
        if state.attempts.get(key, 0) >= TRIES:
            return Note((_left_out(situation, purpose, content[0]),))
    threads = float(context.threads)
    job = Job(key, purpose, "train", situation.now_s, gpus=context.gpus, cpus=threads, content=tuple(content))
    return Begin(job)


def _left_out(situation: Situation, purpose: Purpose, text: str) -> Event:
    if purpose == "assemble":
        choices = situation.context.grid.values(list(map(int, text.split("."))))
        return AssemblyScored(situation.config.space.architecture(choices), None, 0.0, DIED)
    kind = Kind.parse(text)
    return EntryMade(LibraryEntry(kind.place, kind.block, kind.widen, None, 0.0, DIED))


def _changes(situation: Situation, one: Assembled) -> int:
    start = situation.context.grid.codes(situation.context.changes.start)
    return sum(code != stock for code, stock in zip(one.codes, start, strict=True))


def _text(situation: Situation, choices: Choices) -> str:
    return ".".join(map(str, situation.context.grid.codes(choices)))

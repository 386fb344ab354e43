"""The policy of the library on made-up states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from evaluators.evaluation import AssembledScore, Epoch, LibraryEntry
from evaluators.latency import Calibration
from nas_yolo.planning import decide, library
from nas_yolo.planning.actions import Begin, Note, events_of
from nas_yolo.planning.outcomes import of_end, of_result
from nas_yolo.planning.situation import Context, Situation
from nas_yolo.samplers import get_ask
from nas_yolo.schedulers.asha import Halving
from search_spaces.image_size import ImageSize
from search_spaces.kinds import Kind
from search_spaces.space import Choices
from storage import Job, State
from storage.events import (
    AssemblyScored,
    EntryMade,
    EpochEnded,
    Event,
    JobEnded,
    JobStarted,
    PhaseEntered,
    TrialAdded,
    TrialMoved,
)
from storage.state import fold


@pytest.fixture(scope="module")
def context(scenarios: Any) -> Context:
    config = scenarios.Scenario("one", budgets=("1h",), library=True).config
    grid = Context("one", config, None).grid  # type: ignore[arg-type]
    return Context("one", config, Halving(get_ask("random"), grid, 2, 0))


@pytest.fixture
def state(context: Context) -> State:
    """The stock model is trained, nothing else was done."""
    return fold(parent(context, "complete"), exploring())


def exploring() -> State:
    size = ImageSize(32, 32)
    begun = State(budgets=("1h",), calibrations={("one", size): Calibration("one", size, 1.0, 0.01)})
    session = JobStarted(Job("session", "session", "session", 0.0))
    return fold([session, PhaseEntered("exploring")], begun)


def parent(context: Context, state: str) -> list[Event]:
    epochs = (EpochEnded(0, Epoch(e, 0.03 * e, 0.03 * e, 1.0, 1.0)) for e in range(1, 10))
    begun = [TrialAdded(0, context.changes.stock, "parent:yolov8n"), TrialMoved(0, "ready"), TrialMoved(0, "training")]
    return [*begun, *epochs, *([TrialMoved(0, "complete")] if state == "complete" else [])]


def made(kinds: Sequence[Kind], seconds: float = 1.0) -> list[Event]:
    return [EntryMade(LibraryEntry(kind.place, kind.block, kind.widen, 0.1, seconds)) for kind in kinds]


def scored(context: Context, *designs: Choices) -> list[Event]:
    return [AssemblyScored(context.config.space.architecture(one), 0.3, 1.0) for one in designs]


def next_job(context: Context, state: State) -> Job:
    action = library.entries_and_scores(Situation(context, state, 10.0))
    assert isinstance(action, Begin)
    return action.job


def begun(context: Context, state: State) -> State:
    """What comes next is begun."""
    return fold([JobStarted(next_job(context, state))], state)


def died(context: Context, state: State) -> State:
    """What comes next is begun, and its process dies."""
    job = next_job(context, state)
    after = fold([JobStarted(job)], state)
    return fold(of_end(context, after, job, (), 11.0).events, after)


def done(context: Context, state: State) -> State:
    """What comes next is begun, and done."""
    job = next_job(context, state)
    after = fold([JobStarted(job)], state)
    grid, space = context.grid, context.config.space
    for text in job.content:
        if job.purpose == "imitate":
            kind = Kind.parse(text)
            item: Any = LibraryEntry(kind.place, kind.block, kind.widen, 0.1, 1.0)
        else:
            design = space.architecture(grid.values([int(code) for code in text.split(".")]))
            item = AssembledScore(design, 0.3, 0.1)
        after = fold(of_result(after, job, item), after)
    return fold(of_end(context, after, job, (), 11.0).events, after)


def nothing(context: Context, state: State) -> bool:
    return library.entries_and_scores(Situation(context, state, 10.0)) is None


def test_nothing_is_made_before_the_parent_is_complete(context: Context, state: State) -> None:
    assert nothing(context, exploring())
    assert nothing(context, fold(parent(context, "training"), exploring()))
    assert not nothing(context, state)


def test_nothing_is_made_without_a_free_slot_or_beyond_exploring_or_for_other_first_weights(
    context: Context, state: State
) -> None:
    busy = JobStarted(Job("train 7", "train", "train", 0.0))
    assert nothing(context, fold([busy], state))
    assert nothing(context, fold([PhaseEntered("finishing")], state))
    inherited = replace(context, config=replace(context.config, weights="inherited"))
    assert nothing(inherited, state)


def test_the_stock_models_own_entries_come_first(context: Context, state: State) -> None:
    job = next_job(context, state)
    assert job.purpose == "imitate"
    assert list(job.content) == [kind.text for kind in context.changes.own[: library.ENTRIES]]


def test_scores_come_before_entries_once_they_can_be_put_together(context: Context, state: State) -> None:
    own = fold(made(context.changes.own), state)
    job = next_job(context, own)
    assert job.purpose == "assemble"
    codes = [tuple(map(int, text.split("."))) for text in job.content]
    assert codes[0] == context.grid.codes(context.changes.start)
    sizes = [context.grid.values(code) for code in codes[1:]]
    assert sizes
    assert all(one["P2.block"] == context.changes.start["P2.block"] for one in sizes)  # of no other block is there any
    while next_job(context, own).purpose == "assemble":
        own = done(context, own)
    assert next_job(context, own).purpose == "imitate"
    assert len(own.assemblies) > len(codes)  # the best of what can be put together, too


def test_all_is_made_and_scored_and_then_the_best_of_all_are_scored(context: Context, state: State) -> None:
    purposes = []
    while not nothing(context, state):
        purposes.append(next_job(context, state).purpose)
        state = done(context, state)
        assert len(purposes) < 40
    assert not library.entries_due(Situation(context, state, 10.0))
    several = [
        one
        for one in state.assemblies
        if sum(a != b for a, b in zip(choices_of(context, one), context.changes.start.values(), strict=True)) > 1
    ]
    assert several
    assert purposes[-1] == "assemble"


def choices_of(context: Context, one: AssembledScore) -> list[object]:
    found = context.config.space.choices_of(one.architecture)
    assert found is not None
    return list(found.values())


@pytest.mark.parametrize("has_own", [False, True])
def test_two_slots_share_the_work_and_never_do_the_same(has_own: bool, context: Context, state: State) -> None:
    two = replace(context, slots=2)
    state = fold(made(context.changes.own) if has_own else [], state)
    one, other = next_job(two, state), next_job(two, begun(two, state))
    assert one.purpose == ("assemble" if has_own else "imitate")
    assert not set(one.content) & set(other.content)
    assert len(one.content) < len(next_job(context, state).content)


def test_what_dies_twice_is_tried_alone_and_then_left_out_with_its_problem(context: Context, state: State) -> None:
    first = context.changes.own[0]
    for _ in range(library.TRIES):
        assert len(next_job(context, state).content) > 1
        state = died(context, state)
    for _ in range(library.TRIES):
        assert next_job(context, state).content == (first.text,)
        state = died(context, state)
    action = library.entries_and_scores(Situation(context, state, 10.0))
    assert isinstance(action, Note)
    after = fold(events_of(action, state, 10.0), state)
    entry = after.entries[first.place, first.block, first.widen]
    assert (entry.error, entry.problem) == (None, library.DIED)
    assert next_job(context, after).content[0] == context.changes.own[1].text


def test_a_design_that_keeps_dying_is_left_out_too(context: Context, state: State) -> None:
    state = fold(made(context.changes.own), state)
    start = next_job(context, state).content[0]
    for _ in range(2 * library.TRIES):
        state = died(context, state)
    action = library.entries_and_scores(Situation(context, state, 10.0))
    assert isinstance(action, Note)
    after = fold(events_of(action, state, 10.0), state)
    assert [(one.map50_95, one.problem) for one in after.assemblies] == [(None, library.DIED)]
    assert start not in next_job(context, after).content


def test_what_is_ended_from_outside_was_not_tried(context: Context, state: State) -> None:
    key = next_job(context, state).key
    for _ in range(2 * library.TRIES):
        running = begun(context, state)
        state = fold([JobEnded(key, 1.0, lost=True)], running)
    assert len(next_job(context, state).content) > 1


def test_an_entry_that_cannot_be_made_is_in_no_design_that_is_scored(context: Context, state: State) -> None:
    latency = context.latency(state.trials)
    failed = library.kinds_due(context.changes, latency, context.changes.own)[0]
    entry = LibraryEntry(failed.place, failed.block, failed.widen, None, 1.0, "its error is not finite")
    state = fold([*made(context.changes.own), EntryMade(entry)], state)
    while not nothing(context, state):
        state = done(context, state)
    assert state.assemblies
    assert not any(Kind.of(failed.place, one.architecture) == failed for one in state.assemblies)


def test_nothing_more_is_made_once_the_share_is_spent(context: Context, state: State) -> None:
    assert not nothing(context, fold(made(context.changes.own[:1], seconds=3600 * library.SHARE - 1), state))
    assert nothing(context, fold(made(context.changes.own[:1], seconds=3600 * library.SHARE + 1), state))
    trials_only = replace(state, budgets=("20trials",))
    assert not nothing(context, fold(made(context.changes.own[:1], seconds=1e6), trials_only))


def test_the_same_events_in_another_process_decide_the_same(context: Context, state: State) -> None:
    """A context remembers what it found: one that begins in the middle finds the same."""
    for _ in range(12):
        fresh = Context(context.name, context.config, context.strategy)
        assert decide(fresh, state, 10.0) == decide(context, state, 10.0)
        if nothing(context, state):
            break
        state = done(context, state)
    assert len(state.assemblies) > 5

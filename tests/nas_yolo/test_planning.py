"""Each policy on made-up states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from evaluators.evaluation import Epoch, Failure, Pace
from evaluators.latency import Calibration
from nas_yolo.planning import (
    complete,
    confirm,
    decide,
    devices,
    explore,
    first_weights,
    leftovers,
    measure,
    opponents,
    prepare,
    propose,
    repeat,
    stop,
    validate,
)
from nas_yolo.planning.actions import Begin, Cancel, Note, Stop, Wait, events_of, is_current
from nas_yolo.planning.outcomes import of_end, of_result, standing
from nas_yolo.planning.situation import Context, Situation
from nas_yolo.runners.simulated import latency
from nas_yolo.samplers import Assembled, Observation
from search_spaces import Architecture
from search_spaces.image_size import ImageSize
from storage import Device, Job, State, TrialState
from storage.events import (
    AttemptFailed,
    DeviceMoved,
    EpochEnded,
    Event,
    JobStarted,
    LatencyKnown,
    PhaseEntered,
    SpaceExhausted,
    TrialAdded,
    TrialMoved,
)
from storage.state import apply, fold
from storage.trial import TRANSITIONS, TransitionError

SIZE = ImageSize(32, 32)
WAYS: dict[str, tuple[TrialState, ...]] = {
    "new": (),
    "measuring": ("measuring",),
    "ready": ("ready",),
    "training": ("ready", "training"),
    "paused": ("ready", "training", "paused"),
    "complete": ("ready", "training", "complete"),
    "failed": ("failed",),
}


class InOrder:
    """Proposes points in the order of their codes, wants two that wait, trains by number."""

    def __init__(self, cardinality: Sequence[int]):
        self.points = [tuple(min(i, count - 1) for count in cardinality) for i in range(3)]

    def candidates(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> Iterator[tuple[int, ...]]:
        taken = {one.codes for one in seen}
        return iter([codes for codes in self.points if codes not in taken])

    def order(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> list[int]:
        return [i for i, one in enumerate(seen) if one.idle]

    def finalists(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> list[int]:
        return [i for i, one in enumerate(seen) if one.idle and one.accuracies]

    def wants(self, seen: Sequence[Observation], slots: int, assembled: Sequence[Assembled] = ()) -> bool:
        return sum(not one.accuracies and not one.over for one in seen) < 2


@pytest.fixture
def context(scenarios: Any) -> Context:
    config = scenarios.Scenario("one", budgets=("1h",), repeats=1).config
    return Context("one", config, InOrder([len(values) for values in config.space.choices.values()]))


@pytest.fixture
def designs(context: Context) -> list[Architecture]:
    from nas_yolo.proposals import stock_design

    space, grid = context.config.space, context.grid
    values = [grid.values([min(i, c - 1) if c == 3 else 0 for c in grid.cardinality]) for i in range(3)]
    return [stock_design(context.config), *map(space.architecture, values)]


def exploring(*events: Event) -> State:
    """A session of a search whose images and targets are known."""
    calibrated = {("one", SIZE): Calibration("one", SIZE, 1.0, 0.01)}
    begun = State(budgets=("1h",), calibrations=calibrated)
    session = JobStarted(Job("session", "session", "session", 0.0))
    return fold([session, PhaseEntered("exploring"), *events], begun)


def trial(number: int, design: Architecture, origin: str, state: str, epochs: int = 0, ms: float = 1.0) -> list[Event]:
    """A trial that reached a state, a second and .01 mAP an epoch."""
    events: list[Event] = [TrialAdded(number, design, origin)]
    if state not in ("new", "measuring"):
        events.append(LatencyKnown(number, "cpu", latency(ms, "cpu", "one", SIZE)))
    events += [TrialMoved(number, move) for move in WAYS[state][:2]]
    maps = ((e, 0.01 * e + 0.1 * number) for e in range(1, epochs + 1))
    events += [EpochEnded(number, Epoch(e, value, value, 1.0, 1.0)) for e, value in maps]
    return [*events, *(TrialMoved(number, move) for move in WAYS[state][2:])]


def at(context: Context, state: State, now_s: float = 10.0) -> Situation:
    return Situation(context, state, now_s)


def test_a_limit_in_time_stops_the_search(context: Context) -> None:
    assert stop.at_budgets_end(at(context, exploring(), 3599)) is None
    assert stop.at_budgets_end(at(context, exploring(), 3600)) == Stop()


def test_a_training_that_hangs_is_cancelled_and_tried_once_more(context: Context, designs: list[Architecture]) -> None:
    job = Job("train 0", "train", "train", 0.0, 0, expected_s=60.0, until=3)
    state = exploring(*trial(0, designs[0], "preset:yolov8n", "training"), JobStarted(job))
    assert stop.what_hangs(at(context, state, 659.0)) is None
    cancel = stop.what_hangs(at(context, state, 661.0))
    assert isinstance(cancel, Cancel)
    after = fold(events_of(cancel, state, 661.0), state)
    assert (after.trials[0].state, [one.cause for one in after.trials[0].failures]) == ("ready", ["timeout"])
    assert after.spent.wall_seconds == 0  # of the training only, which held nothing here
    again = exploring(*trial(0, designs[0], "preset:yolov8n", "training"), AttemptFailed(0, Failure("crash", "")))
    twice = stop.what_hangs(at(context, apply(again, JobStarted(job)), 661.0))
    assert isinstance(twice, Cancel)
    assert (
        fold(events_of(twice, apply(again, JobStarted(job)), 661.0), apply(again, JobStarted(job))).trials[0].state
        == "failed"
    )


def test_images_and_every_target_are_prepared_before_anything_else(context: Context) -> None:
    state = State(budgets=("1h",), jobs={"session": Job("session", "session", "session", 0.0)})
    begun = [action.job.key for action in decide(context, state, 0.0) if isinstance(action, Begin)]
    assert begun == ["prepare", "calibrate cpu at 32 px"]
    running = fold([JobStarted(Job(key, "prepare", "train", 0.0)) for key in begun], state)
    assert isinstance(prepare.images_and_targets(at(context, running)), Wait)
    ready = replace(exploring(), phase="preparing", prepared=True)
    assert prepare.images_and_targets(at(context, ready)) == Note((PhaseEntered("exploring"),))


def test_the_reference_is_measured_on_a_device_that_is_suspect(context: Context) -> None:
    suspect = exploring(DeviceMoved("cpu", Device(failures=2)))
    action = devices.suspects(at(context, suspect))
    assert isinstance(action, Begin)
    assert (action.job.key, action.job.purpose) == ("check cpu", "check")
    assert devices.suspects(at(context, exploring(DeviceMoved("cpu", Device(failures=1))))) is None


def test_a_new_trial_is_measured_once_its_device_answers(context: Context, designs: list[Architecture]) -> None:
    new = trial(0, designs[0], "preset:yolov8n", "new")
    action = measure.new_trials(at(context, exploring(*new)))
    assert isinstance(action, Begin)
    assert action.job.key == "measure 0"
    away = exploring(*new, DeviceMoved("cpu", Device(0.0, 20.0, "no route")))
    assert measure.new_trials(at(context, away, 19.0)) is None
    assert measure.new_trials(at(context, away, 21.0)) == replace(action, job=replace(action.job, started_s=21.0))
    assert stop.when_idle(at(context, away, 19.0)) is None  # it is waited for
    given_up = stop.when_idle(at(context, away, 1900.0))
    assert isinstance(given_up, Stop)
    assert given_up.problem.startswith("target cpu is away: no route; nothing is lost")


def test_the_parent_comes_first_and_holds_all_others_up(context: Context, designs: list[Architecture]) -> None:
    context = replace(context, config=replace(context.config, weights="inherited"))
    ready = exploring(*trial(0, designs[0], "preset:yolov8n", "ready"))
    action = first_weights.train_parent(at(context, ready))
    assert isinstance(action, Begin)
    state = fold(events_of(action, ready, 0.0), ready)
    assert (state.trials[1].origin, state.trials[1].state, action.job.until) == ("parent:yolov8n", "training", 9)
    assert explore.next_fidelity(at(context, state)) is None
    slow = fold([EpochEnded(1, Epoch(e, None, None, 1.0, 100.0)) for e in (1, 2)], state)
    given_up = first_weights.train_parent(at(context, slow))
    assert isinstance(given_up, Cancel)
    rejected = fold(events_of(given_up, slow, 210.0), slow)
    assert rejected.trials[1].state == "rejected"
    copying = first_weights.train_parent(at(context, rejected))
    assert isinstance(copying, Begin)
    assert copying.job.key == "copy 1 0"


def test_a_parent_whose_first_batches_take_far_too_long_is_given_up_with_nothing_to_hand_over(
    context: Context, designs: list[Architecture]
) -> None:
    context = replace(context, config=replace(context.config, weights="inherited"))
    ready = exploring(*trial(0, designs[0], "preset:yolov8n", "ready"))
    begin = first_weights.train_parent(at(context, ready))
    assert isinstance(begin, Begin)
    state = fold(events_of(begin, ready, 0.0), ready)

    def timed(epoch_s: float) -> State:  # of nine epochs, in an hour
        return fold(of_result(state, begin.job, Pace(3, 100, epoch_s * 3 / 100)), state)

    assert timed(70.0).trials[1].predicted_epoch_s == pytest.approx(70.0)
    assert first_weights.train_parent(at(context, timed(70.0))) is None  # 19 %
    slow = timed(75.0)
    given_up = first_weights.train_parent(at(context, slow, 5.0))
    assert isinstance(given_up, Cancel)
    rejected = fold(events_of(given_up, slow, 5.0), slow)
    assert rejected.trials[1].state == "rejected"
    assert rejected.trials[1].reason.startswith("to train it would take about 21% of the budget")
    assert first_weights.train_parent(at(context, rejected)) is None  # nothing to hand over, and none is begun again
    following = explore.next_fidelity(at(context, rejected))
    assert isinstance(following, Begin)
    assert following.job.trial == 0
    assert following.job.expected_s == pytest.approx(1.1 * 3 * 75.0)  # the stock model is as slow


def test_exploring_goes_on_while_it_leaves_enough_for_the_end(context: Context, designs: list[Architecture]) -> None:
    state = exploring(*trial(0, designs[0], "preset:yolov8n", "paused", 3), *trial(1, designs[1], "sampler:x", "ready"))
    action = explore.next_fidelity(at(context, state))
    assert isinstance(action, Begin)
    assert (action.job.trial, action.job.until) == (1, 3)  # the stock model is no point of this space
    assert explore.end_exploring(at(context, state)) is None
    late = explore.end_exploring(at(context, state, 3500.0))
    assert late == Note((PhaseEntered("finishing"),))


def test_in_the_end_the_stock_model_is_completed_first_then_repeats_follow(
    context: Context, designs: list[Architecture]
) -> None:
    stock = trial(0, designs[0], "preset:yolov8n", "paused", 3)
    other = trial(1, designs[1], "sampler:x", "complete", 9)
    finishing = exploring(*stock, *other, PhaseEntered("finishing"))
    action = complete.finalists(at(context, finishing))
    assert isinstance(action, Begin)
    assert action.job.trial == 0
    assert complete.last_words(at(context, finishing)) is None
    done = exploring(*trial(0, designs[0], "preset:yolov8n", "complete", 9), *other, PhaseEntered("finishing"))
    again = repeat.repeats(at(context, done))
    assert isinstance(again, Begin)
    assert fold(events_of(again, done, 0.0), done).trials[2].origin == "repeat:1"  # the challenger's


def test_a_training_between_its_last_epoch_and_its_end_is_ended(context: Context, designs: list[Architecture]) -> None:
    action = complete.last_words(at(context, exploring(*trial(0, designs[0], "preset:yolov8n", "paused", 9))))
    assert isinstance(action, Begin)
    assert (action.job.trial, action.job.until) == (0, 9)


def test_what_is_left_goes_into_first_fidelities(context: Context, designs: list[Architecture]) -> None:
    state = exploring(*trial(0, designs[1], "sampler:x", "ready"), PhaseEntered("finishing"))
    action = leftovers.first_fidelity(at(context, state))
    assert isinstance(action, Begin)
    assert (action.job.trial, action.job.until) == (0, 3)
    assert leftovers.first_fidelity(at(context, replace(state, phase="exploring"))) is None


def added_by(action: object) -> TrialAdded:
    assert isinstance(action, Note)
    (added,) = action.events
    assert isinstance(added, TrialAdded)
    return added


def test_sizes_of_the_stock_model_are_measured_in_turns_once_it_is_known_that_one_can_be_trained(
    context: Context, designs: list[Architecture]
) -> None:
    def next_one(state: State, now_s: float = 10.0) -> object:
        return opponents.new_opponent(at(context, state, now_s))

    ready = exploring(*trial(0, designs[0], "preset:yolov8n", "ready"))
    assert next_one(ready) is None  # nothing tells what a training takes
    begun = exploring(*trial(0, designs[0], "preset:yolov8n", "paused", 3))
    first = added_by(next_one(begun))
    assert (first.number, first.origin) == (1, "scaled:yolov8n-w0.28-d0.82")
    assert next_one(replace(begun, phase="finishing")) is None
    coming = apply(begun, first)
    assert next_one(coming) is None  # one at a time
    there = fold(trial(1, first.architecture, first.origin, "ready"), begun)
    assert next_one(there) is None  # the sampler's turn
    both = fold(trial(2, designs[1], "sampler:x", "paused", 3), there)
    second = added_by(next_one(both))
    assert (second.number, second.origin) == (3, "scaled:yolov8n-w0.25-d0.82")
    assert next_one(fold(trial(3, second.architecture, second.origin, "ready"), both)) is None  # there is no other
    proposed = fold(trial(1, first.architecture, "sampler:x", "ready"), begun)  # by chance, before
    assert added_by(next_one(proposed)).origin == "scaled:yolov8n-w0.25-d0.82"


def test_a_budget_that_affords_no_other_size_measures_none(context: Context, designs: list[Architecture]) -> None:
    begun = exploring(*trial(0, designs[0], "preset:yolov8n", "paused", 3))  # a full training takes 9.9 s

    def measured_with(*budgets: str) -> bool:
        return opponents.new_opponent(at(context, replace(begun, budgets=budgets), 1.0)) is not None

    assert measured_with("50s")
    assert not measured_with("49s")
    assert measured_with("5trials")
    assert not measured_with("4trials")
    assert not measured_with("1h", "4trials")


def test_other_sizes_are_not_explored_and_no_strategy_trains_them(
    context: Context, designs: list[Architecture]
) -> None:
    (size, *_) = context.config.scaled_designs.items()
    scaled = trial(1, size[1], f"scaled:{size[0]}", "ready")
    state = exploring(*trial(0, designs[0], "preset:yolov8n", "paused", 3), *scaled)
    assert [one.idle for one in at(context, state).observations.values()] == [False]
    assert explore.next_fidelity(at(context, state)) is None
    assert leftovers.first_fidelity(at(context, apply(state, PhaseEntered("finishing")))) is None
    assert at(context, state).costs.of_opponents(at(context, state).spending) == pytest.approx(1.1 * 9)


def sizes(context: Context, *latencies_ms: float) -> list[list[Event]]:
    """Sizes of the stock model that wait, from trial 2 on."""
    stock = context.config.known_designs["yolov8n"]
    made_up = {f"yolov8n-w{i}": replace(stock, stem=replace(stock.stem, width=8 * (i + 4))) for i in range(5)}
    context.config.__dict__["scaled_designs"] = made_up  # in place of what the space holds
    context.config.__dict__["opponents"] = {d.key: n for n, d in ({"yolov8n": stock} | made_up).items()}
    given = zip(made_up.items(), latencies_ms, strict=False)
    return [trial(i + 2, d, f"scaled:{n}", "ready", ms=ms) for i, ((n, d), ms) in enumerate(given)]


def trained_in_turn(context: Context, state: State) -> list[int]:
    """The sizes that are trained to the end, one after the other."""
    order = []
    while action := opponents.train_opponent(at(context, state)):
        assert isinstance(action, Begin)
        number = action.job.trial
        assert number is not None
        assert action.job.until == 9
        order.append(number)
        epochs = (EpochEnded(number, Epoch(e, 0.01, 0.01, 1.0, 1.0)) for e in range(1, 10))
        state = fold([TrialMoved(number, "training"), *epochs, TrialMoved(number, "complete")], state)
    return order


def test_the_front_is_bracketed_first_then_the_neighbours_come_nearer(
    context: Context, designs: list[Architecture]
) -> None:
    waiting = sizes(context, 0.5, 0.8, 1.5, 3.0, 0.9)
    stock = trial(0, designs[0], "preset:yolov8n", "complete", 9, ms=2.0)
    rival = trial(1, designs[1], "sampler:x", "complete", 9, ms=1.0)
    done = exploring(*stock, *rival, *(event for size in waiting for event in size), PhaseEntered("finishing"))
    # Nothing is faster than the rival yet: 0.9 ms is nearest below. Then 1.5 ms is nearer than the stock model's 2 ms.
    assert trained_in_turn(context, done)[:2] == [6, 4]
    assert len(trained_in_turn(context, done)) == 4  # of five
    short = replace(done, budgets=("105s",))  # a training takes 9.9 s: two are a fifth of it
    assert len(trained_in_turn(context, short)) == 2
    assert trained_in_turn(context, replace(done, phase="exploring")) == []


def test_other_sizes_are_trained_only_where_something_may_beat_the_model_itself(
    context: Context, designs: list[Architecture]
) -> None:
    waiting = [event for size in sizes(context, 0.5, 3.0) for event in size]
    stock = trial(0, designs[0], "preset:yolov8n", "complete", 9, ms=2.0)
    alone = exploring(*stock, *trial(1, designs[1], "sampler:x", "paused", 3), *waiting, PhaseEntered("finishing"))
    assert trained_in_turn(context, alone) == []  # there is no rival yet
    beaten = [TrialAdded(1, designs[1], "sampler:x"), LatencyKnown(1, "cpu", latency(2.5, "cpu", "one", SIZE))]
    beaten += [TrialMoved(1, "ready"), TrialMoved(1, "training"), EpochEnded(1, Epoch(1, 0.01, 0.01, 1.0, 1.0))]
    lost = exploring(*stock, *beaten, TrialMoved(1, "complete"), *waiting, PhaseEntered("finishing"))
    assert trained_in_turn(context, lost) == []  # slower than the stock model, and no better
    coming = exploring(*stock, *beaten, *waiting, PhaseEntered("finishing"))
    assert opponents.train_opponent(at(replace(context, slots=2), coming)) is not None


def test_finalists_leave_what_other_sizes_need(context: Context, designs: list[Architecture]) -> None:
    stock = trial(0, designs[0], "preset:yolov8n", "complete", 9, ms=2.0)
    rival = trial(1, designs[1], "sampler:x", "complete", 9)
    one = [event for size in sizes(context, 0.5) for event in size]
    finalist = trial(3, designs[2], "sampler:x", "paused", 3, ms=0.7)
    state = exploring(*stock, *rival, *one, *finalist, PhaseEntered("finishing"))
    kept = complete.kept_for_the_end(at(context, state))
    without = exploring(*stock, *rival, *trial(2, designs[3], "sampler:x", "ready"), *finalist)
    assert kept - complete.kept_for_the_end(at(context, without)) == pytest.approx(9.9)


def test_designs_are_proposed_while_the_strategy_wants_some(context: Context, designs: list[Architecture]) -> None:
    first = propose.new_design(at(context, exploring()))
    assert isinstance(first, Note)
    (added,) = first.events
    assert isinstance(added, TrialAdded)
    assert (added.number, added.origin) == (0, "preset:yolov8n")
    enough = exploring(*trial(0, designs[0], "preset:yolov8n", "ready"), *trial(1, designs[1], "sampler:x", "new"))
    second = propose.new_design(at(context, enough))
    assert isinstance(second, Note)
    (added,) = second.events
    assert isinstance(added, TrialAdded)
    assert (added.number, added.origin) == (2, "sampler:random")
    two = exploring(*trial(0, designs[1], "sampler:x", "ready"), *trial(1, designs[2], "sampler:x", "new"))
    assert propose.new_design(at(context, fold(trial(2, designs[0], "preset:yolov8n", "ready"), two))) is None
    assert propose.new_design(at(context, exploring(SpaceExhausted()))) is None


def test_a_slot_waits_for_what_is_wanted_while_measuring_takes_little(
    context: Context, designs: list[Architecture]
) -> None:
    def known(seconds: float) -> State:  # a first training takes three seconds
        timed = replace(latency(1.0, "cpu", "one", SIZE), conditions={"seconds": {"load": 0.0, "time": seconds}})
        begun = exploring(*trial(0, designs[0], "preset:yolov8n", "paused", 3), *trial(1, designs[1], "s:x", "ready"))
        return fold([LatencyKnown(0, "cpu", timed), LatencyKnown(1, "cpu", timed)], begun)

    def waits(state: State) -> bool:
        return propose.comes_first(at(context, state))

    assert waits(known(0.2))
    assert explore.next_fidelity(at(context, known(0.2))) is None
    assert not waits(known(0.4))
    assert isinstance(explore.next_fidelity(at(context, known(0.4))), Begin)
    assert not waits(exploring(*trial(0, designs[0], "preset:yolov8n", "ready")))  # nothing tells how long it takes
    coming = fold(trial(2, designs[2], "sampler:x", "new"), known(0.1))
    assert not waits(coming)  # no other is wanted, and none is being measured
    measuring = fold(events_of(measured(context, coming), coming, 10.0), coming)
    assert waits(measuring)
    assert not waits(fold(trial(2, designs[3], "sampler:x", "ready"), known(0.2)))  # what was waited for is enough
    away = apply(known(0.2), DeviceMoved("cpu", Device(away_since_s=1.0, until_s=100.0)))
    assert not waits(away)
    assert not waits(apply(known(0.2), SpaceExhausted()))


def measured(context: Context, state: State) -> Begin:
    """The measurement that comes next."""
    action = measure.new_trials(at(context, state))
    assert isinstance(action, Begin)
    return action


def test_the_front_is_timed_in_more_processes_and_its_files_validated(
    context: Context, designs: list[Architecture]
) -> None:
    done = exploring(*trial(0, designs[0], "preset:yolov8n", "complete", 9))
    action = confirm.sessions(at(context, done))
    assert isinstance(action, Begin)
    assert (action.job.key, action.job.sessions) == ("confirm 0 cpu", 1)
    assert validate.finalists(at(context, done)) is None
    finishing = apply(done, PhaseEntered("finishing"))
    final = confirm.sessions(at(context, finishing))
    assert isinstance(final, Begin)
    assert final.job.sessions == 4
    assert confirm.sessions(at(context, replace(finishing, attempts={"confirm 0 cpu": 3}))) is None
    validated = validate.finalists(at(context, finishing))
    assert isinstance(validated, Begin)
    assert validated.job.key == "validate 0 cpu"
    assert validate.finalists(at(context, replace(finishing, attempts={"validate 0 cpu": 1}))) is None


def test_nothing_to_do_and_nothing_running_is_the_end(context: Context) -> None:
    assert stop.when_idle(at(context, exploring(PhaseEntered("finishing")))) == Stop()
    assert stop.when_idle(at(context, exploring(JobStarted(Job("check cpu", "check", "measure", 0.0))))) is None


def test_what_was_decided_on_is_not_done_once_it_changed(context: Context, designs: list[Architecture]) -> None:
    state = exploring(*trial(0, designs[1], "sampler:x", "ready"), *trial(1, designs[2], "sampler:x", "ready"))
    action = explore.next_fidelity(at(context, state))
    assert isinstance(action, Begin)
    assert is_current(action, state, state)
    other = apply(state, LatencyKnown(1, "cpu", latency(2.0, "cpu", "one", SIZE)))
    assert is_current(action, state, other)  # of another trial
    assert not is_current(action, state, fold([LatencyKnown(0, "cpu", None), TrialMoved(0, "new")], state))
    assert not is_current(Stop(), state, other)


def test_a_trial_goes_only_where_the_table_says(designs: list[Architecture]) -> None:
    for start, way in WAYS.items():
        state = fold([TrialAdded(0, designs[0], "preset:x"), *(TrialMoved(0, move) for move in way)], State())
        for end in WAYS:
            if end in TRANSITIONS[state.trials[0].state]:
                assert apply(state, TrialMoved(0, end)).trials[0].state == end  # type: ignore[arg-type]
            else:
                with pytest.raises(TransitionError, match=f"from {start} to {end}"):
                    apply(state, TrialMoved(0, end))  # type: ignore[arg-type]


def test_failures_are_the_trials_the_devices_or_the_machines(context: Context, designs: list[Architecture]) -> None:
    job = Job("train 0", "train", "train", 0.0, 0, until=3)

    def after(*failures: Failure) -> State:
        state = exploring(*trial(0, designs[0], "preset:yolov8n", "training"), JobStarted(job))
        for failure in failures:
            state = fold(of_result(state, job, failure), state)
        return fold(of_end(context, state, job, failures, 5.0).events, state)

    assert after(Failure("nan", "not finite")).trials[0].state == "failed"
    assert after(Failure("crash", "died")).trials[0].state == "ready"
    assert after(Failure("environment", "no cv2")).trials[0].state == "ready"
    halved = after(Failure("oom", "memory"))
    assert (halved.trials[0].state, halved.trials[0].batch) == ("ready", 8)
    away = Failure("unreachable", "no route", target="cpu")
    assert after(away).device("cpu") == Device(5.0, 15.0, "no route")
    assert after(away).trials[0].state == "ready"


def test_a_repeat_that_was_left_without_a_state_is_not_measured(designs: list[Architecture]) -> None:
    for origin, stands in (("repeat:0", "ready"), ("parent:yolov8n", "ready"), ("sampler:x", "new")):
        (left,) = exploring(TrialAdded(0, designs[0], origin)).trials
        assert standing(left) == stands

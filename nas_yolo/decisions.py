"""Which trial is trained next, and what is measured again: decisions that follow from the trials and the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.target import Target
from nas_yolo.budget import RESERVE, Spending
from nas_yolo.costs import Costs
from nas_yolo.finalists import inside_first
from nas_yolo.results import asked, baselines, complete, due_repeats, front_trials, is_design
from nas_yolo.samplers import Seen
from storage import Trial

BATCH = 16  # Ultralytics' default
SLOWER, SETTING_UP_S = 10.0, 600.0

Order = Callable[[Sequence[Seen]], list[int]]
"""Positions of trials among those that decisions see, the first to be trained first."""


@dataclass(frozen=True)
class Training:
    """What to train next.

    Attributes:
        trial: Which one.
        until: Which epoch.
        again: Whether it is trained once more from the start, as a repeat, rather than on.
    """

    trial: Trial
    until: int
    again: bool = False


def below_first_rung(trial: Trial, costs: Costs) -> bool:
    """Whether it waits for its first rung: never trained, or stopped on the way. Repeats and parents know no rungs."""
    waits = trial.state in ("ready", "paused") and is_design(trial)
    return waits and len(trial.epochs) < costs.levels[0]


def may_explore(costs: Costs, purse: Spending, exhausted_space: bool) -> bool:
    """Whether there is budget, and something new to find, beyond what is kept for the end."""
    waiting = [trial for trial in costs.trials if below_first_rung(trial, costs)]
    coming = any(trial.state in ("new", "measuring", "training") for trial in costs.trials)
    first = max((costs.of(trial, costs.levels[0]) for trial in waiting), default=costs.of_first_rung())
    if not purse.fits(first, costs.reserve(purse)):
        return False
    return bool(waiting) or coming or (purse.trials_left and not exhausted_space)


def next_rung(costs: Costs, purse: Spending, seen: Mapping[int, Seen], order: Order) -> Training | None:
    """The trial to train to its next rung while designs are explored.

    Args:
        costs: Of the search.
        purse: What is left.
        seen: What decisions see of the trials that are points of the space, by number.
        order: The strategy's.
    """
    stock = costs.config.space.baseline
    trials, numbers = {trial.number: trial for trial in costs.trials}, list(seen)
    outside = [t for t in costs.trials if t.number not in seen and below_first_rung(t, costs)]  # known designs
    reserve = costs.reserve(purse)
    last = costs.of_baseline() + costs.of_repeats(purse)
    for trial in outside + [trials[numbers[i]] for i in order(list(seen.values()))]:
        until = next(level for level in costs.levels if level > len(trial.epochs))
        cost = costs.of(trial, until)
        # A last rung may use what is kept for last rungs, all but what the stock model and repeats need of it.
        ends = until == costs.levels[-1] and trial.preset != stock
        if purse.fits(cost + last) if ends else purse.fits(cost, reserve):
            return Training(trial, until)
    return None


def next_finalist(costs: Costs, purse: Spending, seen: Mapping[int, Seen], order: Order, sessions: int) -> Training | None:
    """The trial to train to the end, or once more, once nothing new is begun; arguments as of `next_rung`.

    Args:
        costs: Of the search.
        purse: What is left.
        seen: What decisions see of the trials that are points of the space, by number.
        order: The strategy's.
        sessions: Processes in which finalists are timed in the end.
    """
    config, trials, numbers = costs.config, {trial.number: trial for trial in costs.trials}, list(seen)
    stock = config.space.baseline
    first = [t for t in costs.trials if t.preset == stock and t.state in ("ready", "paused")]
    designs = asked(costs.trials)
    if all(budget.kind == "trials" for budget in purse.budgets):
        ended = sum(t.state == "complete" or t.state == "training" for t in designs)
        room = math.ceil(RESERVE * len(designs)) - ended
    else:
        room = len(designs)
    ranked = inside_first(list(seen.values()), order(list(seen.values())))
    first += [trials[numbers[i]] for i in ranked[: max(room, 0)]]
    # How sure a comparison is matters once there are two to compare: until then repeats get nothing.
    rivals = any(t.state in ("complete", "training") and t.preset != stock for t in designs)
    confirming = costs.of_confirming(purse, ((t, target.name) for t, target in finalists(costs)), sessions)
    repeats = (costs.of_repeats(purse) if rivals else 0.0) + confirming
    for trial in first:
        keep = 0.0 if trial.preset == stock else repeats
        if purse.fits(costs.of(trial, config.epochs) + keep):
            return Training(trial, config.epochs)
    others = any(trial.state == "training" for trial in designs)
    if rivals and not others and (repeat := _next_repeat(costs, purse)):
        return repeat
    # What is left is too little to complete another one: a first rung tells a later resume more than idling does.
    for trial in designs:
        if below_first_rung(trial, costs) and purse.fits(costs.of(trial, costs.levels[0]) + repeats):
            return Training(trial, costs.levels[0])
    return None


def _next_repeat(costs: Costs, purse: Spending) -> Training | None:
    """A repeat that was begun, or a trial to repeat."""
    epochs = costs.config.epochs
    for trial in costs.trials:
        if trial.repeat_of is not None and trial.state in ("ready", "paused"):
            return Training(trial, epochs) if purse.fits(costs.of(trial, epochs)) else None
    for trial in due_repeats(costs.trials, costs.config, costs.repeats(purse)):
        if purse.fits(costs.of_another(trial)):
            return Training(trial, epochs, again=True)
    return None


def on_front(costs: Costs, target: str) -> set[int]:
    """Numbers of the front's members on a target, and of the stock model once it is complete."""
    trials = costs.trials
    members = [*front_trials(trials, target), *baselines(complete(trials, target), costs.config, target)]
    return {trial.number for trial in members}


def finalists(costs: Costs) -> Iterator[tuple[Trial, Target]]:
    """What is on the front of each target, and the stock model once it is complete, with the target."""
    trials = {trial.number: trial for trial in costs.trials}
    for target, _ in distinct(costs.config.targets):
        for number in sorted(on_front(costs, target.name)):
            yield trials[number], target


def distinct(targets: Sequence[tuple[Target, str]]) -> list[tuple[Target, str]]:
    """Targets with their fingerprints: one device that is set up in one way may have several names."""
    first = {fingerprint: target for target, fingerprint in reversed(targets)}
    return [(target, fingerprint) for target, fingerprint in targets if first[fingerprint] is target]


def sessions_missing(costs: Costs, target: str, wanted: int) -> Iterator[tuple[Trial, int]]:
    """What should be timed on a target in more processes, and in how many.

    All that lost its latency, since the device was not as it should be; and what is on the front.

    Args:
        costs: Of the search.
        target: The target's name.
        wanted: Processes in which the front is to be timed.
    """
    shown = on_front(costs, target)
    for trial in asked(costs.trials):
        if trial.state in ("new", "measuring", "rejected", "failed"):
            continue
        known = trial.latencies.get(target)
        missing = 1 if known is None else wanted - known.sessions if trial.number in shown else 0
        if missing > 0:
            yield trial, missing


def time_limit_s(expected_s: float, given_s: float | None) -> float:
    """Seconds after which a training is ended, since it hangs.

    A neighbour on the same cores or memory swapped to disk slows trainings down several times and they still end, and
    setting one up (imports, decoding images) may take minutes: neither should be mistaken for hanging, and a training
    that hangs costs no more than a few others do.

    Args:
        expected_s: What it should take; 0 if nothing tells.
        given_s: The user's limit for that case.
    """
    if expected_s > 0:
        return max(SLOWER * expected_s, expected_s + SETTING_UP_S)
    return math.inf if given_s is None else given_s


def half_batch(trial: Trial, training: Mapping[str, Any]) -> int | None:
    """Images in a batch with which to try again once memory ran out; None if that was tried, or cannot be."""
    batch = training.get("batch", BATCH)
    if trial.batch is not None or not isinstance(batch, int) or batch < 2:
        return None
    return batch // 2

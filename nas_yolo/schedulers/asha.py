"""Asynchronous successive halving on accuracy at equal latency.

At every fidelity, trials are ranked by *regret*: how much more accurate the best trial is that is no slower. A net is
thus never held back because a slower one is more accurate, and the whole front has regret 0. The best third may go on
to the next; nothing is stopped for ever, it waits.

Paper: A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934 (asynchronous successive halving).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evaluators.evaluation import TIE
from nas_yolo.fidelities import ETA
from nas_yolo.pareto import regrets
from nas_yolo.samplers import Ask, Assembled, Grid, Observation

ATTEMPTS = 5  # a sampler that repeats itself is not asked more often than this


@dataclass(frozen=True)
class Standing:
    """What a decision needs to know of a trial.

    Attributes:
        number: Of the trial.
        latencies_ms: On each target of the search, in the same order for all.
        accuracies: At each fidelity that it has reached, cheapest first.
        idle: Whether it waits, so that it could go on now.
    """

    number: int
    latencies_ms: tuple[float, ...]
    accuracies: tuple[float, ...]
    idle: bool

    @property
    def highest(self) -> int:
        """Index of the highest fidelity that it has reached."""
        return len(self.accuracies) - 1


def ranking(standings: Sequence[Standing], fidelity: int) -> list[tuple[float, int]]:
    """All trials that have reached a fidelity, given by its index, as (regret, number), best first.

    With several targets a trial's regret is its smallest: good on one device is good. Among equals come first those
    that lie farthest, in log-latency, from the ones before them, so that every region of latency keeps a chance.
    """
    here = [standing for standing in standings if standing.highest >= fidelity]
    if not here:
        return []
    accuracies = [standing.accuracies[fidelity] for standing in here]
    columns = zip(*(s.latencies_ms for s in here), strict=True)
    by_target = [regrets(latencies, accuracies, TIE) for latencies in columns]
    regret = {standing.number: min(column) for standing, column in zip(here, zip(*by_target, strict=True), strict=True)}
    place = {standing.number: math.log(standing.latencies_ms[0]) for standing in here}
    accuracy = {standing.number: value for standing, value in zip(here, accuracies, strict=True)}

    order: list[tuple[float, int]] = []
    for value in sorted(set(regret.values())):
        equals = [number for number in regret if regret[number] == value]
        while equals:

            def spread(number: int) -> tuple[float, float, int]:
                gap = min((abs(place[number] - place[other]) for _, other in order), default=math.inf)
                return gap, accuracy[number], -number

            chosen = max(equals, key=spread)
            equals.remove(chosen)
            order.append((value, chosen))
    return order


def promotion(standings: Sequence[Standing], fidelities: int) -> int | None:
    """The trial to go on to its next fidelity, if one deserves it: from the highest down, within the best third.

    Args:
        standings: All trials that were trained.
        fidelities: Number of them.
    """
    for fidelity in reversed(range(fidelities - 1)):
        waiting = {standing.number for standing in standings if standing.idle and standing.highest == fidelity}
        order = ranking(standings, fidelity)
        for _, number in order[: len(order) // ETA]:
            if number in waiting:
                return number
    return None


def finalists(standings: Sequence[Standing], fidelities: int) -> list[int]:
    """Trials that wait, in the order in which they deserve to be trained to the end.

    Those of lowest regret at the highest fidelity that they reached come first; regret is taken relative to the best
    accuracy at that fidelity, so that fidelities can be compared.
    """
    merits: list[tuple[float, int, int, int]] = []
    for fidelity in range(fidelities - 1):
        waiting = {standing.number for standing in standings if standing.idle and standing.highest == fidelity}
        best = max((s.accuracies[fidelity] for s in standings if s.highest >= fidelity), default=0.0)
        for position, (regret, number) in enumerate(ranking(standings, fidelity)):
            if number in waiting:
                merits.append((regret / best if best > 0 else 0.0, -fidelity, position, number))
    return [number for *_, number in sorted(merits)]


class Halving:
    """Any sampler's designs, promoted by successive halving.

    Args:
        ask: The sampler.
        grid: The space.
        fidelities: Number of them.
        seed: Of everything random.
    """

    def __init__(self, ask: Ask, grid: Grid, fidelities: int, seed: int):
        self._ask, self._grid, self._fidelities, self._seed = ask, grid, fidelities, seed

    def candidates(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> Iterator[tuple[int, ...]]:
        """What the sampler says, more than once if need be."""
        for attempt in range(ATTEMPTS):
            seed = int(np.random.SeedSequence((self._seed, len(seen), attempt)).generate_state(1)[0])
            yield self._ask(self._grid, seen, seed)

    def order(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> list[int]:
        """The promotion that is due, then the untrained by number."""
        idle = [i for i, one in enumerate(seen) if one.idle]
        untrained = [i for i in idle if not seen[i].accuracies]
        if len(untrained) == len(idle) or (due := promotion(_standings(seen), self._fidelities)) is None:
            return untrained
        return [due, *untrained]

    def finalists(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> list[int]:
        """Paused trials, the one that deserves most to be trained to the end first."""
        return finalists(_standings(seen), self._fidelities)

    def wants(self, seen: Sequence[Observation], slots: int, assembled: Sequence[Assembled] = ()) -> bool:
        """As long as fewer designs than slots wait, or are being measured, for their first training."""
        return sum(not one.accuracies and one.coming_fidelity is None and not one.over for one in seen) < slots


def _standings(seen: Sequence[Observation]) -> list[Standing]:
    return [
        Standing(number, one.latencies_ms, one.accuracies, one.idle)
        for number, one in enumerate(seen)
        if one.latencies_ms and one.accuracies
    ]

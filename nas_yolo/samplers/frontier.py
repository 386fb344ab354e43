"""The engine of the search: latency known early, accuracy at several fidelities, hypervolume per unit of cost.

Every free slot goes to whatever is expected to add most hypervolume per second of training: a new design's first rung,
or a paused one's next. A model of accuracy over choices, latency and fidelity tells what to expect; see
`_acquisition.py` for how that becomes a number and `_surrogate.py` for the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import ThreadpoolController

from nas_yolo.samplers import Assembled, Earlier, Observation
from nas_yolo.samplers._assembled import best_assembled, promising_first
from nas_yolo.samplers._grid import Grid
from nas_yolo.samplers._outlook import Outlook, bounded, enough, first_designs, spread_design
from nas_yolo.samplers._quantity import MIN_MEASURED, Fits

AHEAD = 4  # designs measured, at most, for each slot since the last of them was trained
MEASURING_S, MEASURING_SHARE = 10.0, 0.1  # what measuring one takes, about, and may take of a first training

P = ParamSpec("P")
R = TypeVar("R")


def one_thread(method: Callable[P, R]) -> Callable[P, R]:
    """The matrices are small: more threads would wait for each other, and for the trainings on the same cores."""
    limited: Callable[P, R] = ThreadpoolController().wrap(limits=1, user_api="blas")(method)
    return limited


class Frontier:
    """Decides what to propose and what to train, from all trials alone: the same trials, the same answer.

    Args:
        grid: The space.
        costs: What it costs to train from nothing to each fidelity, ascending, in epochs; in any unit where no trial
            has an `epoch_s`.
        seed: Settles everything random.
        limit_ms: Latency beyond which a design is of no use.
        earlier: Designs of earlier searches. The best of them are tried first, and all of them inform the model.
        tie: Relative difference of latencies up to which none is faster: what measurements differ by.
    """

    def __init__(
        self,
        grid: Grid,
        costs: ArrayLike,
        seed: int,
        limit_ms: float = math.inf,
        earlier: Sequence[Earlier] = (),
        tie: float = 0.0,
    ):
        self._grid, self._seed, self._limit_ms, self._tie = grid, seed, limit_ms, tie
        self._earlier = bounded(earlier)  # the same images first, the best of each first
        costs = np.asarray(costs, dtype=float)
        self._first_epochs, self._costs = float(costs[0]), costs / costs[-1]
        self._fits = Fits()
        self._last: tuple[list[Observation], tuple[Assembled, ...], Outlook] | None = None

    @one_thread
    def candidates(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> Iterator[tuple[int, ...]]:
        """Designs worth measuring, by their codes, best first; some may have been tried already.

        Args:
            seen: All trials, by number.
            assembled: Designs that were put together from a library.
        """
        if self._knows(seen, assembled):
            return iter([codes for codes, _ in self._outlook(seen, assembled).candidates])
        rng = np.random.default_rng((self._seed, len(seen)))
        known = [one.codes for one in self._earlier[: first_designs(self._costs)]]
        return chain(known, best_assembled(seen, assembled), spread_design(self._grid, seen, rng, self._fits))

    @one_thread
    def order(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> list[int]:
        """Positions of the trials that may be trained on now, the one worth most first."""
        idle = [i for i, one in enumerate(seen) if one.idle]
        if not self._knows(seen, assembled):
            return promising_first(seen, [i for i in idle if not seen[i].accuracies], assembled)
        return self._by_acquisition(seen, idle, assembled)

    @one_thread
    def finalists(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> list[int]:
        """Positions of paused trials, the one worth most first."""
        return self._by_acquisition(seen, [i for i, one in enumerate(seen) if one.idle and one.accuracies], assembled)

    @one_thread
    def wants(self, seen: Sequence[Observation], slots: int, assembled: Sequence[Assembled] = ()) -> bool:
        """As long as fewer designs wait than there are slots that are worth as much as the best that could be measured.

        What is measured only shows how fast a design is: `AHEAD` for each slot without a training is enough, and fewer
        where trainings are short.
        """
        measuring = sum(not one.latencies_ms and not one.over for one in seen)
        new = [one for one in seen if one.idle and not one.accuracies]
        if measuring >= slots or not new:
            return measuring < slots
        if not self._knows(seen, assembled):
            return measuring + len(new) < slots
        last = max(i for i, one in enumerate(seen) if one.accuracies or one.coming_fidelity is not None)
        if len(seen) - 1 - last >= self._ahead(seen) * slots:
            return False
        outlook = self._outlook(seen, assembled)
        best = outlook.candidates[0][1] if outlook.candidates else 0.0
        return measuring + sum(value >= best for value in outlook.acquisition_of(new)) < slots

    @one_thread
    def ranked(self, seen: Sequence[Observation], designs: Sequence[Observation]) -> list[int]:
        """Positions of measured designs, the one worth most first; as they are while little is known."""
        if not enough(seen, self._costs):
            return list(range(len(designs)))
        values = self._outlook(seen).acquisition_of(designs)
        return sorted(range(len(designs)), key=lambda i: -values[i])

    def _knows(self, seen: Sequence[Observation], assembled: Sequence[Assembled]) -> bool:
        """Whether a model has something to learn from: less will do where designs were put together and scored."""
        if assembled and sum(bool(one.accuracies) for one in seen) >= MIN_MEASURED:
            return True
        return enough(seen, self._costs)

    def _ahead(self, seen: Sequence[Observation]) -> int:
        epochs_s = [one.epoch_s for one in seen if one.epoch_s]
        if not epochs_s:
            return AHEAD
        first_s = self._first_epochs * float(np.median(epochs_s))
        return int(np.clip(first_s * MEASURING_SHARE / MEASURING_S, 1, AHEAD))

    def _by_acquisition(
        self, seen: Sequence[Observation], positions: list[int], assembled: Sequence[Assembled] = ()
    ) -> list[int]:
        if not positions:
            return []
        values = self._outlook(seen, assembled).acquisition_of([seen[i] for i in positions])
        return [i for _, i in sorted(zip([-value for value in values], positions, strict=True))]

    def _outlook(self, seen: Sequence[Observation], assembled: Sequence[Assembled] = ()) -> Outlook:
        if self._last is None or self._last[:2] != (list(seen), tuple(assembled)):
            known = self._limit_ms, self._fits, self._earlier, self._tie, assembled
            outlook = Outlook(self._grid, seen, self._costs, self._seed, *known)
            self._last = list(seen), tuple(assembled), outlook
        return self._last[2]

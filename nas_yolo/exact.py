"""The best designs under additive models of score and latency, found exactly.

A multiple-choice knapsack (Sinha and Zoltners, The multiple-choice knapsack problem, Operations Research 27, 1979), as
an integer programme for HiGHS: one value is taken of each choice, and the combination of those taken of choices that
belong together.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from nas_yolo.additive import Additive, Names, Values
from search_spaces.space import Choices, Value

Array = NDArray[np.float64]

TOLERANCE = 1e-6
"""Differences that do not count, as a share of what effects of score or latency span: the sum over all terms of the
largest less the smallest."""
SPAN = 1e2  # of score and latency while they are solved for,
SLACK = 1e-5  # and by how much they are let off there: HiGHS itself counts nothing below 1e-6


def best_designs(
    choices: Mapping[str, Sequence[Value]], score: Additive, latency: Additive, limits_ms: Sequence[float]
) -> list[Choices | None]:
    """For each limit the design with the best score that is no slower; of equal ones the fastest.

    Up to `TOLERANCE`, and the same in every process.

    Args:
        choices: What may be chosen, e.g. `SearchSpace.choices`, or what both models have seen of it.
        score: Higher is better.
        latency: In ms.
        limits_ms: In any order.

    Returns:
        As many as limits; None where no design is fast enough.

    Raises:
        ValueError: If a limit is not a number, a choice has no values, or a model asks for a choice that there is not.
        RuntimeError: If the solver gives up.
    """
    if any(math.isnan(limit) for limit in limits_ms):
        raise ValueError("limits must be numbers")
    programme = _Programme(choices, score, latency)
    fastest = programme.fastest()
    slack = TOLERANCE * programme.latency_span
    found: list[Choices | None] = [None] * len(limits_ms)
    best: Choices | None = None
    for position in sorted(range(len(limits_ms)), key=lambda i: -limits_ms[i]):
        limit = limits_ms[position]
        if limit < latency.predict(fastest) - slack:
            break
        # What is best below a higher limit is best here too, if it is fast enough.
        if best is None or latency.predict(best) > limit:
            best = programme.best(limit)
        found[position] = best
    return found


def pareto_designs(
    choices: Mapping[str, Sequence[Value]], score: Additive, latency: Additive, count: int
) -> list[Choices]:
    """The best designs at `count` limits, fastest first, each once.

    Limits are evenly spaced from the fastest design to the fastest of those with the best score of all.

    Args:
        choices: As for `best_designs`.
        score: Likewise.
        latency: Likewise.
        count: 2 or more.

    Raises:
        ValueError: If `count` is less than 2; otherwise as for `best_designs`.
        RuntimeError: If the solver gives up.
    """
    if count < 2:
        raise ValueError(f"{count} limits: 2 or more are needed")
    programme = _Programme(choices, score, latency)
    slowest = latency.predict(programme.best(math.inf))
    limits = np.linspace(latency.predict(programme.fastest()), slowest, count).tolist()
    found = [one for one in best_designs(choices, score, latency, limits) if one is not None]
    return [one for i, one in enumerate(found) if one not in found[:i]]


@contextmanager
def _aside() -> Iterator[None]:
    """What is written to standard output goes to standard error: HiGHS now and then leaves a line there, from C.

    Standard output may belong to a JSON document.
    """
    libc = ctypes.CDLL(None)
    kept = os.dup(1)
    libc.fflush(None)
    os.dup2(2, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


class _Programme:
    """All designs as vectors of 0 and 1: whether a value of a choice is taken, or a combination of several."""

    def __init__(self, choices: Mapping[str, Sequence[Value]], score: Additive, latency: Additive):
        for names in itertools.chain(score.effects, latency.effects):
            if missing := [name for name in names if name not in choices]:
                raise ValueError(f"a model asks for {missing[0]!r}, which is not chosen")
        if empty := [name for name, values in choices.items() if not values]:
            raise ValueError(f"{empty[0]} has no values")
        together = [names for names in {**score.effects, **latency.effects} if len(names) > 1]
        self.variables: list[tuple[Names, Values]] = [
            (names, values)
            for names in [*((name,) for name in choices), *together]
            for values in itertools.product(*(choices[name] for name in names))
        ]
        self.one_each = self._one_each(together)
        self.score, self.score_span = self._effects(score)
        self.latency, self.latency_span = self._effects(latency)
        self.model = latency

    def fastest(self) -> Choices:
        """The fastest design; of equal ones any."""
        return self._choices(self._solve(self.latency))

    def best(self, limit_ms: float) -> Choices:
        """The design with the best score that is fast enough, as one must be; of equal ones the fastest.

        Raises:
            RuntimeError: If the solver gives up.
        """
        constraints = []
        if limit_ms < math.inf:
            limit = (limit_ms - self.model.constant) / self.latency_span * SPAN
            constraints.append(LinearConstraint(self.latency, ub=limit + SLACK))
        best = self._solve(-self.score, *constraints)
        as_good = LinearConstraint(self.score, lb=float(self.score @ best) - SLACK)
        found = self._choices(self._solve(self.latency, as_good))
        if self.model.predict(found) > limit_ms + TOLERANCE * self.latency_span:
            raise RuntimeError(f"the solver's design is slower than {limit_ms:g} ms")
        return found

    def _effects(self, model: Additive) -> tuple[Array, float]:
        """Of each variable, scaled to `SPAN`, and what they span in the model's unit; 1 if nothing."""
        by_term: dict[Names, list[float]] = {}
        for names, values in self.variables:
            by_term.setdefault(names, []).append(model.effects.get(names, {}).get(values, 0.0))
        span = sum(max(effects) - min(effects) for effects in by_term.values()) or 1.0
        return np.concatenate(list(by_term.values())) / span * SPAN, span

    def _one_each(self, together: Sequence[Names]) -> LinearConstraint:
        """One value of each choice; of the combinations that hold a value one if it is taken, or else none."""
        rows: dict[tuple[Names, str, Value | None], int] = {}
        entries = []
        for column, (names, values) in enumerate(self.variables):
            if len(names) == 1:
                (name,), (value,) = names, values
                entries.append((rows.setdefault((names, name, None), len(rows)), column, 1.0))
                for group in together:
                    if name in group:
                        entries.append((rows.setdefault((group, name, value), len(rows)), column, -1.0))
            else:
                entries += [(rows[names, name, value], column, 1.0) for name, value in zip(names, values, strict=True)]
        at, of, factors = zip(*entries, strict=True)
        sums = [float(value is None) for _, _, value in rows]
        return LinearConstraint(csr_array((factors, (at, of)), (len(rows), len(self.variables))), sums, sums)

    def _solve(self, loss: Array, *constraints: LinearConstraint) -> Array:
        """The design with the least loss, as a vector."""
        with _aside():
            found = milp(
                loss,
                integrality=np.ones(len(loss)),
                bounds=Bounds(0, 1),
                constraints=[self.one_each, *constraints],
                options={"mip_rel_gap": 0.0},
            )
        if found.status != 0:
            raise RuntimeError(f"the solver found no best design: {found.message}")
        # Whole numbers of HiGHS are so only nearly, and what it is asked next must not build on that.
        taken: Array = np.round(found.x)
        if not np.array_equal(self.one_each.A @ taken, self.one_each.lb):
            raise RuntimeError("the solver's solution is no design")
        return taken

    def _choices(self, taken: Array) -> Choices:
        singles = [one for one, is_taken in zip(self.variables, taken, strict=True) if is_taken and len(one[0]) == 1]
        return {name: value for (name,), (value,) in singles}

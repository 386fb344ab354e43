"""A search space in Optuna's terms."""

from __future__ import annotations

from itertools import pairwise

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from search_spaces.space import SearchSpace, Value


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """One distribution per choice: integers in even steps are ordered, everything else is categorical."""
    return {name: _distribution(values) for name, values in space.choices.items()}


def _distribution(values: tuple[Value, ...]) -> BaseDistribution:
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) == len(values) > 1:
        step = numbers[1] - numbers[0]
        if all(b - a == step for a, b in pairwise(numbers)):
            return IntDistribution(numbers[0], numbers[-1], step=step)
    return CategoricalDistribution(values)

"""Who is trained to the end first: the front's candidates, which are more than the front of the proxy.

A short training misplaces nets, and those of the second and third layer of dominance hold members of the final front.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.evaluation import TIE
from nas_yolo.pareto import front
from nas_yolo.samplers import Observation

LAYERS = 3


def inside_first(seen: Sequence[Observation], order: Sequence[int]) -> list[int]:
    """The order given, but the front's candidates before all others.

    Args:
        seen: All trials.
        order: Positions of those that wait, the one that deserves most to be trained to the end first.
    """
    inside = candidates(seen)
    return sorted(order, key=lambda position: position not in inside)  # stable


def candidates(seen: Sequence[Observation]) -> set[int]:
    """Positions in the first layers of dominance of accuracy against latency, thinned, on any target.

    A trial is compared at its highest fidelity with all that have reached that. Of those in a layer whose latencies
    differ by less than measurements do, only the most accurate counts.
    """
    trained = [i for i, one in enumerate(seen) if one.accuracies and one.latencies_ms]
    found: set[int] = set()
    for fidelity in {len(seen[i].accuracies) - 1 for i in trained}:
        here = [i for i in trained if len(seen[i].accuracies) > fidelity]
        accuracies = {i: seen[i].accuracies[fidelity] for i in here}
        for target in range(len(seen[here[0]].latencies_ms)):
            latencies = {i: seen[i].latencies_ms[target] for i in here}
            inside = _first_layers(latencies, accuracies)
            found |= {i for i in inside if len(seen[i].accuracies) - 1 == fidelity}
    return found


def _first_layers(latencies_ms: dict[int, float], accuracies: dict[int, float]) -> set[int]:
    left, found = list(latencies_ms), set()
    for _ in range(LAYERS):
        layer = [left[k] for k in front([latencies_ms[i] for i in left], [accuracies[i] for i in left])]
        found |= set(_thinned(layer, latencies_ms, accuracies))
        left = [i for i in left if i not in layer]
    return found


def _thinned(layer: list[int], latencies_ms: dict[int, float], accuracies: dict[int, float]) -> list[int]:
    kept: list[int] = []
    for i in sorted(layer, key=lambda i: -accuracies[i]):
        if all(abs(latencies_ms[i] - latencies_ms[k]) > TIE * min(latencies_ms[i], latencies_ms[k]) for k in kept):
            kept.append(i)
    return kept

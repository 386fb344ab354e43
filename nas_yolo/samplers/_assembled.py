"""What designs that were put together from a library say, before anything was trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas_yolo.pareto import front, regrets
from nas_yolo.samplers import Assembled, Observation

KEPT = math.log(0.8)  # of the stock model's score


def front_of(assembled: Sequence[Assembled]) -> list[Assembled]:
    """Those that no other beats in predicted latency and score, fastest first."""
    members = front([one.latency_ms for one in assembled], [one.left for one in assembled])
    return [assembled[i] for i in members]


def best_assembled(seen: Sequence[Observation], assembled: Sequence[Assembled]) -> list[tuple[int, ...]]:
    """Their front, by codes: what keeps most of its score first, and of that what lies farthest from what was measured.

    What loses much is not lost, since training mends it; but it is not what a small budget should begin with.
    """
    tried = {one.codes for one in seen}
    known = [float(np.log(one.latencies_ms).mean()) for one in seen if one.latencies_ms]

    def gap(one: Assembled) -> float:
        return min((abs(math.log(max(one.latency_ms, 1e-9)) - other) for other in known), default=0.0)

    return [
        one.codes
        for one in sorted(front_of(assembled), key=lambda one: (one.left < KEPT, -gap(one)))
        if one.codes not in tried
    ]


def promising_first(seen: Sequence[Observation], positions: Sequence[int], assembled: Sequence[Assembled]) -> list[int]:
    """Measured trials, those first of which more is left than of all that are no slower; unscored ones last."""
    left = {one.codes: one.left for one in assembled}
    scored = [i for i in positions if seen[i].codes in left]
    behind = regrets([seen[i].latencies_ms[0] for i in scored], [left[seen[i].codes] for i in scored])
    order = np.argsort(behind, kind="stable").tolist() if scored else []
    return [*(scored[i] for i in order), *(i for i in positions if seen[i].codes not in left)]

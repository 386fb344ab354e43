"""Hard limits on what a candidate may cost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from evaluators.complexity import Size, predict_size, smallest
from evaluators.evaluation import Complexity, Latency
from search_spaces.errors import UserError
from search_spaces.image_size import ImageSize, chosen_size
from search_spaces.names import unknown
from search_spaces.space import SearchSpace

METRICS = ("gflops", "latency_ms", "params", "params_m")


class LimitError(UserError, ValueError):
    """A limit that cannot be read."""


@dataclass(frozen=True)
class Limit:
    """`metric <= bound`; a candidate beyond it is rejected before its first epoch."""

    metric: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}<={self.bound:g}"


def parse_limit(text: str) -> Limit:
    """Read e.g. `latency_ms<=12`.

    Raises:
        LimitError: If it is not of that form, or the metric is unknown.
    """
    found = re.fullmatch(r"\s*(\w+)\s*<=\s*([0-9.eE+-]+)\s*", text)
    try:
        metric, bound = (found[1], float(found[2])) if found else ("", 0.0)
    except ValueError:
        bound = 0.0
    if found is None or not 0 < bound < float("inf"):
        raise LimitError(f"limit {text!r} must be METRIC<=NUMBER, e.g. latency_ms<=12")
    if metric not in METRICS:
        raise LimitError(unknown("limit", metric, METRICS))
    return Limit(metric, bound)


def check_feasible(limits: Iterable[Limit], space: SearchSpace, classes: int, imgsz: ImageSize) -> None:
    """Refuse a limit on size that no architecture of the space keeps, before anything runs.

    Raises:
        LimitError: With the size of the smallest.
    """
    for limit in limits:
        if limit.metric == "latency_ms":
            continue
        architecture = smallest(space, classes, imgsz, "gflops" if limit.metric == "gflops" else "params")
        if refusal := too_complex([limit], predict_size(architecture, classes, chosen_size(architecture, imgsz))):
            raise LimitError(
                f"--limit {limit} leaves nothing of space {space.name}: of its smallest architecture, {refusal}; "
                "raise the limit or use a space with smaller widths"
            )


def too_complex(limits: Iterable[Limit], complexity: Complexity | Size) -> str:
    """Which limit on size a network breaks, as a sentence; empty if none."""
    values = {"gflops": complexity.gflops, "params": complexity.params, "params_m": complexity.params / 1e6}
    for limit in limits:
        if limit.metric in values and values[limit.metric] > limit.bound:
            return f"{limit.metric} is {values[limit.metric]:.4g}, over the limit of {limit.bound:g}"
    return ""


def too_slow(limits: Iterable[Limit], latencies: Iterable[Latency]) -> str:
    """Which limit on latency a network breaks on any target, as a sentence; empty if none."""
    bounds = [limit.bound for limit in limits if limit.metric == "latency_ms"]
    for latency in latencies:
        if bounds and latency.latency_ms > min(bounds):
            return f"latency_ms on {latency.target} is {latency.latency_ms:.4g}, over the limit of {min(bounds):g}"
    return ""

"""How many trainings share a GPU: decided from what was measured with 1, 2, 4, ... of them at once. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

NEAR = 0.05  # a throughput this much below the best is as good: what two probes of the same kind may differ by
HEADROOM = 1.25  # a crowded image needs more than the made-up ones, and what is allocated ends up in pieces
CONTEXT_BYTES = 768 * 2**20  # that CUDA takes in every process beside its tensors, generously; no GPU was at hand
CORES_PER_TRAINING = 2  # one drives the GPU, one makes its batches

Limit = Literal["cores", "memory"]


@dataclass(frozen=True)
class Run:
    """So many trainings at once, each in a process of its own.

    Attributes:
        trainings: How many were started.
        images_per_s: That those which lived trained on together. Higher is better.
        peak_bytes: Most device memory that each of these had reserved; none on a CPU.
        failures: What ended the others: one line each.
    """

    trainings: int
    images_per_s: float
    peak_bytes: tuple[int, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packing:
    """What was measured, and what follows.

    Attributes:
        device: Name of the GPU.
        memory_bytes: That it has; None on a CPU, where memory is not divided.
        runs: Of a typical network, by growing number.
        largest: Of the largest network of the space, alone; None on a CPU.
        limit: Trainings that the cores and the memory have room for.
        limited_by: Which of the two is scarcer.
    """

    device: str
    memory_bytes: int | None
    runs: tuple[Run, ...]
    largest: Run | None
    limit: int
    limited_by: Limit

    @property
    def trainings(self) -> int:
        """How many to run at once on each GPU."""
        return best_count(self.runs, self.limit)

    @property
    def gain(self) -> float:
        """Images a second of so many together, as a multiple of those of one by itself."""
        rates = {run.trainings: run.images_per_s for run in self.runs}
        return rates[self.trainings] / rates[1] if rates[1] else 1.0

    def document(self) -> dict[str, Any]:
        """Plain data for `from_document`, with what follows from it."""
        return asdict(self) | {"trainings": self.trainings, "gain": self.gain}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Packing:
        """Read back what `document` wrote."""
        largest = document["largest"]
        return cls(
            device=document["device"],
            memory_bytes=document["memory_bytes"],
            runs=tuple(map(_run, document["runs"])),
            largest=_run(largest) if largest else None,
            limit=document["limit"],
            limited_by=document["limited_by"],
        )

    def __str__(self) -> str:
        """One line for people."""
        if self.trainings > 1:
            return (
                f"{self.trainings} trainings at once on each GPU: {self.gain:.1f} times the images a second of one at "
                "a time"
            )
        failed = [failure for run in (*self.runs, *filter(None, [self.largest])) for failure in run.failures]
        if failed:
            return f"One training at a time on each GPU: one failed in the probe ({failed[0]})"
        if self.limit == 1:
            return f"One training at a time on each GPU: no room for two ({self.limited_by})"
        return "One training at a time on each GPU: two at once were not faster"


def best_count(runs: Sequence[Run], limit: int) -> int:
    """The smallest number of trainings whose throughput is near the best; 1 if none succeeded."""
    good = [run for run in runs if not run.failures and run.trainings <= limit]
    best = max((run.images_per_s for run in good), default=0.0)
    return min((run.trainings for run in good if run.images_per_s >= (1 - NEAR) * best), default=1)


def next_count(runs: Sequence[Run], limit: int) -> int | None:
    """How many trainings to try next: twice as many, while that is a gain, nothing failed and there is room.

    Args:
        runs: So far, by growing number.
        limit: Most that there is room for.
    """
    if not runs:
        return 1
    last, before = runs[-1], runs[:-1]
    gains = all(last.images_per_s > run.images_per_s * (1 + NEAR) for run in before)
    if last.failures or not gains or last.trainings >= limit:
        return None
    return min(2 * last.trainings, limit)


def room(cores: int, gpus: int, memory_bytes: int | None, largest_bytes: int | None) -> tuple[int, Limit]:
    """How many trainings a GPU and its share of the host have room for, at least 1, and what they lack for more.

    Args:
        cores: Of the host.
        gpus: Of the host.
        memory_bytes: Of one GPU; None where memory is not divided.
        largest_bytes: That the largest training needs; None if it is not known, and one may be all that fits.
    """
    by_cores = max(cores // gpus // CORES_PER_TRAINING, 1)
    if memory_bytes is None:
        return by_cores, "cores"
    by_memory = int(memory_bytes // (largest_bytes * HEADROOM + CONTEXT_BYTES)) if largest_bytes else 1
    return (by_cores, "cores") if by_cores <= by_memory else (max(by_memory, 1), "memory")


def tensor_share(share: float, memory_bytes: int) -> float:
    """The share of a GPU's memory that is left for tensors to a process that may have `share` of the GPU.

    Args:
        share: Above 0 to 1.
        memory_bytes: Of the GPU.
    """
    return max(share - CONTEXT_BYTES / memory_bytes, share / 2)


def trainings_at_once(gpus: int, gpus_per_trial: float) -> int:
    """How many trainings fit on so many GPUs when each holds `gpus_per_trial`; none holds parts of two."""
    if gpus_per_trial > 1:
        return max(int(gpus / gpus_per_trial), 1)
    return gpus * int(1 / gpus_per_trial + 1e-6)  # 1 / (1 / 93) is less than 93


def _run(document: dict[str, Any]) -> Run:
    lists = {key: tuple(document[key]) for key in ("peak_bytes", "failures")}
    return Run(**{**document, **lists})

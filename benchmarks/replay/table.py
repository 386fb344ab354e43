"""A table of architectures that were all trained and timed: the truth that a replay searches in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas_yolo.pareto import front, hypervolume


@dataclass(frozen=True)
class Table:
    """One device's view of a table.

    Attributes:
        name: Of the file.
        device: Whose latencies they are.
        configs: All valid architectures, (N, D): which value each choice takes, from 0.
        cardinality: Number of values of each choice, (D,).
        costs: Of training from nothing to each fidelity, ascending, in full trainings: the last is 1, (F,).
        accuracy: Percent, (N, F); the last column is the full training.
        latency_ms: (N,).
        sizes: What is known of an architecture before it is measured or trained (parameters, GFLOPs), (N, 0 or more).
    """

    name: str
    device: str
    configs: NDArray[np.int64]
    cardinality: NDArray[np.int64]
    costs: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    sizes: NDArray[np.float64]

    @cached_property
    def row_of(self) -> dict[tuple[int, ...], int]:
        """Row of each configuration; one that is not there is not part of the space."""
        return {tuple(config): row for row, config in enumerate(self.configs.tolist())}

    @cached_property
    def reference(self) -> tuple[float, float]:
        """Where the hypervolume begins: 99th percentile of latency (ms), 25th percentile of final accuracy."""
        latency = np.exp(np.percentile(np.log(self.latency_ms), 99))
        return float(latency), float(np.percentile(self.accuracy[:, -1], 25))

    @cached_property
    def _true_hypervolume(self) -> float:
        return hypervolume(self.latency_ms, self.accuracy[:, -1], *self.reference)

    def hypervolume(self, rows: list[int]) -> float:
        """Of these architectures, trained in full, as a share of the true front's: 0 to 1, higher is better."""
        found = hypervolume(self.latency_ms[rows], self.accuracy[rows, -1], *self.reference)
        return found / self._true_hypervolume

    @cached_property
    def true_front(self) -> list[int]:
        """Rows of the true front, fastest first."""
        return front(self.latency_ms.tolist(), self.accuracy[:, -1].tolist())


class TableError(ValueError):
    """A file that is not a replay table, or has no such device."""


def load_table(path: Path, device: str | None = None, fidelities: int | None = None) -> Table:
    """Read a table.

    Args:
        path: An npz with `configs`, `cardinality`, `epochs`, `accuracy`, `latency_ms`, `devices`; optionally `params_m`
            and `gflops`.
        device: One of `devices`; the first if None.
        fidelities: Only so many of them, the highest; all if None.

    Raises:
        TableError: If something is missing or does not fit.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: not a readable npz file ({error})") from error
    with file:
        needed = ("configs", "cardinality", "epochs", "accuracy", "latency_ms", "devices")
        if missing := [key for key in needed if key not in file]:
            raise TableError(f"{path}: no {', '.join(missing)}; a replay table has {', '.join(needed)}")
        devices = [str(name) for name in file["devices"]]
        if device is not None and device not in devices:
            raise TableError(f"{path}: no device {device!r}; there are {', '.join(devices)}")
        column = devices.index(device) if device is not None else 0
        configs, accuracy = file["configs"].astype(np.int64), file["accuracy"].astype(np.float64)
        latency_ms, epochs = file["latency_ms"].astype(np.float64)[:, column], file["epochs"].astype(np.float64)
        sizes = [file[key].astype(np.float64) for key in ("params_m", "gflops") if key in file]
        cardinality = file["cardinality"].astype(np.int64)
    if accuracy.shape != (len(configs), len(epochs)) or latency_ms.shape != (len(configs),):
        raise TableError(f"{path}: configs, epochs, accuracy and latency_ms do not fit each other")
    if np.any(np.diff(epochs) <= 0) or np.any(configs >= cardinality):
        raise TableError(f"{path}: epochs must ascend, and configs lie below their cardinality")
    if not (np.isfinite(accuracy).all() and np.isfinite(latency_ms).all() and (latency_ms > 0).all()):
        raise TableError(f"{path}: accuracies must be finite, latencies positive")
    first = max(len(epochs) - (fidelities or len(epochs)), 0)
    return Table(
        name=path.name,
        device=devices[column],
        configs=configs,
        cardinality=cardinality,
        costs=epochs[first:] / epochs[-1],
        accuracy=accuracy[:, first:],
        latency_ms=latency_ms,
        sizes=np.stack(sizes, axis=1) if sizes else np.empty((len(configs), 0)),
    )

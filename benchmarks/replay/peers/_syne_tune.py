"""What the searches of Syne Tune share.

Source: https://github.com/syne-tune/syne-tune (0.16).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from benchmarks.replay.peers._packages import library
from benchmarks.replay.table import Table


class OwnRandom:
    """Generators of NumPy and PyTorch, and double precision, for code that uses the global ones."""

    def __init__(self, seed: int) -> None:
        self._numpy: Any = np.random.RandomState(seed).get_state()
        self._torch = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def as_global(self) -> Iterator[None]:
        """Put them in the place of the global ones."""
        theirs: Any = np.random.get_state()
        precision = torch.get_default_dtype()
        with torch.random.fork_rng(devices=[]):
            np.random.set_state(self._numpy)
            torch.set_rng_state(self._torch)
            torch.set_default_dtype(torch.float64)
            try:
                yield
            finally:
                self._numpy, self._torch = np.random.get_state(), torch.get_rng_state()
                np.random.set_state(theirs)
                torch.set_default_dtype(precision)


class Space:
    """The choices of a table in Syne Tune's words.

    They are whole numbers: with categories, which it makes continuous one by one, nearly all that its EHVI proposed
    were rows that it had trained.
    """

    def __init__(self, table: Table) -> None:
        randint = library("syne_tune.config_space").randint
        counts = table.cardinality.tolist()
        self.domains = {f"choice{i}": randint(0, count - 1) if count > 1 else 0 for i, count in enumerate(counts)}

    def named(self, config: Sequence[int]) -> dict[str, int]:
        """A configuration of a table as Syne Tune has it."""
        return dict(zip(self.domains, config, strict=True))

    def plain(self, config: dict[str, Any]) -> list[int]:
        """And back."""
        return [int(config[name]) for name in self.domains]


def trial(number: int, config: dict[str, int]) -> Any:
    """A trial that a scheduler is told about."""
    return library("syne_tune.backend.trial_status").Trial(number, config, datetime.now(timezone.utc))

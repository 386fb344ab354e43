"""How far results can be trusted, early ones and differences, from the trials of the search itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

ISO_LATENCY = 0.10  # trials whose latencies differ by no more are rivals: only their order matters to a front
MIN_PAIRS = 6  # under which a correlation says nothing
RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's tau between early and final accuracy, among trials of about equal latency.

    Attributes:
        tau: -1 to 1: 1 if every pair is in the same order early and in the end. Ties in one of the two count as half
            right.
        low: Of the 95 % bootstrap interval over trials.
        high: Likewise.
        pairs: Number of pairs within 10 % of each other's latency.
    """

    tau: float
    low: float
    high: float
    pairs: int


def iso_latency_correlation(
    latencies_ms: Sequence[float], early: Sequence[float], final: Sequence[float], seed: int = 0
) -> RankCorrelation | None:
    """Whether the better of two equally fast trials could be told early; None if fewer than six pairs can be compared.

    Over all pairs any proxy looks good, since slower nets are better early and late alike; that order was known from
    latency alone.

    Raises:
        ValueError: If a value is not finite, or the lengths differ.
    """
    log_latency, first, last = np.log(latencies_ms), np.asarray(early, float), np.asarray(final, float)
    if not len(log_latency) == len(first) == len(last):
        raise ValueError(f"{len(log_latency)} latencies, {len(first)} early and {len(last)} final accuracies")
    if not (np.isfinite(log_latency).all() and np.isfinite(first).all() and np.isfinite(last).all()):
        raise ValueError("latencies must be positive, and all values finite")
    i, j = iso_latency_pairs(latencies_ms)
    if len(i) < MIN_PAIRS:
        return None
    agreement = np.sign(first[i] - first[j]) * np.sign(last[i] - last[j])
    rng = np.random.default_rng(seed)
    taus = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(rng.integers(len(first), size=len(first)), minlength=len(first))
        weight = drawn[i] * drawn[j]
        if weight.any():
            taus.append(float(np.average(agreement, weights=weight)))
    low, high = np.quantile(taus, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return RankCorrelation(float(agreement.mean()), float(low), float(high), len(i))


def iso_latency_pairs(latencies_ms: Sequence[float]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the two trials of each pair of about equal latency."""
    log_latency = np.log(latencies_ms)
    i, j = np.triu_indices(len(log_latency), 1)
    near = np.abs(log_latency[i] - log_latency[j]) <= math.log1p(ISO_LATENCY)
    return i[near], j[near]


def iso_latency_tau(latencies_ms: Sequence[float], early: NDArray[np.float64], final: NDArray[np.float64]) -> float:
    """That of `iso_latency_correlation`, without its interval; nan without a pair of about equal latency."""
    i, j = iso_latency_pairs(latencies_ms)
    return float((np.sign(early[i] - early[j]) * np.sign(final[i] - final[j])).mean()) if len(i) else math.nan


@dataclass(frozen=True)
class Noise:
    """How much accuracies differ by chance alone, between trainings of one architecture with different seeds.

    Attributes:
        sd: Standard deviation, in units of the accuracy.
        degrees_of_freedom: Of its estimate, at least 1: trainings less architectures.
    """

    sd: float
    degrees_of_freedom: int

    def difference(self, first: float = 1, second: float = 1) -> float:
        """Half the width of the 95 % interval of a difference of two means, by Student's t; wide for few repeats.

        Args:
            first: Number of trainings of one architecture.
            second: Of the other; of a weighted mean, the number that has as small an error.
        """
        t = float(stdtrit(self.degrees_of_freedom, (1 + LEVEL) / 2))
        return t * self.sd * math.sqrt(1 / first + 1 / second)


def seed_noise(groups: Iterable[Sequence[float]]) -> Noise | None:
    """The noise between seeds, pooled over architectures; None if none was trained twice.

    Args:
        groups: Accuracies of all trainings of each architecture; one alone tells nothing.

    Raises:
        ValueError: If a value is not finite.
    """
    several = [np.asarray(group, float) for group in groups if len(group) > 1]
    if not all(np.isfinite(group).all() for group in several):
        raise ValueError("accuracies must be finite")
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return Noise(math.sqrt(squares / freedom), freedom)

"""MO-ASHA that spends as much on each rung as on the one below, whatever fidelities the table has.

Successive halving keeps one of eta where the next rung costs eta times as much (https://arxiv.org/abs/1810.05934). A
table may have no rungs that are a factor of 3 apart: where the next one costs 17 times as much, this keeps one of 17.
"""

from __future__ import annotations

from benchmarks.replay.peers.moasha import MultiObjectiveAsha
from benchmarks.replay.simulation import Method
from benchmarks.replay.table import Table


def new(table: Table, seed: int, budget: float, workers: int) -> Method:
    """MO-ASHA with the eta that fits the table."""
    return MultiObjectiveAsha(table, seed, eta=None)

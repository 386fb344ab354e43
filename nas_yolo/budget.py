"""What a whole search may spend, and whether a piece of work still fits."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from search_spaces.errors import UserError
from storage.trial import Spent

RESERVE = 0.3  # share of the budget kept for training the best to the end
MAX_RESERVE = 0.7
REPEATS = 2  # trained once more with another seed, where not said otherwise: two sides of a comparison
REPEATS_SHARE = 0.1  # of the budget that these may take
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


class BudgetError(UserError, ValueError):
    """A budget that cannot be read or used."""


@dataclass(frozen=True)
class Budget:
    """One limit.

    Attributes:
        text: As the user wrote it.
        kind: `wall`, `gpu` or `cpu` (seconds), or `trials`.
        limit: Seconds, or number of trials.
    """

    text: str
    kind: str
    limit: float

    @property
    def unit(self) -> str:
        """As in the text: `h`, `min`, `gpu-h`, `trials` ..."""
        return re.sub(r"^[0-9.]+\s*", "", self.text)

    @property
    def _unit_size(self) -> float:
        return 1.0 if self.kind == "trials" else SECONDS[self.unit.rpartition("-")[2]]

    def spent(self, spent: Spent, trials: int) -> float:
        """How much of it is used, in seconds or trials."""
        used = {"wall": spent.wall_seconds, "gpu": spent.gpu_seconds, "cpu": spent.cpu_seconds, "trials": trials}
        return used[self.kind]

    def of(self, seconds: float) -> str:
        """So many seconds, in the user's own unit, rounded up to two digits."""
        amount = seconds / self._unit_size
        step = 10.0 ** (math.floor(math.log10(amount)) - 1)
        return f"{math.ceil(amount / step - 1e-9) * step:g}{self.unit}"

    def shown(self, spent: Spent, trials: int) -> dict[str, float | str]:
        """Limit and use in the user's own unit."""
        used = self.spent(spent, trials)
        return {
            "limit": self.limit / self._unit_size,
            "spent": round(used / self._unit_size, 4),
            "unit": self.unit,
        }


@cache
def parse_budget(text: str) -> Budget:
    """Read `50gpu-h`, `8h`, `30min`, `2cpu-h` or `200trials`.

    Raises:
        BudgetError: If it is not of that form, or not more than 0.
    """
    compact = text.strip().lower().replace(" ", "")
    found = re.fullmatch(r"([+-]?[0-9]*\.?[0-9]+)(?:(gpu-|cpu-)?(h|min|s)|(trials?))", compact)
    if not found:
        raise BudgetError(f"budget {text!r} is not readable; give e.g. 50gpu-h, 2cpu-h, 8h, 30min or 200trials")
    amount = float(found[1])
    if not amount > 0:
        raise BudgetError(f"budget {text!r} must be more than 0")
    if found[4]:
        if amount != int(amount):
            raise BudgetError(f"budget {text!r} must be a whole number of trials")
        return Budget(f"{int(amount)}trials", "trials", amount)
    kind = {"gpu-": "gpu", "cpu-": "cpu", None: "wall"}[found[2]]
    return Budget(compact, kind, amount * SECONDS[found[3]])


@dataclass(frozen=True)
class Spending:
    """All limits of a search, what it has spent and what its running work may still cost.

    Attributes:
        budgets: The limits; the first to run out ends the search.
        spent: From the ledger.
        trials: Asked so far, repeats not counted.
        committed_seconds: For each running training, the seconds that it is expected to take from now on.
        measuring: Measurements that run.
        gpus: That one training holds.
        cpus: Likewise, threads.
        slots: Trainings at once.
    """

    budgets: Sequence[Budget]
    spent: Spent
    trials: int
    committed_seconds: tuple[float, ...] = ()
    measuring: int = 0
    gpus: float = 0.0
    cpus: float = 1.0
    slots: int = 1

    @property
    def exhausted(self) -> bool:
        """Whether a limit in time is reached: everything stops at once."""
        return any(b.kind != "trials" and b.spent(self.spent, self.trials) >= b.limit for b in self.budgets)

    @property
    def trials_left(self) -> bool:
        """Whether another trial may be proposed."""
        return all(self.trials < b.limit for b in self.budgets if b.kind == "trials")

    @property
    def seconds_left(self) -> float:
        """Until a limit is reached, if what runs now keeps running."""
        trainings = len(self.committed_seconds)
        rates = {"wall": 1.0, "gpu": self.gpus * trainings, "cpu": self.cpus * trainings + self.measuring}
        left = [
            max(b.limit - b.spent(self.spent, self.trials), 0.0) / rates[b.kind]
            for b in self.budgets
            if b.kind != "trials" and rates[b.kind]
        ]
        return min(left, default=float("inf"))

    def fits(self, seconds: float, keep: float = 0.0) -> bool:
        """Whether a training of so many seconds ends within every limit.

        Args:
            seconds: Expected duration on one slot.
            keep: Share of each limit that must be left afterwards, 0 to 1.
        """
        held = {"gpu": self.gpus, "cpu": self.cpus}
        for budget in self.budgets:
            if budget.kind == "trials":
                continue
            left = budget.limit * (1 - keep) - budget.spent(self.spent, self.trials)
            at_once = seconds + sum(self.committed_seconds)
            needed = seconds if budget.kind == "wall" else held[budget.kind] * at_once
            if needed > left:
                return False
        return True

    def share(self, seconds: float, alone: bool = False) -> float:
        """Of each limit in time, the largest share that so many seconds of training take; 0 without such limits.

        Args:
            seconds: Of training.
            alone: One after the other, not on all slots at once.
        """
        held = {"gpu": self.gpus, "cpu": self.cpus, "wall": 1.0 if alone else 1.0 / self.slots}
        return max((held[b.kind] * seconds / b.limit for b in self.budgets if b.kind != "trials"), default=0.0)

    def enough(self, seconds: float, share: float) -> str:
        """The budgets of which so many seconds of training would be a share, as the user would write them."""
        held = {"gpu": self.gpus, "cpu": self.cpus, "wall": 1.0}
        return " and ".join(b.of(held[b.kind] * seconds / share) for b in self.budgets if b.kind != "trials")

    def reserve(self, completion_seconds: float, repeats_seconds: float = 0.0) -> float:
        """Share of the budget to keep for the end: the default, or more where one completion needs more, and repeats.

        Args:
            completion_seconds: To train one paused trial to its last epoch.
            repeats_seconds: To train the best once more.
        """
        return min(max(RESERVE, self.share(completion_seconds)) + self.share(repeats_seconds), MAX_RESERVE)

    def repeats(self, training_seconds: float) -> int:
        """How many trainings to repeat where the user did not say: none where that costs more than it tells.

        Args:
            training_seconds: Of a full training; a limit in trials is compared with the trainings to the end instead.
        """
        if any(b.kind != "trials" for b in self.budgets):
            cheap = self.share(REPEATS * training_seconds) <= REPEATS_SHARE
        else:
            cheap = all(REPEATS_SHARE * RESERVE * b.limit >= REPEATS for b in self.budgets)
        return REPEATS if cheap else 0

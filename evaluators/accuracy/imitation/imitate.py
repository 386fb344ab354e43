"""Training entries: each by itself, all on the same batches, which the parent computes once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.parent import ParentNetwork
from search_spaces.architecture import Architecture

RATE = 0.003
LAST = 0.1  # share of the steps over which the reported error is a mean
TURNS = 2  # every so many steps the first form has its turn


@dataclass(frozen=True)
class Task:
    """An entry to train.

    Attributes:
        entry: Changed.
        forms: Designs with its block at its place, the one first that matters most.
    """

    entry: Entry
    forms: Sequence[Architecture]


def imitate(
    parent: ParentNetwork, tasks: Sequence[Task], batches: Iterable[Tensor], steps: int, seed: int
) -> list[float]:
    """Train entries for so many steps, each of one form; the mean error of each in the last tenth, lower is better.

    What becomes of one entry is nothing to the others: one whose errors are not finite keeps its weights, and has the
    error NaN.

    Args:
        parent: That is imitated.
        tasks: What is trained.
        batches: Images in [0, 1], at least `steps` batches.
        steps: Of the optimizers, in which the rate falls linearly to 0.
        seed: Of which forms come when.

    Raises:
        ValueError: If there are fewer batches.
    """
    weights = [list(task.entry.weights.values()) for task in tasks]
    # One for all: it treats each weight by itself, and none that has no gradient.
    optimizer = torch.optim.AdamW(chain.from_iterable(weights), lr=RATE, fused=True)
    errors = np.full((len(tasks), steps), np.nan)
    draws = [np.random.default_rng(seed) for _ in tasks]  # one each: forms do not depend on who else is there
    done = 0
    for step, images in enumerate(islice(batches, steps)):
        done, seen = step + 1, parent.look(images)
        optimizer.zero_grad()
        for number, (task, own, rng) in enumerate(zip(tasks, weights, draws, strict=True)):
            turn = 0 if step % TURNS == 0 else int(rng.integers(len(task.forms)))
            error = task.entry.error(task.forms[turn], seen)
            if not bool(torch.isfinite(error)):
                continue
            error.backward()
            gradients = [value.grad for value in own if value.grad is not None]
            if bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
                errors[number, step] = float(error.detach())
                continue
            for value in own:
                value.grad = None
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        optimizer.step()
    if done < steps:
        raise ValueError(f"{steps} steps need as many batches, not {done}")
    tail = errors[:, -max(round(steps * LAST), 1) :]
    return [float(np.mean(row[np.isfinite(row)])) if np.isfinite(row).any() else float("nan") for row in tail]

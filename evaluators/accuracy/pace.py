"""How long an epoch takes, predicted from the first batches of a training."""

from __future__ import annotations

from evaluators.evaluation import Pace

WARM_UP_STEPS = 2  # imports, allocations, the choice of kernels: they take up to twice as long as others
MIN_STEPS, MIN_S = 3, 2.0  # that are timed: an epoch that has no more tells soon itself


class PaceMeter:
    """Times the first batches of an epoch, until they tell how long it takes.

    Args:
        epoch_steps: Batches in the epoch.
    """

    def __init__(self, epoch_steps: int):
        self._epoch_steps, self._from_s = epoch_steps, 0.0
        self._known = False

    def begin_step(self, number: int, at_s: float) -> Pace | None:
        """The pace, once and as soon as it is known.

        Args:
            number: Of the batch that begins, counted from 0: so many have ended.
            at_s: Now, on a clock that stands still while the training waits.
        """
        if number == WARM_UP_STEPS:
            self._from_s = at_s
        steps, seconds = number - WARM_UP_STEPS, at_s - self._from_s
        if self._known or steps < MIN_STEPS or seconds < MIN_S:
            return None
        self._known = True
        return Pace(steps, self._epoch_steps, seconds)

"""Which targets can be measured on now, from how measurements there ended. Decisions only: the caller has the clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evaluators.errors import AWAY
from evaluators.evaluation import Failure

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
GIVE_UP_S = 1800.0  # a device that has been away for so long, with nothing else to do, ends the search
SUSPICIOUS = frozenset({"timeout", "crash", "oom", "garbage"})
SUSPECT_AFTER = 2  # such failures in a row: the network's fault once, the device's perhaps


@dataclass(frozen=True)
class Device:
    """How a target stands.

    Attributes:
        away_since: When it first failed, if it has not answered since.
        until: When to try it again.
        reason: What it said last.
        failures: Suspicious ones in a row, of networks that may be to blame themselves.
    """

    away_since: float | None = None
    until: float = 0.0
    reason: str = ""
    failures: int = 0


def after_failure(device: Device, failure: Failure, now: float, checked: bool = False) -> Device:
    """How it stands after a failure.

    Args:
        device: As it stood.
        failure: What happened.
        now: Seconds of any clock.
        checked: Whether it was the reference model that failed: then the device is to blame, whatever the cause.
    """
    if checked or failure.cause in AWAY:
        since = now if device.away_since is None else device.away_since
        pause = FIRST_PAUSE_S if device.away_since is None else min(2 * (now - since) + FIRST_PAUSE_S, LONGEST_PAUSE_S)
        return Device(since, now + pause, failure.message)
    if failure.cause in SUSPICIOUS:
        return replace(device, failures=device.failures + 1)
    return device


def is_suspect(device: Device) -> bool:
    """Whether the reference model should be measured before anything else is."""
    return device.failures >= SUSPECT_AFTER


def is_ready(device: Device, now: float) -> bool:
    """Whether it may be measured on."""
    return not is_suspect(device) and now >= device.until


def is_given_up(device: Device, now: float) -> bool:
    """Whether waiting for it has been long enough."""
    return device.away_since is not None and now - device.away_since > GIVE_UP_S

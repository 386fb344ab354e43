"""Which targets can be measured on now, from how measurements there ended."""

from __future__ import annotations

from dataclasses import replace

from evaluators.errors import AWAY
from evaluators.evaluation import Failure
from storage import Device

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
GIVE_UP_S = 1800.0  # a device that has been away for so long, with nothing else to do, ends the search
SUSPICIOUS = frozenset({"timeout", "crash", "oom", "garbage"})
SUSPECT_AFTER = 2  # such failures in a row: the network's fault once, the device's perhaps


def after_failure(device: Device, failure: Failure, now_s: float, checked: bool = False) -> Device:
    """How it stands after a failure.

    Args:
        device: As it stood.
        failure: What happened.
        now_s: Time of the search.
        checked: Whether it was the reference model that failed: then the device is to blame, whatever the cause.
    """
    if checked or failure.cause in AWAY:
        since = now_s if device.away_since_s is None else device.away_since_s
        pause_s = FIRST_PAUSE_S
        if device.away_since_s is not None:
            pause_s = min(2 * (now_s - since) + FIRST_PAUSE_S, LONGEST_PAUSE_S)
        return Device(since, now_s + pause_s, failure.message)
    if failure.cause in SUSPICIOUS:
        return replace(device, failures=device.failures + 1)
    return device


def is_suspect(device: Device) -> bool:
    """Whether the reference model should be measured before anything else is."""
    return device.failures >= SUSPECT_AFTER


def is_ready(device: Device, now_s: float) -> bool:
    """Whether it may be measured on."""
    return not is_suspect(device) and now_s >= device.until_s


def is_given_up(device: Device, now_s: float) -> bool:
    """Whether waiting for it has been long enough."""
    return device.away_since_s is not None and now_s - device.away_since_s > GIVE_UP_S

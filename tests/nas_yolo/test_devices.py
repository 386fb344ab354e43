from __future__ import annotations

import pytest

from evaluators.evaluation import Failure
from nas_yolo.devices import GIVE_UP_S, LONGEST_PAUSE_S, Device, after_failure, is_given_up, is_ready, is_suspect

GONE = Failure("unreachable", "no route to host", target="jetson")
HANG = Failure("timeout", "measuring did not end", target="jetson")


@pytest.mark.parametrize("cause", ["unreachable", "device_busy", "throttled", "drifted", "disk_full"])
def test_a_device_that_is_away_is_left_alone_for_a_while(cause: str) -> None:
    device = after_failure(Device(), Failure(cause, "why"), now_s=100.0)
    assert not is_ready(device, 100.0)
    assert not is_suspect(device)
    assert device.reason == "why"
    assert is_ready(device, device.until_s)


def test_pauses_grow_up_to_a_bound() -> None:
    device, now, pauses = Device(), 0.0, []
    for _ in range(10):
        device = after_failure(device, GONE, now)
        pauses.append(device.until_s - now)
        now = device.until_s
    assert pauses == sorted(pauses)
    assert pauses[0] < 20
    assert pauses[-1] == LONGEST_PAUSE_S


def test_it_is_given_up_after_half_an_hour_without_an_answer() -> None:
    device = after_failure(Device(), GONE, now_s=0.0)
    device = after_failure(device, GONE, now_s=1000.0)
    assert not is_given_up(device, GIVE_UP_S)
    assert is_given_up(device, GIVE_UP_S + 1)
    assert not is_given_up(Device(), 1e9)


def test_a_network_that_hangs_does_not_discredit_the_device_but_two_in_a_row_do() -> None:
    once = after_failure(Device(), HANG, now_s=0.0)
    assert is_ready(once, 0.0)
    twice = after_failure(once, HANG, now_s=1.0)
    assert is_suspect(twice)
    assert not is_ready(twice, 1e9)  # nothing else before the reference was measured


def test_the_reference_failing_means_the_device_is_away_whatever_the_cause() -> None:
    suspect = after_failure(after_failure(Device(), HANG, 0.0), HANG, 1.0)
    device = after_failure(suspect, HANG, now_s=5.0, checked=True)
    assert device.away_since_s == 5.0
    assert not is_suspect(device)
    assert not is_ready(device, 5.0)


@pytest.mark.parametrize("cause", ["build", "export", "nan", "unsupported", "config_mismatch"])
def test_what_is_the_networks_own_fault_says_nothing_of_the_device(cause: str) -> None:
    assert after_failure(Device(), Failure(cause, "why"), now_s=0.0) == Device()

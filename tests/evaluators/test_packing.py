from __future__ import annotations

import json

import pytest

from evaluators.packing import (
    CONTEXT_BYTES,
    HEADROOM,
    Packing,
    Run,
    best_count,
    next_count,
    room,
    tensor_share,
    trainings_at_once,
)

GIB = 2**30


def runs(*rates: float, failed: bool = False) -> list[Run]:
    """Of 1, 2, 4, ... trainings; the last one out of memory if `failed`."""
    measured = [Run(2**i, rate) for i, rate in enumerate(rates)]
    if failed:
        measured[-1] = Run(measured[-1].trainings, rates[-1], failures=("out of memory",))
    return measured


def packing(*measured: Run, largest: Run | None = None, limit: int = 8) -> Packing:
    return Packing("a GPU", 80 * GIB, measured, largest, limit, "memory")


@pytest.mark.parametrize(
    ("rates", "limit", "count"),
    [
        ((100,), 8, 1),
        ((100, 190, 310, 320), 8, 4),  # the smallest that is within 5 % of the best
        ((100, 190, 310, 330), 8, 8),
        ((100, 104), 8, 1),
        ((100, 90), 8, 1),
        ((100, 190, 310), 2, 2),  # there is no room for the faster one
        ((0,), 8, 1),
    ],
)
def test_the_smallest_number_near_the_best_throughput_is_chosen(
    rates: tuple[float, ...], limit: int, count: int
) -> None:
    assert best_count(runs(*rates), limit) == count


def test_a_number_at_which_one_failed_is_never_chosen() -> None:
    assert best_count(runs(100, 190, 400, failed=True), 8) == 2
    assert best_count(runs(100, failed=True), 8) == 1


@pytest.mark.parametrize(
    ("rates", "limit", "following"),
    [((), 8, 1), ((100,), 8, 2), ((100, 190), 8, 4), ((100, 190), 3, 3), ((100, 190), 2, None), ((100,), 1, None)],
)
def test_the_number_doubles_up_to_the_room(rates: tuple[float, ...], limit: int, following: int | None) -> None:
    assert next_count(runs(*rates), limit) == following


@pytest.mark.parametrize("last", [80, 104])
def test_growth_ends_where_more_at_once_are_no_faster(last: float) -> None:
    assert next_count(runs(100, last), 8) is None


def test_growth_ends_with_the_first_out_of_memory() -> None:
    assert next_count(runs(100, 190, failed=True), 8) is None


@pytest.mark.parametrize(
    ("cores", "gpus", "memory", "largest", "expected"),
    [
        (16, 1, 80 * GIB, 4 * GIB, (8, "cores")),
        (64, 1, 24 * GIB, 4 * GIB, (4, "memory")),
        (64, 1, 4 * GIB, 4 * GIB, (1, "memory")),
        (64, 1, 80 * GIB, None, (1, "memory")),  # not even one fits
        (16, 4, 80 * GIB, 4 * GIB, (2, "cores")),
        (1, 1, 80 * GIB, 4 * GIB, (1, "cores")),
        (8, 1, None, None, (4, "cores")),
    ],
)
def test_cores_and_memory_bound_the_number(
    cores: int, gpus: int, memory: int | None, largest: int | None, expected: tuple[int, str]
) -> None:
    assert room(cores, gpus, memory, largest) == expected


@pytest.mark.parametrize("trainings", [2, 3, 7])
@pytest.mark.parametrize("memory", [4 * GIB, 24 * GIB, 141 * GIB])
def test_the_largest_network_fits_into_the_share_of_its_process(memory: int, trainings: int) -> None:
    largest = int((memory / trainings - CONTEXT_BYTES) / HEADROOM)
    count, _ = room(1000, 1, memory, largest)
    assert count >= trainings - 1  # rounding down may cost one
    for n in range(2, count + 1):
        assert tensor_share(1 / n, memory) * memory >= largest


def test_the_tensors_of_all_processes_and_their_contexts_fit_together() -> None:
    for n in (2, 3, 7, 16):
        assert n * (tensor_share(1 / n, 24 * GIB) * 24 * GIB + CONTEXT_BYTES) <= 24.001 * GIB
    assert tensor_share(0.1, 4 * GIB) > 0


@pytest.mark.parametrize(
    ("gpus", "share", "at_once"), [(1, 1.0, 1), (2, 1.0, 2), (2, 0.4, 4), (1, 0.5, 2), (4, 2.0, 2), (1, 8.0, 1)]
)
def test_no_training_has_parts_of_two_gpus(gpus: int, share: float, at_once: int) -> None:
    assert trainings_at_once(gpus, share) == at_once


def test_so_many_shares_as_were_made_fit_on_each_gpu() -> None:
    assert all(trainings_at_once(gpus, 1 / n) == gpus * n for n in range(1, 200) for gpus in (1, 8))


def test_what_was_measured_is_kept_as_plain_data() -> None:
    found = packing(Run(1, 100.0, (GIB,)), Run(2, 190.0, (GIB, GIB)), largest=Run(1, 50.0, (4 * GIB,)))
    document = json.loads(json.dumps(found.document()))
    assert Packing.from_document(document) == found
    assert (document["trainings"], document["gain"]) == (2, 1.9)


def test_one_line_says_what_is_gained_or_why_nothing_is() -> None:
    assert str(packing(*runs(100, 190, 310))) == (
        "4 trainings at once on each GPU: 3.1 times the images a second of one at a time"
    )
    assert str(packing(*runs(100, 90))).endswith("two at once were not faster")
    assert str(packing(*runs(100), limit=1)).endswith("no room for two (memory)")
    assert "out of memory" in str(packing(*runs(100, 190, failed=True)))
    assert "out of memory" in str(packing(*runs(100), largest=Run(1, 0.0, failures=("out of memory",)), limit=1))

from __future__ import annotations

import pytest

from nas_yolo.budget import MAX_RESERVE, RESERVE, BudgetError, Spending, parse_budget
from storage import Spent


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("50gpu-h", "gpu", 180_000),
        ("2cpu-h", "cpu", 7200),
        ("90gpu-min", "gpu", 5400),
        ("8h", "wall", 28_800),
        ("30min", "wall", 1800),
        ("0.5h", "wall", 1800),
        (".5h", "wall", 1800),
        ("45s", "wall", 45),
        (" 8 H ", "wall", 28_800),
        ("200trials", "trials", 200),
        ("1trial", "trials", 1),
    ],
)
def test_what_can_be_read(text: str, kind: str, limit: float) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.limit) == (kind, limit)
    assert parse_budget(budget.text) == budget


@pytest.mark.parametrize("text", ["", "8", "h", "8 days", "gpu-h", "8hh", "1e3h", "nan h", "8h 30min", "infh", "--8h"])
def test_what_cannot(text: str) -> None:
    with pytest.raises(BudgetError, match="50gpu-h"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["0h", "0trials", "-1h", "0.0gpu-h", "-5trials"])
def test_nothing_or_less_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="more than 0"):
        parse_budget(text)


def test_half_a_trial_is_refused() -> None:
    with pytest.raises(BudgetError, match="whole number"):
        parse_budget("2.5trials")


def test_shown_in_the_users_unit() -> None:
    assert parse_budget("2h").shown(Spent(wall_seconds=1800), 3) == {"limit": 2, "spent": 0.5, "unit": "h"}
    assert parse_budget("1gpu-h").shown(Spent(gpu_seconds=900), 3)["spent"] == 0.25
    assert parse_budget("9trials").shown(Spent(), 3) == {"limit": 9, "spent": 3, "unit": "trials"}


def spending(*texts: str, spent: Spent, **more: object) -> Spending:
    return Spending([parse_budget(text) for text in texts], spent, trials=5, **more)  # type: ignore[arg-type]


def test_wall_time_is_shared_by_running_trainings_and_device_time_is_not() -> None:
    wall = spending("100s", spent=Spent(wall_seconds=40), committed_seconds=(50.0,))
    assert wall.fits(60)
    assert not wall.fits(61)
    cpu = spending("100cpu-s", spent=Spent(cpu_seconds=40), committed_seconds=(50.0,), cpus=1)
    assert cpu.fits(10)
    assert not cpu.fits(11)
    gpu = spending("100gpu-s", spent=Spent(gpu_seconds=40), committed_seconds=(50.0,), gpus=0.5)
    assert gpu.fits(70)
    assert not gpu.fits(71)


def test_how_long_what_runs_may_keep_running() -> None:
    spent = Spent(wall_seconds=40, gpu_seconds=10, cpu_seconds=20)
    assert spending("100s", spent=spent).seconds_left == 60
    running = {"committed_seconds": (9.0, 9.0), "gpus": 0.5, "cpus": 2.0, "measuring": 1}
    assert spending("100gpu-s", spent=spent, **running).seconds_left == 90
    assert spending("100cpu-s", spent=spent, **running).seconds_left == 16
    assert spending("100s", "100cpu-s", spent=spent, **running).seconds_left == 16
    assert spending("9trials", "100gpu-s", spent=spent).seconds_left == float("inf")


def test_a_reserve_is_kept() -> None:
    wall = spending("100s", spent=Spent(wall_seconds=40))
    assert wall.fits(30, keep=0.3)
    assert not wall.fits(31, keep=0.3)


def test_the_reserve_grows_with_what_one_completion_takes_up_to_a_bound() -> None:
    wall = spending("100s", spent=Spent())
    assert wall.reserve(10) == RESERVE
    assert wall.reserve(50) == 0.5
    assert wall.reserve(500) == MAX_RESERVE


def test_the_reserve_holds_repeats_besides() -> None:
    wall = spending("100s", spent=Spent())
    assert wall.reserve(10, 10) == pytest.approx(RESERVE + 0.1)
    assert wall.reserve(50, 10) == pytest.approx(0.6)
    assert wall.reserve(50, 50) == MAX_RESERVE


def test_two_trainings_are_repeated_where_that_takes_a_tenth_of_every_limit_at_most() -> None:
    assert spending("100s", spent=Spent()).repeats(5) == 2
    assert spending("100s", spent=Spent()).repeats(5.01) == 0
    assert spending("100s", "50cpu-s", spent=Spent(), cpus=1.0).repeats(5) == 0
    assert spending("100cpu-s", spent=Spent(), cpus=2.0).repeats(2.5) == 2
    assert spending("100cpu-s", spent=Spent(), cpus=2.0).repeats(2.6) == 0
    assert spending("100s", "9trials", spent=Spent()).repeats(5) == 2
    assert [spending(f"{limit}trials", spent=Spent()).repeats(5) for limit in (66, 67)] == [0, 2]


def test_the_first_limit_to_run_out_ends_the_search() -> None:
    assert spending("100s", "1gpu-h", spent=Spent(wall_seconds=100)).exhausted
    assert not spending("100s", "1gpu-h", spent=Spent(wall_seconds=99)).exhausted
    assert not spending("100s", "5trials", spent=Spent()).exhausted
    assert not spending("100s", "5trials", spent=Spent()).trials_left
    assert spending("100s", "6trials", spent=Spent()).trials_left


@pytest.mark.parametrize(
    ("text", "seconds", "said"),
    [("8h", 40_000, "12h"), ("30min", 600, "10min"), ("0.5gpu-h", 3601, "1.1gpu-h"), ("90s", 5, "5s")],
)
def test_a_budget_that_would_do_is_said_in_the_users_unit_and_rounded_up(text: str, seconds: float, said: str) -> None:
    assert parse_budget(text).of(seconds) == said

"""What a search learns from earlier ones: from their rows in the database to the engine's decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas_yolo.application import make_config
from nas_yolo.config import SearchConfig
from nas_yolo.pareto import hypervolume
from nas_yolo.samplers import Earlier, Grid, Observation
from nas_yolo.samplers._outlook import bounded
from nas_yolo.samplers.frontier import Frontier
from nas_yolo.warm_start import earlier_designs, standings
from search_spaces import Architecture
from storage import Repository, Search


@pytest.mark.parametrize("seed", range(20))
def test_standings_do_not_depend_on_the_order_of_trials(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reached = [tuple(rng.random(rng.integers(1, 4))) for _ in range(rng.integers(1, 30))]
    order = rng.permutation(len(reached))
    shuffled = standings([reached[i] for i in order])
    assert np.isfinite(shuffled).all()
    assert shuffled == pytest.approx(standings(reached)[order])


def test_what_stopped_early_is_carried_on_to_the_end_as_the_others_went() -> None:
    complete = [(0.1, 0.3), (0.2, 0.5), (0.3, 0.7)]
    stood = standings([*complete, (0.05,), (0.25,), (0.4,)])
    assert np.argsort(stood).tolist() == [3, 0, 1, 4, 2, 5]


def test_before_enough_are_complete_all_are_compared_by_what_they_showed_first() -> None:
    stood = standings([(0.3, 0.4), (0.1, 0.9), (0.2,)])
    assert np.argsort(stood).tolist() == [1, 2, 0]


def everything(architecture: Architecture) -> tuple[int, ...] | None:
    return (len(architecture.document),)


def again(finished: tuple[Repository, Search], name: str, few_digits: Path, space: str = "yolov8n") -> Search:
    repository, _ = finished
    config = make_config(
        data=str(few_digits), targets=("cpu",), budgets=("2h",), space=space, imgsz=64, epochs=3, runner="local"
    )
    return repository.create_search(name, config.document())


def test_all_trained_trials_of_earlier_searches_are_found(
    finished: tuple[Repository, Search], few_digits: Path
) -> None:
    repository, first = finished
    found = earlier_designs(repository, again(finished, "second", few_digits), everything)
    assert [one.same_data for one in found] == [True] * 3  # the fourth has not come to its first rung
    assert [one.regret == 0 for one in found] == [False, True, True]  # stock is beaten by a faster, better net
    assert found[2].standing > found[1].standing > found[0].standing
    assert earlier_designs(repository, first, everything) == []  # nothing came before it


def test_other_images_are_told_apart_and_other_families_left_out(
    finished: tuple[Repository, Search], few_digits: Path
) -> None:
    repository, _ = finished
    second = again(finished, "second", few_digits)
    dataset = second.config["dataset"] | {"fingerprint": "other"}
    elsewhere = replace(second, config=second.config | {"dataset": dataset})
    assert not any(one.same_data for one in earlier_designs(repository, elsewhere, everything))
    assert earlier_designs(repository, again(finished, "third", few_digits, "yolo11n"), everything) == []
    assert earlier_designs(repository, second, lambda architecture: None) == []


def test_a_config_of_before_there_was_a_warm_start_goes_on_without(finished: tuple[Repository, Search]) -> None:
    document = {key: value for key, value in finished[1].config.items() if key != "warm_start"}
    assert SearchConfig.from_document(finished[1].config).warm_start
    assert not SearchConfig.from_document(document).warm_start


GRID = Grid({f"P{level}.block": tuple("abcdef") for level in range(2, 8)})
WEIGHTS = np.random.default_rng(3).normal(size=(6, 6))
TIMES = np.random.default_rng(4).uniform(1, 4, size=(6, 6))
COSTS = (1, 5)


def truth(codes: tuple[int, ...]) -> tuple[float, float]:
    """Latency in ms, final accuracy: additive, with neighbours that get on with one another or do not."""
    places = np.arange(6)
    pairs = 0.7 * np.sin(2 * np.array(codes[1:]) + 3 * np.array(codes[:-1])).sum()
    return float(TIMES[places, codes].sum()), float(1 / (1 + np.exp(-0.4 * (WEIGHTS[places, codes].sum() + pairs))))


def reached(seed: int, trainings: int, earlier: list[Earlier]) -> tuple[float, list[Observation]]:
    """Hypervolume after so many first rungs' worth of training, and all trials."""
    engine, seen, spent = Frontier(GRID, COSTS, seed, earlier=earlier), list[Observation](), 0
    while spent < trainings:
        tried = {one.codes for one in seen}
        while engine.wants(seen, 1):
            codes = next(codes for codes in engine.candidates(seen) if codes not in tried)
            tried.add(codes)
            seen.append(Observation(codes, (truth(codes)[0],)))
        number = engine.order(seen)[0]
        final = truth(seen[number].codes)[1]
        shown = (0.5 * final,) if not seen[number].accuracies else (0.5 * final, final)
        spent += COSTS[0] if len(shown) == 1 else COSTS[1] - COSTS[0]
        seen[number] = replace(seen[number], accuracies=shown, over=len(shown) == 2)
    done = [one for one in seen if len(one.accuracies) == 2]
    return hypervolume([one.latencies_ms[0] for one in done], [one.accuracies[1] for one in done], 20.0, 0.4), seen


def known_from(seen: list[Observation], shuffle: bool = False) -> list[Earlier]:
    trained = [one for one in seen if one.accuracies]
    stood = standings([one.accuracies for one in trained])
    if shuffle:
        stood = np.random.default_rng(0).permutation(stood)
    return [Earlier(one.codes, float(value), -float(value), True) for one, value in zip(trained, stood, strict=True)]


@pytest.fixture(scope="module")
def before() -> list[Observation]:
    return reached(100, 120, [])[1]


def test_an_earlier_search_makes_the_next_one_better(before: list[Observation]) -> None:
    cold = [reached(seed, 20, [])[0] for seed in range(4)]
    warm = [reached(seed, 20, known_from(before))[0] for seed in range(4)]
    assert np.mean(warm) > np.mean(cold) + 0.02


def test_an_earlier_search_that_misleads_is_overruled(before: list[Observation]) -> None:
    cold = [reached(seed, 60, [])[0] for seed in range(2)]
    misled = [reached(seed, 60, known_from(before, shuffle=True))[0] for seed in range(2)]
    assert np.mean(misled) > 0.9 * np.mean(cold)


def test_the_best_of_an_earlier_search_are_tried_first(before: list[Observation]) -> None:
    known = known_from(before)
    first = next(iter(Frontier(GRID, COSTS, 0, earlier=known).candidates([])))
    assert first == max(known, key=lambda one: one.standing).codes


def test_what_is_kept_of_many_earlier_designs_is_bounded_and_the_best_of_it() -> None:
    many = [Earlier((i,), float(-i), float(i), i % 3 > 0) for i in range(6000)]
    kept = bounded(list(reversed(many)))
    assert [one.same_data for one in kept] == [True] * 1000 + [False] * 1000
    assert [one.regret for one in kept[:4]] == [1.0, 2.0, 4.0, 5.0]
    assert kept[999].regret > 5000  # and of the others some from all over
    assert bounded(many[:9]) == sorted(many[:9], key=lambda one: (not one.same_data, one.regret))

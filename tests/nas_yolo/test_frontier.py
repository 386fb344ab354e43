"""The engine: its closed forms against simulation, its model, its decisions."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nas_yolo.pareto import hypervolume
from nas_yolo.samplers import Grid, Observation
from nas_yolo.samplers._acquisition import acquisition, expected_improvement, step_front
from nas_yolo.samplers._outlook import first_designs
from nas_yolo.samplers._surrogate import Belief, Surrogate
from nas_yolo.samplers.frontier import Frontier

GRID = Grid({f"P{level}.block": tuple("abcde") for level in range(2, 7)})
COSTS = (1, 9)
QUALITY = np.array([0.0, 0.5, 1.0, 1.6, 2.0])
TIME = np.array([1.0, 1.5, 2.0, 4.0, 5.0])


def truth(codes: tuple[int, ...]) -> tuple[float, tuple[float, float]]:
    """Latency in ms and accuracy at both fidelities."""
    quality = QUALITY[list(codes)] @ [1.0, 1.2, 0.8, 1.0, 0.5]
    final = 0.6 * (1 - np.exp(-0.3 * quality))
    return float(TIME[list(codes)].sum()), (float(0.5 * final + 0.01 * (codes[0] - 2)), float(final))


def run(seed: int, budget: int, slots: int = 1, fresh: bool = False, reverse: bool = False) -> list[Observation]:
    """Search with simulated trainings that all take as long as they cost; `fresh`: a new engine for each decision."""
    engine, seen, spent = Frontier(GRID, COSTS, seed), list[Observation](), 0
    while True:
        while sum(one.coming_fidelity is not None for one in seen) < slots:
            engine = Frontier(GRID, COSTS, seed) if fresh else engine
            tried = {one.codes for one in seen}
            while engine.wants(seen, slots):
                codes = next(c for c in engine.candidates(seen) if c not in tried)
                tried.add(codes)
                seen.append(Observation(codes, (truth(codes)[0],)))
            number = engine.order(seen)[0]
            seen[number] = replace(seen[number], coming_fidelity=len(seen[number].accuracies))
        running = [i for i, one in enumerate(seen) if one.coming_fidelity is not None]
        for number in reversed(running) if reverse else running:  # all end at once
            one = seen[number]
            assert one.coming_fidelity is not None
            spent += COSTS[one.coming_fidelity] - (COSTS[0] if one.coming_fidelity else 0)
            accuracies = truth(one.codes)[1][: one.coming_fidelity + 1]
            seen[number] = replace(one, coming_fidelity=None, accuracies=accuracies, over=one.coming_fidelity == 1)
        if spent >= budget:
            return seen


def reached(seen: list[Observation]) -> float:
    done = [one for one in seen if len(one.accuracies) == 2]
    return hypervolume([one.latencies_ms[0] for one in done], [one.accuracies[1] for one in done], 22.0, 0.2)


# The closed forms ---------------------------------------------------------------------------------------------------


def random_front(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.uniform(0.0, 3.0, size), rng.uniform(0.0, 1.0, size)


@pytest.mark.parametrize("size", [0, 1, 5, 30])
def test_the_expected_improvement_is_that_of_simulated_outcomes(size: int) -> None:
    rng = np.random.default_rng(size)
    latencies, accuracies = random_front(rng, size)
    front = step_front(latencies, accuracies, (2.5, 0.3))
    before = hypervolume(np.exp(latencies), accuracies, np.exp(2.5), 0.3)
    for latency, mean, deviation in [(0.2, 0.8, 0.2), (1.4, 0.5, 0.4), (2.4, 0.9, 0.1), (2.6, 0.9, 0.1)]:
        draws = rng.normal(mean, deviation, 3000)
        gains = [
            hypervolume(np.exp(np.append(latencies, latency)), np.append(accuracies, draw), np.exp(2.5), 0.3) - before
            for draw in draws
        ]
        error = 5 * np.std(gains) / len(gains) ** 0.5
        found = expected_improvement(front, np.array([latency]), np.array([mean]), np.array([deviation]))
        assert abs(found[0] - np.mean(gains)) <= error + 1e-12


def belief(mean: float, together: float, noise: float = 0.01) -> Belief:
    covariance = np.array([[1.0, together], [together, 1.0]])[:, :, None]
    return Belief(np.array([[0.0], [mean]]), covariance, np.array([noise, 0.0]))


def acquisition_of(now: Belief, reached: int = -1, low_cost: float = 0.1) -> float:
    front = step_front(np.array([0.0]), np.array([0.0]), (1.0, -1.0))
    return float(acquisition([front], np.array([[0.5]]), now, reached, np.array([low_cost, 1.0]))[0])


def test_a_low_fidelity_is_worth_its_cost_only_if_it_tells_something() -> None:
    straight = acquisition_of(belief(-1.0, 0.0))
    assert acquisition_of(belief(-1.0, 0.9)) > 1.5 * straight  # it pays to look first
    assert acquisition_of(belief(-1.0, 0.9), low_cost=0.9) == pytest.approx(straight, rel=0.05)  # but not at that price
    assert acquisition_of(belief(-1.0, 0.5)) < acquisition_of(belief(-1.0, 0.9))


def test_what_was_paid_is_not_paid_again() -> None:
    assert acquisition_of(belief(0.5, 0.8), reached=0) == pytest.approx(acquisition_of(belief(0.5, 0.0)) / 0.9)


def test_the_worth_of_a_plan_is_that_of_its_best_simulated_rule() -> None:
    rng = np.random.default_rng(0)
    together, noise, mean, cost = 0.8, 0.01, -0.5, 0.1
    seen = rng.normal(0, (1 + noise) ** 0.5, 200_000)
    then = mean + together / (1 + noise) * seen
    rest = np.full_like(then, (1 - together**2 / (1 + noise)) ** 0.5)
    front = step_front(np.array([0.0]), np.array([0.0]), (1.0, -1.0))
    gains = expected_improvement(front, np.full_like(then, 0.5), then, rest)
    shares = np.linspace(0.02, 1.0, 50)
    rates = [np.mean(gains * (then >= np.quantile(then, 1 - s))) / (cost + (1 - cost) * s) for s in shares]
    assert acquisition_of(belief(mean, together, noise)) == pytest.approx(max(rates), rel=0.08)  # by nine outcomes


def test_targets_add_up() -> None:
    front = step_front(np.array([0.0]), np.array([0.0]), (1.0, -1.0))
    costs, now = np.array([0.1, 1.0]), belief(0.0, 0.5)
    one = acquisition([front], np.array([[0.5]]), now, -1, costs)
    both = acquisition([front, front], np.array([[0.5], [0.5]]), now, -1, costs)
    assert both == pytest.approx(2 * one)


# The model ----------------------------------------------------------------------------------------------------------


def noisy(rng: np.random.Generator, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    points = rng.uniform(-1, 1, (count, 2))
    return [points, points[:, :1] ** 2], np.sin(3 * points[:, 0]) + points[:, 1]


def test_the_model_predicts_and_knows_how_well() -> None:
    rng = np.random.default_rng(0)
    features, values = noisy(rng, 60)
    model = Surrogate(2)
    model.fit(features, np.zeros(60, dtype=np.int64), values)
    beliefs = model.condition(features, np.zeros(60, dtype=np.int64), values)
    others, expected = noisy(rng, 400)
    found = beliefs.predict(others)
    error = found.mean[0] - expected
    assert np.sqrt(np.mean(error**2)) < 0.1
    z = error / np.sqrt(found.covariance[0, 0] + found.noise[0])
    assert 0.1 < z.std() < 1.7  # of values without noise


def test_a_low_fidelity_helps_where_the_high_one_is_unknown() -> None:
    rng = np.random.default_rng(1)
    features, values = noisy(rng, 80)
    low = values + 0.3 * features[0][:, 1]
    errors = []
    others, expected = noisy(rng, 400)
    for count in (0, 80):
        pairs = [np.concatenate([group[:count], group[:8]]) for group in features]
        fidelity = np.repeat([0, 1], [count, 8])
        both = np.concatenate([low[:count], values[:8]])
        model = Surrogate(2, 2)
        model.fit(pairs, fidelity, both)
        beliefs = model.condition(pairs, fidelity, both)
        errors.append(np.sqrt(np.mean((beliefs.predict(others).mean[1] - expected) ** 2)))
    assert errors[1] < 0.6 * errors[0]


def test_beliefs_are_averaged_over_what_is_plausible() -> None:
    rng = np.random.default_rng(2)
    features, values = noisy(rng, 8)
    model = Surrogate(2, draws=3)
    model.fit(features, np.zeros(8, int), values)
    beliefs = model.condition(features, np.zeros(8, int), values)
    elsewhere, _ = noisy(rng, 50)
    sure, averaged = beliefs.sketch(elsewhere), beliefs.predict(elsewhere)
    assert np.allclose(beliefs.expect(elsewhere), sure.mean, atol=1e-4)  # in single precision
    assert np.mean(averaged.covariance[0, 0]) > np.mean(sure.covariance[0, 0])
    assert np.corrcoef(averaged.mean[0], sure.mean[0])[0, 1] > 0.9


def test_the_mean_of_each_fidelity_is_linear_in_the_last_group() -> None:
    choices = np.random.default_rng(0).random((20, 3))
    time = np.linspace(-1, 1, 20)[:, None]
    values, zeros = 2 + 3 * time[:, 0], np.zeros(20, int)
    model = Surrogate(2)
    beliefs = model.condition([choices, time], zeros, values)
    far = beliefs.predict([np.full((1, 3), 9.0), np.array([[4.0]])])  # where nothing near is known
    assert far.mean[0, 0] == pytest.approx(2 + 3 * 4, rel=0.25)
    assert far.covariance[0, 0, 0] > 1


def test_what_makes_low_accuracies_poor_is_expected_of_high_ones() -> None:
    choices = np.random.default_rng(0).random((8, 3))
    time = np.linspace(-1, 1, 8)[:, None]
    beliefs = Surrogate(2, 2).condition([choices, time], np.zeros(8, int), 1.5 * time[:, 0])  # nothing high is known
    slow, fast = np.array([[0.5, 0.5, 0.5]] * 2), np.array([[0.9], [-0.9]])
    found = beliefs.predict([slow, fast])
    assert found.mean[1, 0] - found.mean[1, 1] > 1
    assert np.all(found.covariance[1, 1] > 1.2 * found.covariance[0, 0])  # but not taken for certain


def test_the_gradient_of_the_fit_is_right() -> None:
    from scipy.optimize import check_grad

    rng = np.random.default_rng(2)
    features, values = noisy(rng, 25)
    found = {}

    def spy(cost: object, start: np.ndarray, **_: object) -> object:
        found["error"] = check_grad(lambda t: cost(t)[0], lambda t: cost(t)[1], start + 0.1)  # type: ignore[operator]
        found["size"] = np.linalg.norm(cost(start + 0.1)[1])  # type: ignore[operator]
        return type("Result", (), {"fun": np.inf, "x": start})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas_yolo.samplers._surrogate.minimize", spy)
        Surrogate(2, 3).fit(features, rng.integers(3, size=25), values)
    assert found["error"] < 1e-4 * found["size"]


def test_the_start_follows_from_what_a_low_fidelity_costs() -> None:
    count = [first_designs(np.array([cost, 1.0])) for cost in (0.01, 12 / 200, 1 / 9, 1 / 3, 1 / 2)]
    assert count == [24, 24, 14, 5, 4]
    assert first_designs(np.array([1.0])) == 4


# Decisions ----------------------------------------------------------------------------------------------------------


def test_it_beats_chance() -> None:
    rng = np.random.default_rng(0)
    found, by_chance = [], []
    for seed in range(3):
        found.append(reached(run(seed, 9 * 12)))
        points = [tuple(point) for point in GRID.draw(12, rng).tolist()]
        by_chance.append(reached([Observation(p, (truth(p)[0],), truth(p)[1]) for p in points]))
    assert np.mean(found) > 1.15 * np.mean(by_chance)


def test_a_resumed_search_decides_as_one_that_was_never_stopped() -> None:
    assert run(3, 9 * 5, fresh=True) == run(3, 9 * 5)


def test_the_order_of_simultaneous_reports_does_not_matter() -> None:
    assert run(4, 9 * 6, slots=4) == run(4, 9 * 6, slots=4, reverse=True)


def test_another_process_decides_the_same() -> None:
    code = f"from {__name__.rpartition('.')[2]} import *; print(run(1, 9 * 4))"
    folder = __file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r}); {code}"],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == str(run(1, 9 * 4))


def test_no_two_slots_train_the_same_and_none_is_idle() -> None:
    seen = run(0, 9 * 8, slots=8)
    assert len({one.codes for one in seen}) == len(seen)


def test_what_runs_makes_its_neighbours_worth_less() -> None:
    seen = run(0, 9 * 6)
    engine = Frontier(GRID, COSTS, 0)
    ranked = list(engine.candidates(seen))
    best = ranked[0]
    running = [*seen, Observation(best, (truth(best)[0],), coming_fidelity=0)]
    neighbours = [c for c in ranked[1:] if sum(a != b for a, b in zip(c, best, strict=True)) == 1]
    designs = [Observation(c, (truth(c)[0],)) for c in neighbours]
    before = Frontier(GRID, COSTS, 0)._outlook(seen).acquisition_of(designs)
    after = Frontier(GRID, COSTS, 0)._outlook(running).acquisition_of(designs)
    assert neighbours
    assert np.mean(after) < np.mean(before)


def test_a_limit_on_latency_makes_slower_designs_worthless() -> None:
    seen = run(0, 9 * 6)
    outlook = Frontier(GRID, COSTS, 0, limit_ms=10.0)._outlook(seen)
    slow, fast = Observation((4, 4, 4, 4, 3), (24.0,)), Observation((2, 2, 2, 2, 1), (9.5,))
    assert outlook.acquisition_of([slow])[0] == 0.0
    assert outlook.acquisition_of([fast])[0] > 0.0


def test_a_space_that_was_tried_out_offers_nothing_new() -> None:
    grid = Grid({"a": ("x", "y"), "b": (1, 2, 4)})
    points = [(i, j) for i in range(2) for j in range(3)]
    seen = [Observation(p, (1.0 + p[1],), (0.1 * p[0] + 0.2 * p[1],), over=True) for p in points]
    engine = Frontier(grid, (1,), 0)
    assert [codes for codes in engine.candidates(seen) if codes not in points] == []

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nas_yolo.additive import Additive, Penalty, fit

CHOICES = {"block": ("C2f", "Conv", "Ghost"), "width": (16, 32, 64), "depth": (1, 2), "attention": ("none", "C2PSA")}
START = {name: values[0] for name, values in CHOICES.items()}
GROUP = ("block", "width", "depth")
Design = dict[str, str | int]


def designs(count: int, seed: int) -> list[Design]:
    rng = np.random.default_rng(seed)
    return [{name: values[int(rng.integers(len(values)))] for name, values in CHOICES.items()} for _ in range(count)]


def truth(seed: int, together: float = 0.0) -> Additive:
    """Effects relative to the start."""
    rng = np.random.default_rng(seed)
    effects = {
        (name,): {(value,): float(rng.normal()) * (value != START[name]) for value in values}
        for name, values in CHOICES.items()
    }
    more = {values: together * float(rng.normal()) for values in itertools.product(*(CHOICES[name] for name in GROUP))}
    return Additive(5.0, {**effects, GROUP: more})


def test_a_sum_is_of_the_constant_and_of_what_is_listed() -> None:
    table = Additive(1.0, {("a",): {(1,): 0.5}, ("a", "b"): {(1, "x"): -2.0, (2, "x"): 4.0}})
    assert table.predict({"a": 1, "b": "x"}) == -0.5
    assert table.predict({"a": 1, "b": "y"}) == 1.5
    assert table.predict({"a": 3, "b": "x"}) == 1.0
    with pytest.raises(KeyError, match="b"):
        table.predict({"a": 1})


@pytest.mark.parametrize("seed", range(5))
def test_what_is_additive_is_found_without_noise(seed: int) -> None:
    true, seen = truth(seed), designs(30, seed)
    model = fit(START, seen, [true.predict(one) for one in seen])
    assert model.constant == pytest.approx(5.0, abs=1e-6)
    for (name,), known in model.effects.items():
        assert known == pytest.approx({(value,): true.effects[name,][value,] for value in CHOICES[name]}, abs=1e-6)
    assert model.error.rmse < 1e-6
    assert model.error.tau > 0.99  # equal ones are so but for rounding
    assert model.uncertainty(designs(1, 99)[0]) < 1e-3


@pytest.mark.parametrize("groups", [(), (GROUP,)])
@pytest.mark.parametrize("penalty", [None, Penalty(0.3, 2.0), Penalty(1e-6, 1e-6)])
def test_the_error_is_that_of_fits_to_all_others(groups: tuple[tuple[str, ...], ...], penalty: Penalty | None) -> None:
    true, seen = truth(1, together=0.5), designs(25, 1)
    seen += [{**START, "block": "Only here"}]
    noise = np.random.default_rng(2).normal(0.0, 0.2, len(seen))
    observed = [true.predict(one) + float(e) for one, e in zip(seen, noise, strict=True)]
    model = fit(START, seen, observed, groups, penalty)
    errors = []
    for i in range(25):
        others = fit(START, seen[:i] + seen[i + 1 :], observed[:i] + observed[i + 1 :], groups, model.penalty)
        errors.append(others.predict(seen[i]) - observed[i])
    assert model.error.rmse == pytest.approx(math.sqrt(np.mean(np.square(errors))), rel=1e-4)
    assert model.error.designs == 25
    assert penalty in (None, model.penalty)


def test_the_ridge_is_that_of_its_definition() -> None:
    true, seen = truth(3), designs(12, 3)
    observed = np.array([true.predict(one) for one in seen])
    columns = [(name, value) for name, values in CHOICES.items() for value in values[1:]]
    rows = np.array([[float(one[name] == value) for name, value in columns] for one in seen])
    rows_1 = np.column_stack([np.ones(12), rows])
    expected = np.linalg.solve(rows_1.T @ rows_1 + np.diag([0.0, *[0.7] * len(columns)]), rows_1.T @ observed)
    model = fit(START, seen, observed.tolist(), penalty=Penalty(0.7, 1.0))
    assert model.constant == pytest.approx(expected[0])
    assert [model.effects[name,][value,] for name, value in columns] == pytest.approx(expected[1:].tolist())


def test_noise_is_smoothed_as_much_as_it_takes() -> None:
    true, seen = truth(4), designs(40, 4)
    penalties = []
    for sd in (0.01, 3.0):
        noise = np.random.default_rng(5).normal(0.0, sd, len(seen))
        observed = [true.predict(one) + float(e) for one, e in zip(seen, noise, strict=True)]
        penalties.append(fit(START, seen, observed).penalty.single)
    assert penalties[0] < 0.1 < penalties[1]


def test_what_was_never_seen_is_predicted_as_the_start_and_less_certain() -> None:
    true = truth(6)
    seen = [one for one in designs(60, 6) if one["block"] != "Ghost"]
    noise = np.random.default_rng(6).normal(0.0, 0.1, len(seen))
    model = fit(START, seen, [true.predict(one) + float(e) for one, e in zip(seen, noise, strict=True)], [GROUP])
    for one in designs(20, 7):
        known = {**one, "block": "C2f"}
        unknown = {**one, "block": "Ghost"}
        assert model.predict(unknown) == pytest.approx(
            model.predict(known) - model.effects[GROUP].get(tuple(known[name] for name in GROUP), 0.0)
        )
        assert model.uncertainty(unknown) > 2 * model.uncertainty(known)
    assert set(model.seen["block"]) == {"C2f", "Conv"}
    assert model.seen["block"][0] == "C2f"
    with pytest.raises(KeyError, match="depth"):
        model.uncertainty({"block": "C2f", "width": 16, "attention": "none"})


def test_the_uncertainty_is_that_of_new_observations() -> None:
    ratios = []
    for seed in range(40):
        true, seen = truth(seed), designs(20, seed)
        rng = np.random.default_rng(seed)
        model = fit(START, seen, [true.predict(one) + float(rng.normal(0.0, 0.5)) for one in seen])
        for one in designs(20, seed + 1000):
            observed = true.predict(one) + float(rng.normal(0.0, 0.5))
            ratios.append((observed - model.predict(one)) / model.uncertainty(one))
    assert np.sqrt(np.mean(np.square(ratios))) == pytest.approx(1.0, abs=0.15)


def test_what_choices_add_together_is_found_where_it_was_seen() -> None:
    true, seen = truth(8, together=1.0), designs(200, 8)
    observed = [true.predict(one) for one in seen]
    alone, grouped = fit(START, seen, observed), fit(START, seen, observed, [GROUP])
    assert grouped.error.rmse < 0.1 * alone.error.rmse
    assert grouped.error.tau > alone.error.tau
    few = fit(START, seen[:8], observed[:8], [GROUP])
    combinations = {tuple(one[name] for name in GROUP) for one in seen[:8]}
    assert set(few.effects[GROUP]) <= combinations


def test_what_swaps_cost_alone_is_added_up() -> None:
    true = truth(9)
    swaps = [START, *({**START, name: value} for name, values in CHOICES.items() for value in values[1:])]
    model = fit(START, swaps, [true.predict(one) for one in swaps])
    for one in designs(20, 9):
        assert model.predict(one) == pytest.approx(true.predict(one), abs=1e-6)
    # No swap can be predicted from the others.
    assert model.error.designs == 1
    assert math.isnan(model.error.rmse)
    assert math.isnan(model.error.tau)
    assert math.isnan(model.uncertainty(START))


def test_all_designs_alike_say_what_they_are() -> None:
    model = fit(START, [START] * 3, [1.0, 2.0, 3.0])
    assert model.predict(START) == pytest.approx(2.0)
    assert model.error.rmse == pytest.approx(math.sqrt(1.5))
    equal = fit(START, designs(20, 0), [2.0] * 20)
    assert equal.predict(designs(1, 1)[0]) == 2.0
    assert equal.error.rmse == 0.0
    assert math.isnan(equal.error.tau)


def test_what_cannot_be_fitted_is_refused() -> None:
    seen = designs(4, 0)
    with pytest.raises(ValueError, match="2 designs and 2 values"):
        fit(START, seen[:2], [1.0, 2.0])
    with pytest.raises(ValueError, match="4 designs and 3 values"):
        fit(START, seen, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="finite"):
        fit(START, seen, [1.0, 2.0, 3.0, math.nan])
    with pytest.raises(KeyError, match="height"):
        fit(START, seen, [1.0, 2.0, 3.0, 4.0], [("width", "height")])

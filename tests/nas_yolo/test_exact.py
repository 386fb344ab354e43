from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nas_yolo import exact
from nas_yolo.additive import Additive, Names, Values
from nas_yolo.exact import TOLERANCE, best_designs, pareto_designs
from search_spaces.space_file import load_space

Design = dict[str, str | int]
Space = dict[str, tuple[int, ...]]
DRAWS: dict[str, Callable[[np.random.Generator], float]] = {
    "any": lambda rng: float(rng.normal()),
    "equal ones": lambda rng: float(rng.integers(-2, 3)),
    "losses": lambda rng: -float(rng.exponential()),
    "none": lambda rng: 0.0,
}


def space(rng: np.random.Generator) -> Space:
    return {f"c{i}": tuple(range(int(rng.integers(1, 5)))) for i in range(int(rng.integers(2, 6)))}


def table(choices: Space, groups: Sequence[Sequence[str]], kind: str, rng: np.random.Generator) -> Additive:
    """Random effects, of combinations some only."""
    draw = DRAWS[kind]
    single = {(name,): {(value,): draw(rng) for value in values} for name, values in choices.items()}
    together = {
        tuple(names): {
            values: draw(rng) for values in itertools.product(*(choices[name] for name in names)) if rng.random() < 0.7
        }
        for names in groups
    }
    return Additive(10 * draw(rng), {**single, **together})


def span(model: Additive) -> float:
    return sum(max(known.values()) - min(known.values()) for known in model.effects.values() if known)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("seed", range(12))
def test_the_best_equal_those_of_brute_force(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    choices = space(rng)
    names = list(choices)
    groups = {
        "none": ((), ()),
        "of latency": ((), (names[:2],)),
        "of both": ((names[:2], names[2:]), (names[:2], names[2:])),
        "that overlap": ((names[1:3],), (names[:2], names[-2:])),
    }
    for of_score, of_latency in groups.values():
        score, latency = (
            table(choices, [group for group in some if len(group) > 1], kind, rng) for some in (of_score, of_latency)
        )
        designs: list[Design] = [
            dict(zip(names, values, strict=True)) for values in itertools.product(*choices.values())
        ]
        scores = np.array([score.predict(one) for one in designs])
        latencies = np.array([latency.predict(one) for one in designs])
        near, nearly = TOLERANCE * (span(latency) + 1), TOLERANCE * (span(score) + 1)
        limits = [latencies.min() - 1, latencies.min(), *rng.choice(latencies, 3), float(latencies.mean()), math.inf]
        found = best_designs(choices, score, latency, limits)
        assert found[0] is None
        for limit, one in zip(limits[1:], found[1:], strict=True):
            assert one is not None
            assert latency.predict(one) <= limit + near
            best = scores[latencies <= limit].max()
            assert score.predict(one) >= best - nearly
            as_good = scores >= score.predict(one) - 1e-12
            assert latency.predict(one) <= latencies[as_good].min() + near


def yolo(seed: int, groups: Sequence[Sequence[str]] = ()) -> tuple[dict[str, Values], Additive, Additive]:
    """The whole space, with made-up effects: what is slower is better, mostly."""
    rng = np.random.default_rng(seed)
    choices = dict(load_space("yolov8n").choices)
    latencies: dict[Names, dict[Values, float]] = {
        tuple(names): {
            values: float(rng.exponential(2.0)) for values in itertools.product(*(choices[name] for name in names))
        }
        for names in [*([name] for name in choices), *groups]
    }
    scores = {
        (name,): {values: 0.01 * effect + float(rng.normal(0.0, 0.01)) for values, effect in latencies[name,].items()}
        for name in choices
    }
    return choices, Additive(0.2, scores), Additive(20.0, latencies)


@pytest.mark.parametrize("groups", [[], [[f"{place}.{what}" for what in ("block", "width")] for place in ("P3", "P4")]])
def test_no_design_of_a_whole_space_is_predicted_better(groups: list[list[str]]) -> None:
    choices, score, latency = yolo(0, groups)
    found = pareto_designs(choices, score, latency, 6)
    points = [(latency.predict(one), score.predict(one)) for one in found]
    assert len(points) == 6
    assert points == sorted(points)
    assert [accuracy for _, accuracy in points] == sorted({accuracy for _, accuracy in points})
    whole, rng = load_space("yolov8n"), np.random.default_rng(1)
    # Neighbours of what was found come closer to it than designs from anywhere do.
    tried = [whole.sample(rng) for _ in range(300)] + [near for one in found for near in whole.neighbours(one)]
    for other in tried:
        for slowest, accuracy in points:
            if latency.predict(other) <= slowest:
                assert score.predict(other) <= accuracy + 1e-6
    for one in found:
        whole.validate(one)
        assert whole.choices_of(whole.architecture(one)) == one


def test_a_limit_alone_decides_what_is_best_below_it() -> None:
    choices, score, latency = yolo(2)
    limits = [70.0, 40.0, 1.0, 55.0, 40.0]
    found = best_designs(choices, score, latency, limits)
    assert found == [best_designs(choices, score, latency, [limit])[0] for limit in limits]
    assert found[2] is None
    assert found[1] == found[4]
    assert best_designs(choices, score, latency, []) == []


def test_choices_without_effects_and_combinations_outside_are_no_matter() -> None:
    score = Additive(0.0, {("a",): {(1,): 1.0, (3,): 9.0}, ("a", "b"): {(1, "y"): 1.0, (3, "x"): 9.0}})
    found = best_designs({"a": (1, 2), "b": ("x", "y"), "c": (5,)}, score, Additive(1.0, {}), [0.5, 1.0])
    assert found == [None, {"a": 1, "b": "y", "c": 5}]
    assert pareto_designs({"a": (1, 2), "b": ("x", "y")}, score, Additive(1.0, {}), 5) == [{"a": 1, "b": "y"}]


def test_what_cannot_be_asked_is_refused() -> None:
    none = Additive(0.0, {})
    with pytest.raises(ValueError, match="limits must be numbers"):
        best_designs({"a": (1,)}, none, none, [math.nan])
    with pytest.raises(ValueError, match="asks for 'b'"):
        best_designs({"a": (1,)}, none, Additive(0.0, {("a", "b"): {}}), [1.0])
    with pytest.raises(ValueError, match="a has no values"):
        best_designs({"a": ()}, none, none, [1.0])
    with pytest.raises(ValueError, match="1 limits"):
        pareto_designs({"a": (1,)}, none, none, 1)


def test_what_the_solver_writes_from_c_stays_off_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with exact._aside():
        os.write(1, b"from C")
    print("mine", flush=True)
    assert capfd.readouterr() == ("mine\n", "from C")

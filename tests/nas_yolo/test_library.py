"""What a search makes of its library next, and what its scores say: on made-up measurements and scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluators.evaluation import AssembledScore
from evaluators.target import Target
from nas_yolo.additive import Additive
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.library import (
    MIN_RESIDUALS,
    Changes,
    exact_designs,
    is_ready,
    kinds_due,
    library_key,
    predict_latency,
    predict_scores,
    scores_of,
    steps_of,
    swaps_due,
)
from nas_yolo.objective import parse_limit
from search_spaces.image_size import ImageSize
from search_spaces.kinds import Kind
from search_spaces.space import Choices, Value


@pytest.fixture(scope="module")
def changes(scenarios: Any) -> Changes:
    """Of the whole space around yolov8n."""
    return Changes(scenarios.Scenario("one", space="yolov8n").config)


@pytest.fixture(scope="module")
def small(scenarios: Any) -> Changes:
    """Of a space of 192 designs, in which the stock model is not."""
    return Changes(scenarios.Scenario("one").config)


def swapped(changes: Changes, **values: Value) -> Choices:
    """The start with other values; `P4_width` is for `P4.width`."""
    return {**changes.start, **{name.replace("_", "."): value for name, value in values.items()}}


def made_up(changes: Changes) -> Additive:
    """A latency in which about half of all changes save time."""
    rng = np.random.default_rng(0)
    space = changes.config.space.choices
    return Additive(
        9.0,
        {
            (name,): {(value,): float(rng.normal()) * (value != changes.start[name]) for value in values}
            for name, values in space.items()
        },
    )


def linear(changes: Changes, choices: Choices) -> float:
    """Latency in ms where nothing but size matters: 2 ms for the start."""
    return float(np.array([0.4, 1.0, 0.3, 0.3]) @ changes.size(choices))


def samples(changes: Changes, count: int) -> list[Choices]:
    rng = np.random.default_rng(0)
    return [changes.config.space.sample(rng) for _ in range(count)]


def test_an_entry_takes_a_tenth_of_the_images_of_a_training_within_bounds() -> None:
    assert steps_of(8000, 2) == 100
    assert steps_of(10, 1) == 16
    assert steps_of(100_000, 300) == 200


# The stock model and changes of it ----------------------------------------------------------------------------------


def test_the_start_is_the_stock_model_and_needs_nothing(changes: Changes) -> None:
    assert changes.config.space.architecture(changes.start) == changes.stock
    assert changes.needed(changes.start) == set()


def test_a_stock_model_outside_the_space_has_a_start_that_needs_what_differs_from_it(small: Changes) -> None:
    assert small.config.space.choices_of(small.stock) is None
    needed = small.needed(small.start)
    assert Kind("P2.block", "C2f") in needed
    assert needed <= set(small.own)


def test_a_swap_of_a_block_needs_just_its_kind(changes: Changes) -> None:
    assert changes.needed(swapped(changes, P3_block="GhostConv")) == {Kind("P3.block", "GhostConv")}


def test_a_narrower_stage_needs_all_that_reads_it_or_is_read_by_it(changes: Changes) -> None:
    narrow = min(map(int, changes.config.space.choices["P4.width"]))
    places = {kind.place for kind in changes.needed(swapped(changes, P4_width=narrow))}
    assert {"P4.downsample", "P4.block", "P5.downsample", "neck.P4.up.block"} <= places
    assert not places & {"P1.downsample", "P2.block", "P3.block", "pooling"}


def test_single_changes_differ_from_the_start_in_just_one_choice(changes: Changes) -> None:
    assert all(
        [name for name in choices if choices[name] != changes.start[name]] == [changed]
        for (changed, _), choices in changes.single.items()
    )
    assert len(changes.single) == sum(len(values) - 1 for values in changes.config.space.choices.values())


# Latency ------------------------------------------------------------------------------------------------------------


def test_before_anything_is_measured_what_is_smaller_is_faster(small: Changes) -> None:
    latency = predict_latency(small, [])
    assert latency.constant == pytest.approx(0.0)  # the logarithm of 1 ms
    assert small.start["P4.width"] == 32
    assert latency.predict(small.single["P4.width", 24]) < 0
    assert latency.predict(small.single["P2.block", "Conv"]) < 0


def test_where_latency_is_linear_in_size_it_is_recovered(small: Changes) -> None:
    measured = [(choices, linear(small, choices)) for choices in [small.start, *samples(small, 6)]]
    latency = predict_latency(small, measured)
    for choices in small.single.values():
        assert np.exp(latency.predict(choices)) == pytest.approx(linear(small, choices), rel=0.02)


def test_what_size_does_not_tell_is_learned_from_enough_designs(small: Changes) -> None:
    def truth(choices: Choices) -> float:
        return linear(small, choices) * (2.0 if choices["P4.width"] == 24 else 1.0)

    narrow = small.single["P4.width", 24]
    measured = [(choices, truth(choices)) for choices in [small.start, *samples(small, 40)]]
    few, enough = (predict_latency(small, measured[:count]) for count in (MIN_RESIDUALS - 1, 41))
    assert few.predict(narrow) <= few.constant  # it is smaller
    assert np.exp(enough.predict(narrow) - enough.constant) == pytest.approx(
        truth(narrow) / truth(small.start), rel=0.1
    )


def test_of_a_block_and_a_depth_it_is_known_what_they_take_together(changes: Changes, small: Changes) -> None:
    """By the pairs of a space in which depth is chosen; made up, since sizes of a whole space take seconds."""
    assert ("P3.block", "P3.depth") in changes.pairs
    together = changes.pairs["P3.block", "P3.depth"]
    assert len(together) == len(changes.config.space.choices["P3.block"]) * len(
        changes.config.space.choices["P3.depth"]
    )
    effects = predict_latency(small, []).effects["P2.block", "P2.depth"]
    assert effects["C2f", 1] == pytest.approx(0.0)


# Scores -------------------------------------------------------------------------------------------------------------


def test_scores_say_nothing_without_that_of_the_stock_model(changes: Changes) -> None:
    swaps = [(choices, 0.2) for choices in itertools.islice(changes.single.values(), 5)]
    assert predict_scores(changes, swaps) is None
    assert predict_scores(changes, [(changes.start, 0.0), *swaps]) is None
    assert predict_scores(changes, [(changes.start, 0.3), swaps[0]]) is None
    assert predict_scores(changes, [(changes.start, 0.3), *swaps]) is not None


def test_what_two_changes_leave_is_multiplied(changes: Changes) -> None:
    ghost, conv = {"P3.block": "GhostConv"}, {"P4.block": "Conv"}
    scored = [(changes.start, 0.4), ({**changes.start, **ghost}, 0.2), ({**changes.start, **conv}, 0.3)]
    model = predict_scores(changes, scored)
    assert model is not None
    both = model.predict({**changes.start, **ghost, **conv}) - model.predict(changes.start)
    assert np.exp(both) == pytest.approx(0.5 * 0.75, rel=1e-3)


def test_a_score_of_nothing_counts_as_next_to_nothing(changes: Changes) -> None:
    scored = [(changes.start, 0.4), (swapped(changes, P3_block="GhostConv"), 0.0), (swapped(changes, P4_depth=1), 0.4)]
    model = predict_scores(changes, scored)
    assert model is not None
    left = model.predict(scored[1][0]) - model.predict(changes.start)
    assert np.exp(left) == pytest.approx(0.02, rel=0.01)


def test_scores_are_of_points_of_the_space_that_could_be_put_together(small: Changes) -> None:
    design = small.config.space.architecture(small.start)
    found = [
        AssembledScore(design, 0.3, 1.0),
        AssembledScore(design, None, 1.0, "x"),
        AssembledScore(small.stock, 0.5, 1.0),
    ]
    assert scores_of(small, found) == [(small.start, 0.3)]


# What comes next ----------------------------------------------------------------------------------------------------


def test_the_fastest_swaps_come_first_and_none_that_is_slower(changes: Changes) -> None:
    latency = made_up(changes)
    due = kinds_due(changes, latency, changes.own)
    added = [latency.predict({**changes.start, **kind.choices}) - latency.constant for kind in due]
    assert added == pytest.approx(sorted(added))
    assert added[-1] < 0
    assert not set(due) & set(changes.own)
    slower = set(changes.others) - set(due)
    assert slower
    assert all(latency.predict({**changes.start, **kind.choices}) >= latency.constant for kind in slower)


def test_no_entry_is_due_that_is_known(changes: Changes) -> None:
    latency = made_up(changes)
    due = kinds_due(changes, latency, changes.own)
    assert kinds_due(changes, latency, [*changes.own, *due[:5]]) == due[5:]
    assert kinds_due(changes, latency, [*changes.own, *due]) == []


def test_swaps_are_the_start_and_then_what_saves_most(changes: Changes) -> None:
    latency = made_up(changes)
    start, *swaps = swaps_due(changes, latency)
    assert start == changes.start
    times = [latency.predict(choices) for choices in swaps]
    assert times == sorted(times)
    assert times[-1] < latency.constant
    assert 0 < len(swaps) < len(changes.swaps)


def test_a_block_that_saves_time_only_where_it_is_shallow_is_due_all_the_same(changes: Changes) -> None:
    shallow = min(map(int, changes.config.space.choices["P4.depth"]))
    assert changes.start["P4.depth"] != shallow
    slow = {("P4.block",): {("GhostConv",): 0.4}}
    assert kinds_due(changes, Additive(0.0, slow), changes.own) == []
    together = {("P4.block", "P4.depth"): {("GhostConv", shallow): -0.5}}
    assert kinds_due(changes, Additive(0.0, {**slow, **together}), changes.own) == [Kind("P4.block", "GhostConv")]


def test_swaps_have_each_block_as_deep_as_the_stock_models_and_as_shallow_as_may_be(changes: Changes) -> None:
    shallow = min(map(int, changes.config.space.choices["P4.depth"]))
    assert swapped(changes, P4_block="GhostConv") in changes.swaps
    assert swapped(changes, P4_block="GhostConv", P4_depth=shallow) in changes.swaps
    assert changes.swaps.count(swapped(changes, P4_depth=shallow)) == 1
    assert changes.start not in changes.swaps


def test_a_design_is_ready_once_all_that_it_needs_is_there_and_of_use(changes: Changes) -> None:
    choices = swapped(changes, P3_block="GhostConv", P4_block="Conv")
    one, other = sorted(changes.needed(choices), key=lambda kind: kind.place)
    assert is_ready(changes, changes.start, {})
    assert not is_ready(changes, choices, {one: True})
    assert not is_ready(changes, choices, {one: True, other: False})
    assert is_ready(changes, choices, {one: True, other: True})


# The best designs ---------------------------------------------------------------------------------------------------


def designs_of(changes: Changes) -> Iterator[Choices]:
    space = changes.config.space.choices
    return (dict(zip(space, values, strict=True)) for values in itertools.product(*space.values()))


@pytest.mark.parametrize("seed", range(5))
def test_no_design_of_a_small_space_is_predicted_better_than_those_found(seed: int, small: Changes) -> None:
    rng = np.random.default_rng(seed)
    space = small.config.space.choices
    swaps = [small.start, *small.single.values()]
    score = predict_scores(small, [(one, 0.4 * float(rng.uniform(0.3, 1.0)) ** (i > 0)) for i, one in enumerate(swaps)])
    assert score is not None
    added = {(name,): {(value,): float(rng.normal()) for value in values} for name, values in space.items()}
    latency = Additive(9.0, added)
    found = exact_designs(small, latency, score)
    assert found
    for one in found:
        rivals = [other for other in designs_of(small) if latency.predict(other) <= latency.predict(one)]
        assert score.predict(one) >= max(map(score.predict, rivals)) - 1e-5


def test_what_was_never_scored_is_in_none_of_them(small: Changes) -> None:
    swaps = [one for (name, _), one in small.single.items() if name != "P2.block"]
    score = predict_scores(small, [(small.start, 0.4), *((one, 0.3) for one in swaps)])
    assert score is not None
    found = exact_designs(small, made_up(small), score)
    assert found
    assert {one["P2.block"] for one in found} == {small.start["P2.block"]}


# The key ------------------------------------------------------------------------------------------------------------


def test_a_library_is_the_same_for_any_target_budget_and_limit(scenarios: Any) -> None:
    config: SearchConfig = scenarios.Scenario("one", library=True).config
    same = [
        replace(config, targets=((Target("two"), "two"),)),
        replace(config, budgets=(parse_budget("5h"),)),
        replace(config, limits=(parse_limit("latency_ms<=2"),)),
        replace(config, sampler="random", repeats=3),
    ]
    assert {library_key(one) for one in same} == {library_key(config)}


def test_a_library_is_another_for_other_data_size_or_training(scenarios: Any) -> None:
    config: SearchConfig = scenarios.Scenario("one", library=True).config
    others = [
        config,
        replace(config, dataset=replace(config.dataset, fingerprint="1" * 16)),
        replace(config, imgsz=ImageSize(64, 32)),
        replace(config, epochs=8),
        replace(config, rungs=(2, 9)),
        replace(config, training={"fliplr": 0.0}),
        replace(config, seed=1),
        replace(config, pretrained_sha256="f" * 64),
    ]
    assert len({library_key(one) for one in others}) == len(others)

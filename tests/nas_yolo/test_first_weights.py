from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.evaluation import Epoch, FirstWeights, Latency
from nas_yolo.application import make_config
from nas_yolo.budget import Spending, parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.costs import Costs
from nas_yolo.fidelities import Rung
from nas_yolo.first_weights import likeness, parents_of
from nas_yolo.planning.first_weights import too_expensive, wants_parent
from nas_yolo.planning.outcomes import half_batch
from nas_yolo.planning.stop import time_limit_s
from nas_yolo.results import best_trial, designs, front_trials, verdict, weights_text
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from storage import Spent, Trial, TrialState


@pytest.fixture(scope="module")
def config(few_digits: Path) -> SearchConfig:
    return make_config(str(few_digits), ("cpu",), ("2h",), imgsz=64, epochs=3, runner="local", inherit=True)


@pytest.fixture(scope="module")
def trials(config: SearchConfig) -> list[Trial]:
    """Stock 0, ghost 1 and convnext 2 complete, shufflev2 3 that waits; 4 is the parent, complete."""

    def trial(number: int, name: str, ms: float, maps: tuple[float, ...]) -> Trial:
        mark = config.targets[0][1]
        latency = Latency(
            "cpu", mark, ImageSize(64, 64), ms, ms - 0.1, ms + 0.1, 1.0, ms, ms, ms, 100, 0.0, 0.0, "good"
        )
        epochs = tuple(Epoch(epoch, value, value, 1.0, 1.0) for epoch, value in enumerate(maps, start=1))
        state: TrialState = "complete" if len(maps) == 3 else "paused"
        design, origin = load_preset(name), f"preset:{name}"
        return Trial(number, design, origin, state, "", None, {"cpu": latency}, epochs, ())

    stock = trial(0, "yolov8n", 2.0, (0.1, 0.2, 0.30))
    return [
        stock,
        trial(1, "yolov8n-ghost", 1.5, (0.1, 0.2, 0.35)),
        trial(2, "yolov8n-convnext", 3.0, (0.1, 0.2, 0.40)),
        trial(3, "yolov8n-shufflev2", 1.0, (0.1,)),
        replace(stock, number=4, origin="parent:yolov8n"),
    ]


def checkpoint(number: int) -> Path:
    return Path(f"{number}.pt")


def names(trial: Trial, trials: list[Trial], config: SearchConfig) -> list[str]:
    return [parent.name for parent in parents_of(trial, trials, config, checkpoint)]


def test_the_nearest_complete_design_supplies_what_the_parent_lacks(trials: list[Trial], config: SearchConfig) -> None:
    near = replace(trials[3], architecture=replace(trials[1].architecture, stem=trials[3].architecture.stem))
    parents = parents_of(near, trials, config, checkpoint)
    assert [(one.name, one.file) for one in parents] == [("yolov8n", Path("4.pt")), ("trial 1", Path("1.pt"))]
    assert names(trials[3], trials[3:], config) == ["yolov8n"]  # nothing else is complete
    twins = [replace(trials[1], number=number) for number in (1, 7)]
    assert names(near, [*twins, trials[4]], config) == ["yolov8n", "trial 1"]
    assert names(near, [trials[4], *reversed(twins)], config) == ["yolov8n", "trial 1"]


def test_a_repeat_begins_as_the_trial_that_it_repeats_and_never_with_its_weights(
    trials: list[Trial], config: SearchConfig
) -> None:
    repeat = replace(trials[1], number=5, origin="repeat:1", state="ready")
    assert names(repeat, trials, config) == ["yolov8n"]
    original = replace(trials[1], weights=FirstWeights(("yolov8n", "trial 2"), 0.9))
    assert names(repeat, [trials[0], original, *trials[2:]], config) == ["yolov8n", "trial 2"]


def test_beside_a_library_there_is_no_second_parent(trials: list[Trial], config: SearchConfig) -> None:
    library = replace(config, weights="library")
    assert names(trials[1], trials, library) == ["yolov8n"]
    assert names(trials[4], trials, library) == []
    assert names(trials[1], trials[:4], library) == []  # nothing is trained yet


def test_a_given_checkpoint_is_what_the_parent_of_a_library_begins_with(
    trials: list[Trial], config: SearchConfig
) -> None:
    library = replace(config, weights="library", pretrained="/some/mine.pt")
    assert names(trials[4], trials, library) == ["mine.pt"]
    assert names(trials[1], trials, library) == ["yolov8n"]
    assert names(trials[1], trials[:4], library) == ["mine.pt"]  # and what all begin with, if that was given up


def test_it_is_said_whose_blocks_trainings_begin_with(trials: list[Trial], config: SearchConfig) -> None:
    library = replace(config, weights="library")
    said = "first weights from blocks that imitate yolov8n, trained 3 epochs on this data"
    assert weights_text(trials, library) == said
    taken = replace(trials[4], weights=FirstWeights(("search one",), 1.0))
    assert weights_text([*trials[:4], taken], library) == f"{said} by search one"
    begun = replace(trials[4], weights=FirstWeights(("mine.pt",), 1.0))
    assert weights_text([*trials[:4], begun], replace(library, pretrained="/some/mine.pt")) == said
    given_up = replace(trials[4], state="rejected", reason="too slow")
    assert weights_text([*trials[:4], given_up], library).startswith("from scratch")
    given = replace(library, pretrained="/some/mine.pt")
    assert (
        weights_text([*trials[:4], given_up], given) == weights_text(trials[:4], given) == "first weights from mine.pt"
    )


def test_without_a_complete_parent_and_for_the_parent_itself_all_begin_from_scratch(
    trials: list[Trial], config: SearchConfig
) -> None:
    assert names(trials[4], trials, config) == []
    for state in ("failed", "rejected", "paused"):
        assert names(trials[3], [*trials[:4], replace(trials[4], state=state)], config) == []
    assert names(trials[3], trials, replace(config, weights="scratch")) == []
    given = replace(config, pretrained="/weights/yolov8n.pt")
    assert names(trials[3], trials[3:4], given) == ["yolov8n.pt"]


def test_a_parent_is_trained_only_before_anything_else_and_for_three_trials_at_least(
    trials: list[Trial], config: SearchConfig
) -> None:
    fresh = [replace(trial, epochs=()) for trial in trials[:4]]
    assert wants_parent(fresh, config)
    assert not wants_parent(trials[:4], config)  # what was begun from scratch would not compare
    assert not wants_parent([*fresh, replace(trials[4], state="failed", epochs=())], config)
    assert not wants_parent(fresh, replace(config, weights="scratch"))
    assert not wants_parent(fresh, replace(config, pretrained="/weights/yolov8n.pt"))
    for budget, enough in (("2trials", False), ("3trials", True)):
        assert wants_parent(fresh, replace(config, budgets=(parse_budget(budget),))) is enough


def test_a_parent_is_too_expensive_if_the_rest_of_it_takes_over_a_tenth_of_the_budget(
    trials: list[Trial], config: SearchConfig
) -> None:
    config = replace(config, epochs=100)
    parent = replace(trials[4], state="training", epochs=tuple(Epoch(n, None, None, 1.0, 1.0) for n in (1, 2)))
    slow_start = replace(parent, epochs=(Epoch(1, None, None, 1.0, 99.0),))

    def why(trial: Trial, budget: str) -> str:
        return too_expensive(trial, Costs((trial,), config), Spending([parse_budget(budget)], Spent(), 0))

    assert why(parent, "1079s") == ""  # 1.1 times 98 s to go
    assert why(parent, "1076s") == (
        "to train it takes 10% of the budget, over 10% (a budget of 1100s would do); all trainings begin from scratch"
    )
    assert why(slow_start, "1076s") == ""  # the first epoch includes set-up
    fresh = replace(parent, epochs=())
    assert why(fresh, "10s") == ""
    predicted = replace(fresh, predicted_epoch_s=1.0)
    assert why(predicted, "551s") == ""  # 110 s: it may be half of that, if something disturbed its first batches
    assert why(predicted, "549s") == (
        "to train it would take about 20% of the budget, as its first batches predict, over 10% "
        "(a budget of 1100s would do); all trainings begin from scratch"
    )
    assert why(replace(slow_start, predicted_epoch_s=1.0), "100s") == ""  # its second epoch tells
    assert why(replace(parent, predicted_epoch_s=99.0), "1079s") == ""  # what was measured goes first


def test_likeness_counts_equal_blocks_widths_and_depths(trials: list[Trial]) -> None:
    stock, ghost = load_preset("yolov8n"), load_preset("yolov8n-ghost")
    assert likeness(stock, stock) > likeness(stock, ghost) == likeness(ghost, stock)
    wider = replace(stock, stem=replace(stock.stem, width=stock.stem.width + 8))
    assert likeness(stock, wider) == likeness(stock, stock) - 1
    assert likeness(stock, replace(stock, activation="ReLU")) == likeness(stock, stock) - 1


def test_a_parent_is_no_design_of_the_search(trials: list[Trial], config: SearchConfig) -> None:
    better = [*trials[:4], replace(trials[4], epochs=(Epoch(1, 0.9, 0.9, 1.0, 1.0),))]
    assert designs(better) == trials[:4]
    assert front_trials(better, "cpu") == front_trials(trials[:4], "cpu")
    assert best_trial(better, config) == best_trial(trials[:4], config)
    assert verdict(better, config) == verdict(trials[:4], config)


def test_the_verdict_does_not_compare_regimes(trials: list[Trial], config: SearchConfig) -> None:
    inherited = FirstWeights(("yolov8n",), 1.0)
    mixed = [trials[0], replace(trials[1], weights=inherited), *trials[2:]]
    assert verdict(mixed, config) == "No verdict: trial 1 and stock yolov8n did not both begin with inherited weights."
    both = [replace(trial, weights=inherited) for trial in trials]
    assert verdict(both, config) == verdict(trials, config)


def test_the_sentence_says_which_regime_the_numbers_are_from(trials: list[Trial], config: SearchConfig) -> None:
    assert weights_text(trials, config) == "first weights from yolov8n, trained 3 epochs on this data"
    assert weights_text(trials, replace(config, weights="scratch")) == "from scratch"
    assert weights_text(trials, replace(config, pretrained="/w/yolov8n.pt")) == "first weights from yolov8n.pt"
    assert weights_text([], config) == "first weights from yolov8n, which is trained first (0 of 3 epochs so far)"
    small = "from scratch: the budget was too small to train the stock model first"
    assert weights_text([], replace(config, budgets=(parse_budget("2trials"),))) == small
    assert weights_text(trials[:4], config) == small
    failed = replace(trials[4], state="failed", reason="nan: the loss was not finite")
    assert weights_text([failed], config) == (
        "from scratch, since yolov8n, to begin with its weights, was not trained to the end "
        "(nan: the loss was not finite)"
    )


def test_costs_of_later_fidelities_follow_from_the_time_of_the_first(trials: list[Trial], config: SearchConfig) -> None:
    config = replace(config, epochs=9)
    trial = replace(trials[3], epochs=tuple(Epoch(n, None, None, 1.0, s) for n, s in ((1, 9.0), (2, 3.0), (3, 5.0))))
    costs = Costs((trial,), config)
    assert costs.per_epoch(trial) == 4.0  # the first includes set-up
    assert costs.of(trial) == pytest.approx(1.1 * 6 * 4)


def test_until_an_epoch_has_ended_costs_follow_from_what_was_predicted(
    trials: list[Trial], config: SearchConfig
) -> None:
    fresh = replace(trials[3], epochs=(), predicted_epoch_s=3.0)
    other = replace(trials[1], epochs=())
    costs = Costs((other, fresh), config)
    assert costs.per_epoch(fresh) == costs.per_epoch(other) == 3.0
    assert costs.of(fresh, Rung(3)) == pytest.approx(1.1 * 3 * 3.0)
    assert Costs((other, replace(trials[3], predicted_epoch_s=3.0)), config).per_epoch(other) == 1.0
    assert Costs((other,), config).per_epoch(other) == 0.0


def test_a_training_may_take_ten_times_as_long_and_ten_minutes_more() -> None:
    assert time_limit_s(10.0, None) == 610
    assert time_limit_s(600.0, 5.0) == 6000
    assert time_limit_s(0.0, 5.0) == 5
    assert time_limit_s(0.0, None) == float("inf")


def test_half_a_batch_is_at_least_one_image_and_tried_once(trials: list[Trial]) -> None:
    trial = trials[0]
    assert half_batch(trial, {}) == 8
    assert half_batch(trial, {"batch": 3}) == 1
    assert half_batch(trial, {"batch": 1}) is None
    assert half_batch(trial, {"batch": -1}) is None  # Ultralytics chooses it
    assert half_batch(replace(trial, batch=8), {}) is None

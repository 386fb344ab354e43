from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from evaluators.evaluation import Epoch, FirstWeights
from nas_yolo.config import SearchConfig
from nas_yolo.report.tables import front_table
from nas_yolo.results import (
    alike,
    comparisons,
    complete,
    due_repeats,
    fidelity_correlations,
    front_document,
    front_trials,
    library_correlation,
    opponents_curve,
    seeds,
    trust_document,
    trust_text,
    verdict,
)
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space
from storage import Repository, Search, Spent, Trial

ALONE = " Compared with it alone: no other width or depth of it was trained to the end."
Repeat = Callable[..., Trial]


@pytest.fixture
def config(finished: tuple[Repository, Search]) -> SearchConfig:
    return SearchConfig.from_document(finished[1].config)


@pytest.fixture
def trials(finished: tuple[Repository, Search]) -> list[Trial]:
    """Stock 0 (2 ms, 0.30), 1 (1.5 ms, 0.35), 2 (3 ms, 0.40), 3 that waits."""
    return finished[0].trials(finished[1])


def repeated(trials: list[Trial], *given: tuple[int, float]) -> list[Trial]:
    """With complete repeats: number of the trial repeated, and its mAP50-95."""
    all_of = list(trials)
    for number, value in given:
        epochs = (*trials[number].epochs[:-1], Epoch(3, value, value, 1.0, 1.0))
        all_of.append(replace(trials[number], number=len(all_of), origin=f"repeat:{number}", epochs=epochs))
    return all_of


def shown(trials: list[Trial], config: SearchConfig) -> str:
    console = Console(width=120)
    with console.capture() as text:
        console.print(front_table(trials, config, "cpu"))
    return text.get()


def test_without_repeats_the_sentences_say_that_the_noise_is_not_known(
    finished: tuple[Repository, Search], trials: list[Trial], config: SearchConfig
) -> None:
    assert verdict(trials, config) == (
        "Trial 1 beats stock yolov8n by 0.050 mAP50-95 at 1.5 ms against 2 ms on cpu "
        "(one training each: the noise between seeds was not measured)." + ALONE
    )
    assert trust_document(trials, config)["noise_map50_95"] is None
    document = front_document(finished[1], config, trials, Spent())
    assert [member["indistinguishable_from"] for member in document["front"]] == [[], []]
    assert [member["map50_95_seeds"] for member in document["front"]] == [[0.35], [0.40]]
    assert "Noise" not in trust_text(trials, config)
    assert "~" not in shown(trials, config)


def test_the_front_shows_the_activation_that_was_chosen(trials: list[Trial], config: SearchConfig) -> None:
    assert "activation" not in shown(trials, config)
    space = replace(config.space, choices={**config.space.choices, "activation": ("SiLU", "ReLU")})
    chosen = [replace(trial, origin="sampler:frontier") for trial in trials]
    chosen[1] = replace(chosen[1], architecture=replace(chosen[1].architecture, activation="ReLU"))
    text = shown(chosen, replace(config, space=space))
    assert "activation" in text
    assert text.count("ReLU") == 1
    assert text.index("C2fGhost") < text.index("ReLU") < text.index("ConvNeXt")


def test_a_repeat_is_never_compared_as_a_design_of_its_own(trials: list[Trial], config: SearchConfig) -> None:
    more = repeated(trials, (1, 0.9), (0, 0.9))
    assert complete(more, "cpu") == complete(trials, "cpu")
    assert front_trials(more, "cpu") == front_trials(trials, "cpu")
    assert fidelity_correlations(more, config) == fidelity_correlations(trials, config)
    assert seeds(more) == {0: [0.30, 0.9], 1: [0.35, 0.9], 2: [0.40]}


def test_the_verdict_compares_means_and_gives_the_interval(trials: list[Trial], config: SearchConfig) -> None:
    # Deviations of 0.001 in two groups of two: sd sqrt(2) / 1000; t = 4.303 at two degrees of freedom.
    beats = repeated(trials, (1, 0.352), (0, 0.302))
    assert verdict(beats, config) == (
        "Trial 1 beats stock yolov8n by 0.050 ± 0.006 mAP50-95 at 1.5 ms against 2 ms on cpu "
        "(noise between seeds from 2 repeats)." + ALONE
    )
    loses = repeated(trials, (1, 0.15), (0, 0.45))
    assert "cannot be told apart: -0.125 ± 0.538 mAP50-95" in verdict(loses, config)
    sure = [*trials[:1], *repeated(trials, (0, 0.301), (0, 0.299))[1:]]
    worse = [replace(t, epochs=(Epoch(1, 0.2, 0.2, 1.0, 1.0),)) if t.number == 1 else t for t in sure]
    assert verdict(worse, config).startswith("The search does not beat stock yolov8n: best -0.100 ± 0.005 mAP50-95")


def test_a_gain_smaller_than_its_interval_is_no_gain(trials: list[Trial], config: SearchConfig) -> None:
    once = repeated(trials, (1, 0.36))  # sd 0.00707, one degree of freedom: t = 12.7
    assert verdict(once, config) == (
        "Trial 1 and stock yolov8n cannot be told apart: +0.055 ± 0.110 mAP50-95 at 1.5 ms against 2 ms on cpu "
        "(noise between seeds from 1 repeat)." + ALONE
    )


def test_what_cannot_be_told_apart_is_named_and_marked(
    finished: tuple[Repository, Search], trials: list[Trial], config: SearchConfig
) -> None:
    noisy = repeated(trials, (1, 0.36), (0, 0.32))  # means: 0.355 of 1, 0.31 of the stock model, 0.40 of 2
    document = front_document(finished[1], config, noisy, Spent())
    noise = document["trust"]["noise_map50_95"]
    assert noise["sd"] == pytest.approx((0.00025 / 2) ** 0.5)
    assert noise["degrees_of_freedom"] == 2
    assert noise["difference_95"] == pytest.approx(4.3027 * 2**0.5 * noise["sd"], rel=1e-4)
    assert [(m["trial"], m["indistinguishable_from"]) for m in document["front"]] == [(1, [2, 0]), (2, [1])]
    for member in document["front"]:
        for other in member["indistinguishable_from"]:
            assert alike(noisy, noisy[member["trial"]], noisy[other])
    text = trust_text(noisy, config)
    assert "Noise between seeds: standard deviation 0.011 mAP50-95, from 2 repeats; two single trainings" in text
    assert "differ by less than 0.068 cannot be told apart." in text
    assert "0.400 ~" in shown(noisy, config)
    assert "~: cannot be told apart from the row above" in shown(noisy, config)
    assert "0.350 ~" not in shown(noisy, config)
    assert "~" not in shown(repeated(trials, (1, 0.351)), config)


def test_nets_that_learned_nothing_tell_no_noise_and_are_not_repeated(
    trials: list[Trial], config: SearchConfig
) -> None:
    blank = [replace(trial, epochs=(Epoch(1, 0.009, 0.009, 1.0, 1.0),)) for trial in trials]
    assert due_repeats(blank, config, 2) == []
    more = repeated(blank, (1, 0.0), (0, 0.0))
    assert trust_document(more, config)["noise_map50_95"] is None
    assert verdict(more, config).startswith("No verdict: no net reached 0.01 mAP50-95")
    assert [trial.number for trial in due_repeats([*blank[:1], *trials[1:]], config, 2)] == [1, 2]


def test_due_are_both_sides_of_the_verdict_then_the_front_and_over_again(
    trials: list[Trial], config: SearchConfig
) -> None:
    def due(given: list[Trial], count: int) -> list[int]:
        return [trial.number for trial in due_repeats(given, config, count)]

    assert due(trials, 0) == []
    assert due(trials, 2) == [1, 0]
    assert due(trials, 5) == [1, 0, 2, 1, 0]
    begun = repeated(trials, (1, 0.1))
    for state in ("ready", "training", "paused", "complete", "failed"):
        assert due([*trials, replace(begun[4], state=state)], 2) == [0]
    assert due(repeated(trials, (1, 0.1), (0, 0.2)), 2) == []
    assert due(repeated(trials, (2, 0.1)), 2) == [1, 0]  # a best that came later is repeated as well
    waiting = [replace(trial, state="paused") for trial in trials]
    assert due(waiting, 2) == []
    assert due([*trials[:1], *waiting[1:]], 2) == [0, 0]
    assert due([waiting[0], *trials[1:]], 2) == [1, 2]  # the stock model was only measured


def with_sizes(trials: list[Trial], config: SearchConfig, *sizes: tuple[float, float], origin: str = "") -> list[Trial]:
    """With sizes of the stock model, trained to the end: latency and mAP50-95."""
    all_of = list(trials)
    for (name, design), (ms, value) in zip(config.scaled_designs.items(), sizes, strict=False):
        latency = replace(trials[0].latencies["cpu"], latency_ms=ms, ci_low_ms=ms * 0.99, ci_high_ms=ms * 1.01)
        size = replace(trials[0], number=len(all_of), architecture=design, origin=origin or f"scaled:{name}")
        epochs = (*size.epochs[:-1], Epoch(3, value, value, 1.0, 1.0))
        all_of.append(replace(size, latencies={"cpu": latency}, epochs=epochs))
    return all_of


def test_the_verdict_is_against_all_sizes_of_the_stock_model_at_equal_latency(
    trials: list[Trial], config: SearchConfig
) -> None:
    # At 1.5 ms of trial 1, between 1 ms and 2 ms, the line is at 0.28 + 0.02 * log2(1.5).
    sizes = with_sizes(trials, config, (1.0, 0.28), (2.8, 0.36))
    sure = repeated(sizes, (1, 0.351), (0, 0.301))
    assert verdict(sure, config) == (
        "Trial 1 beats stock yolov8n, scaled: +0.059 ± 0.004 mAP50-95 at 1.5 ms on cpu (noise between seeds from 2 "
        "repeats). At equal accuracy it takes 43% ± 4% less time. Compared with 3 sizes of it, 1 to 2.8 ms. Other "
        "trials of the front: beat it: 2."
    )
    unsure = repeated(sizes, (1, 0.36))
    assert "Trial 1 and stock yolov8n, scaled, cannot be told apart: +0.063 ± " in verdict(unsure, config)
    assert "Other trials of the front: cannot be told apart from it: 2." in verdict(unsure, config)
    assert verdict(sizes, config).startswith(
        "Trial 1 and stock yolov8n, scaled: +0.058 mAP50-95 at 1.5 ms on cpu (one training each: the noise between "
        "seeds was not measured); it may be chance. At equal accuracy it takes 43% less time."
    )


def test_a_size_that_is_better_at_that_latency_takes_the_verdict_away(
    trials: list[Trial], config: SearchConfig
) -> None:
    better = repeated(with_sizes(trials, config, (1.4, 0.3885)), (1, 0.351), (0, 0.301))
    assert verdict(better, config).startswith(
        "The search does not beat stock yolov8n, scaled: trial 1 -0.038 ± 0.004 mAP50-95 at 1.5 ms on cpu"
    )
    assert "not beat" in verdict(
        repeated(with_sizes(trials, config, (1.4, 0.3885), origin="sampler:random"), (1, 0.351), (0, 0.301)), config
    )  # it is what it is, whoever proposed it


def test_what_is_faster_than_all_sizes_is_said_to_be(trials: list[Trial], config: SearchConfig) -> None:
    lower = [replace(t, epochs=(Epoch(1, 0.25, 0.25, 1.0, 1.0),)) if t.number == 1 else t for t in trials]
    sizes = repeated(with_sizes(lower, config, (1.8, 0.29)), (0, 0.301))
    assert verdict(sizes, config).startswith(
        "No size of stock yolov8n is as fast as trial 1: -0.040 ± 0.013 mAP50-95 against its fastest size at 1.5 ms"
    )
    better = repeated(with_sizes(trials, config, (1.8, 0.29)), (0, 0.301))
    assert verdict(better, config).startswith(
        "Trial 1 beats stock yolov8n, scaled: +0.060 ± 0.013 mAP50-95 against its fastest size at 1.5 ms on cpu"
    )


def test_sizes_that_began_with_other_weights_are_not_compared(trials: list[Trial], config: SearchConfig) -> None:
    *others, size = with_sizes(trials, config, (1.4, 0.3885))
    inherited = replace(size, weights=FirstWeights(("yolov8n",), 0.5))
    assert opponents_curve([*others, inherited], config, "cpu", seeds([*others, inherited])) == [trials[0]]
    assert comparisons([*others, inherited], config, "cpu")[1].gain == pytest.approx(0.05)


def test_where_the_space_holds_no_other_size_the_verdict_says_so(trials: list[Trial], config: SearchConfig) -> None:
    stock = config.space.choices_of(config.known_designs["yolov8n"])
    assert stock
    fixed = {n: (stock[n],) if n.endswith(("width", "depth")) else v for n, v in config.space.choices.items()}
    narrow = replace(config, space=replace(config.space, choices=fixed))
    assert verdict(trials, narrow).endswith(" Compared with it alone: the space holds no other width or depth.")


def test_other_stock_models_of_the_space_are_opponents_too(config: SearchConfig) -> None:
    large = replace(config, space=load_space("yolov8"))
    names = list(large.opponents.values())
    assert names[:5] == ["yolov8n", "yolov8s", "yolov8m", "yolov8l", "yolov8x"]
    assert "yolov8s" not in large.scaled_designs  # it is tried as a known design
    assert len(names) == len(large.scaled_designs) + 5 >= 8
    own = replace(config, space=replace(large.space, model=load_preset("yolov8s")))
    assert list(own.opponents.values()) == [own.space.baseline, *own.scaled_designs]
    relu = replace(config, space=replace(config.space, choices={**config.space.choices, "activation": ("ReLU",)}))
    assert list(relu.opponents.values())[:2] == ["yolov8n", "yolov8n-relu"]


def test_repeats_go_to_the_sizes_that_the_challenger_is_compared_with(
    trials: list[Trial], config: SearchConfig
) -> None:
    sizes = with_sizes(trials, config, (1.6, 0.28), (1.0, 0.25))
    assert [trial.number for trial in due_repeats(sizes, config, 5)] == [1, 4, 5, 0, 2]


def test_tables_and_documents_show_the_sizes_as_what_they_are(
    finished: tuple[Repository, Search], trials: list[Trial], config: SearchConfig
) -> None:
    sizes = with_sizes(trials, config, (1.0, 0.28), (2.8, 0.36), (2.5, 0.30))
    text = shown(sizes, config)
    assert text.count("stock scaled") == 3
    assert text.index("yolov8n-w0.50, stock scaled") < text.index("yolov8n-ghost")  # it is on the front
    document = front_document(finished[1], config, sizes, Spent())
    assert [member["trial"] for member in document["front"]] == [4, 1, 5, 2]
    found = document["opponents"]
    assert [(one["trial"], one["name"], one["state"]) for one in found["trials"]] == [
        *((4, "yolov8n-w0.50", "complete"), (0, "yolov8n", "complete")),
        *((6, "yolov8n-w0.50-d0.82", "complete"), (5, "yolov8n-w0.78", "complete")),
    ]
    assert found["curve"] == {"cpu": [4, 0, 5]}
    assert [(one["trial"], one["relation"]) for one in found["comparisons"]["cpu"]] == [
        *((1, "not known"), (2, "not known")),
    ]
    assert found["comparisons"]["cpu"][0]["gain"] == pytest.approx(0.05830, abs=1e-5)
    alone = front_document(finished[1], config, trials, Spent())["opponents"]
    assert (alone["curve"], alone["comparisons"]) == ({"cpu": [0]}, {"cpu": []})


def test_how_well_scores_of_the_library_told_the_end_is_said(trials: list[Trial], config: SearchConfig) -> None:
    known = trials[1]
    several = [
        replace(
            known,
            number=10 + i,
            assembled=0.1 * i,
            epochs=(*known.epochs[:-1], replace(known.epochs[-1], map50_95=0.3 + 0.01 * i)),
        )
        for i in range(4)
    ]
    found = library_correlation([*trials, *several], config)
    assert found is not None
    assert (found.tau, found.pairs) == (1.0, 6)
    assert "Rank correlation of scores of the library with 3 epochs, 6 pairs: 1.00" in trust_text(
        [*trials, *several], config
    )
    document = trust_document([*trials, *several], config)
    assert document["library_score_correlation"]["tau"] == 1.0
    assert library_correlation(trials, config) is None
    assert trust_document(trials, config)["library_score_correlation"] is None

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from evaluators.evaluation import Epoch
from nas_yolo.config import SearchConfig
from nas_yolo.report.tables import front_table
from nas_yolo.results import (
    alike,
    complete,
    due_repeats,
    fidelity_correlations,
    front_document,
    front_trials,
    seeds,
    trust_document,
    trust_text,
    verdict,
)
from storage import Repository, Search, Spent, Trial

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
        "(one training each: the noise between seeds was not measured)."
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
        "(noise between seeds from 2 repeats)."
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
        "(noise between seeds from 1 repeat)."
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

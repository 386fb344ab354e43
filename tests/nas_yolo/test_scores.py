"""Which zero-cost scores the engine believes, and what it makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluators.evaluation import Epoch
from nas_yolo.config import SearchConfig
from nas_yolo.results import trust_document, trust_text
from nas_yolo.samplers import Fits, Grid, Observation, judge_scores
from nas_yolo.samplers._outlook import Outlook
from nas_yolo.samplers._scores import MIN_TRIALS, ScoreFeature
from storage import Repository, Search

GRID = Grid({f"P{level}.block": tuple("abcde") for level in range(2, 7)})
COSTS = np.array([1 / 9, 1.0])


def trained(count: int, seed: int) -> list[Observation]:
    """Trials whose accuracy is partly a matter of their blocks, and partly of what no choice tells."""
    rng = np.random.default_rng(seed)
    codes = GRID.draw(count, rng)
    speed = 10 + codes[:, 0]
    accuracy = 0.3 + 0.02 * codes.sum(axis=1) + 0.05 * rng.normal(size=count)
    return [
        Observation(tuple(c), (float(s),), (float(a),)) for c, s, a in zip(codes.tolist(), speed, accuracy, strict=True)
    ]


def scored(seen: list[Observation], **scores: np.ndarray) -> list[Observation]:
    return [
        replace(one, scores={name: float(values[i]) for name, values in scores.items()}) for i, one in enumerate(seen)
    ]


def telling(seen: list[Observation], seed: int) -> np.ndarray:
    return np.array([one.accuracies[-1] for one in seen]) + 0.01 * np.random.default_rng(seed).normal(size=len(seen))


def test_noise_is_refused() -> None:
    kept = []
    for seed in range(8):
        seen = trained(24, seed)
        noise = np.random.default_rng(seed + 100).normal(size=24)
        (found,) = judge_scores(GRID, scored(seen, noise=noise), 2, Fits())
        kept.append(found.kept)
    assert sum(kept) <= 1  # one in 40 by chance


def test_what_tells_accuracy_is_kept_and_the_noise_beside_it_is_not() -> None:
    for seed in range(2):
        seen = trained(24, seed)
        noise = np.random.default_rng(seed + 100).normal(size=24)
        verdicts = judge_scores(GRID, scored(seen, noise=noise, telling=telling(seen, seed)), 2, Fits())
        assert [(found.name, found.kept) for found in verdicts] == [("telling", True), ("noise", False)]
        assert verdicts[0].tau_with > verdicts[0].tau + 0.1
        assert verdicts[1].tau == verdicts[0].tau_with
        assert verdicts[0].trials == 22  # those that there were at the last step of growth


def test_what_is_known_already_is_left_out() -> None:
    seen = trained(24, 0)
    blocks = np.array([sum(one.codes) for one in seen])
    latencies = np.array([one.latencies_ms[0] for one in seen])
    verdicts = judge_scores(GRID, scored(seen, blocks=0 * blocks, latencies=latencies), 2, Fits())
    assert not any(found.kept for found in verdicts)


def test_nothing_is_judged_before_enough_trials_are_trained() -> None:
    seen = trained(MIN_TRIALS, 0)
    seen = scored(seen, telling=telling(seen, 0))
    assert judge_scores(GRID, seen[:-1], 2, Fits()) == ()
    assert judge_scores(GRID, [*seen[:-1], replace(seen[-1], accuracies=())], 2, Fits()) == ()
    assert judge_scores(GRID, [*seen[:-1], replace(seen[-1], scores={})], 2, Fits()) == ()
    assert len(judge_scores(GRID, seen, 2, Fits())) == 1
    apart = [replace(one, latencies_ms=(2.0**i,)) for i, one in enumerate(seen)]
    assert judge_scores(GRID, apart, 2, Fits()) == ()  # no two are about as fast


def test_trials_are_judged_by_the_highest_fidelity_that_enough_have_reached() -> None:
    seen = [replace(one, accuracies=(0.5, *one.accuracies)) for one in trained(24, 0)]
    early = [replace(one, accuracies=one.accuracies[:1]) for one in trained(5, 1)]
    verdicts = judge_scores(GRID, scored([*seen, *early], telling=telling([*seen, *early], 0)), 2, Fits())
    assert [found.kept for found in verdicts] == [True]


def test_a_design_that_is_not_built_has_the_score_to_be_expected_of_it() -> None:
    rng = np.random.default_rng(0)
    codes, fresh = GRID.draw(60, rng), GRID.draw(200, rng)
    blocks = codes.sum(axis=1).astype(float)
    seen = [Observation(tuple(c), (1.0,), scores={"blocks": v}) for c, v in zip(codes.tolist(), blocks, strict=True)]
    feature = ScoreFeature("blocks", GRID, seen, Fits())
    known = feature.of(codes, seen)[:, 0]
    assert np.corrcoef(known, blocks)[0, 1] == pytest.approx(1.0)
    predicted, truth = feature.of(fresh)[:, 0], fresh.sum(axis=1)
    assert np.corrcoef(predicted, truth)[0, 1] > 0.9
    expected = (truth - blocks.mean()) / (blocks.std() * 2**0.5)
    assert abs((predicted - expected).mean()) < 0.1  # neither better nor worse than they are


def test_of_two_trials_that_differ_in_a_kept_score_alone_the_better_scored_is_worth_more() -> None:
    seen = trained(36, 0)
    seen = scored(seen, telling=telling(seen, 0))
    outlook = Outlook(GRID, seen, COSTS, 0)
    design = replace(seen[0], accuracies=())
    low, high = (replace(design, scores={"telling": value}) for value in (0.4, 0.7))
    values = outlook.acquisition_of([low, high])
    assert values[1] > 2 * values[0]


def test_scores_that_are_not_kept_change_no_decision() -> None:
    seen = trained(30, 0)
    plain = Outlook(GRID, seen, COSTS, 0)
    noise = Outlook(GRID, scored(seen, noise=np.random.default_rng(3).normal(size=30)), COSTS, 0)
    assert noise.candidates == plain.candidates
    assert noise.acquisition_of(seen) == plain.acquisition_of(seen)


def test_the_report_says_what_became_of_the_scores(finished: tuple[Repository, Search]) -> None:
    repository, search = finished
    config = SearchConfig.from_document(search.config)
    base = repository.trials(search)[0]
    assert "Zero-cost" not in trust_text([base], config)
    trials = [replace(base, scores={"nwot": 1.0})]
    assert "Zero-cost scores: none used; too few trials" in trust_text(trials, config)
    assert trust_document(trials, config)["zero_cost_scores"] == []

    rng, trials = np.random.default_rng(0), []
    for number in range(24):
        architecture = config.space.architecture(config.space.sample(rng))
        end = float(rng.uniform(0.1, 0.5))
        epochs = tuple(Epoch(i, value, value, 1.0, 1.0) for i, value in enumerate((0.1, 0.1, end), start=1))
        scores = {"nwot": 10 * end, "synflow": float(rng.normal())}
        trials.append(
            replace(
                base, number=number, architecture=architecture, origin="sampler:frontier", epochs=epochs, scores=scores
            )
        )
    found = trust_document(trials, config)["zero_cost_scores"]
    assert [(one["name"], one["kept"], one["trials"]) for one in found] == [("nwot", True, 22), ("synflow", False, 22)]
    text = trust_text(trials, config)
    assert f"over 22 trials: nwot kept ({found[0]['tau']:.2f} -> {found[0]['tau_with']:.2f}), synflow left out" in text
    others = replace(config, sampler="tpe")
    assert "Zero-cost" not in trust_text(trials, others)

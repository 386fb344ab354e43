from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from evaluators.evaluation import Epoch
from nas_yolo.config import SearchConfig
from nas_yolo.costs import Costs
from nas_yolo.fidelities import Rung, accuracies_of, rungs
from nas_yolo.planning import explore, leftovers
from nas_yolo.planning.actions import Begin
from nas_yolo.planning.situation import Context, Situation
from nas_yolo.samplers import Grid
from nas_yolo.schedulers import get_strategy
from search_spaces.presets import load_preset
from storage import Job, State, Trial

NEW = Trial(0, load_preset("yolov8n"), "sampler:x", "ready", "", None, {}, (), ())


def trained(*maps: float | None) -> Trial:
    """A trial after so many epochs of two seconds."""
    epochs = tuple(Epoch(epoch, value, value, 1.0, 2.0) for epoch, value in enumerate(maps, start=1))
    return replace(NEW, state="paused", epochs=epochs)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, (1,)), (2, (2,)), (3, (3,)), (6, (2, 6)), (9, (3, 9)), (25, (3, 8, 25)), (100, (11, 33, 100))],
)
def test_rungs(epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs) == tuple(map(Rung, expected))


def test_a_search_keeps_its_rungs_and_may_have_been_given_others(scenarios: Any) -> None:
    config = replace(scenarios.Scenario("one", epochs=27).config, rungs=(2, 27))
    assert SearchConfig.from_document(config.document()).fidelities == (Rung(2), Rung(27))
    older = {key: value for key, value in replace(config, rungs=()).document().items() if key != "rungs"}
    assert SearchConfig.from_document(older).fidelities == (Rung(3), Rung(9), Rung(27))


def test_a_rung_is_reached_by_training_on_to_it() -> None:
    rung = Rung(3)
    assert (rung.name, rung.cost) == ("3 epochs", 3.0)
    assert [rung.left(trained(*[None] * epochs)) for epochs in range(6)] == [3, 2, 1, 0, 0, 0]
    assert rung.accuracy(trained(0.1, 0.2)) is None
    assert rung.accuracy(trained(0.1, 0.2, 0.3, 0.4)) == 0.3
    assert rung.job(trained(0.1), 7.0) == Job("train 0", "train", "train", 7.0, 0, until=3)


def test_what_a_trial_has_ends_at_the_first_fidelity_that_it_lacks() -> None:
    evaluated = rungs(9)
    assert accuracies_of(NEW, evaluated) == ()
    assert accuracies_of(trained(None, None, 0.3, None), evaluated) == (0.3,)
    assert accuracies_of(trained(None, None, 0.3, *[None] * 5, 0.5), evaluated) == (0.3, 0.5)
    assert accuracies_of(trained(*[None] * 8, 0.5), evaluated) == ()  # never the end's in the place of another


@dataclass(frozen=True)
class Score:
    """A fidelity that trains nothing: a number of the network as it is."""

    name: str = "a score"
    cost: float = 0.5

    def left(self, trial: Trial) -> float:
        return 0.0 if "made up" in trial.scores else self.cost

    def accuracy(self, trial: Trial) -> float | None:
        return trial.scores.get("made up")

    def job(self, trial: Trial, now_s: float) -> Job:
        return Job(f"score {trial.number}", "measure", "train", now_s, trial.number)


def test_a_fidelity_of_another_kind_is_evaluated_as_any_other(scenarios: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that decides knows what a fidelity is."""
    config = scenarios.Scenario("one", budgets=("1h",)).config
    evaluated = (Score(), *rungs(config.epochs))
    monkeypatch.setattr(SearchConfig, "fidelities", evaluated)
    costs = tuple(fidelity.cost for fidelity in evaluated)
    context = Context("one", config, get_strategy("random", Grid(config.space.choices), costs, 0))
    scored = replace(NEW, scores={"made up": 1.7})
    timed = replace(trained(0.1), number=1, state="complete")

    def next_job(trial: Trial) -> Job:
        state = State(budgets=("1h",), phase="exploring", trials=(trial, timed))
        action = explore.next_fidelity(Situation(context, state, 0.0))
        assert isinstance(action, Begin)
        return action.job

    assert (next_job(NEW).key, next_job(NEW).expected_s) == ("score 0", pytest.approx(1.1 * 0.5 * 2))
    left = State(budgets=("1h",), phase="finishing", trials=(NEW, timed))
    assert leftovers.first_fidelity(Situation(context, left, 0.0)) == Begin(next_job(NEW))
    assert explore.next_fidelity(Situation(context, replace(left, phase="exploring", trials=(scored,)), 0.0)) is None

    assert Costs((scored, timed), config).of(scored, evaluated[1]) == pytest.approx(1.1 * 3 * 2)
    assert Costs((scored, timed), config).of_first() == pytest.approx(1.1 * 0.5 * 2)
    assert accuracies_of(replace(trained(None, None, 0.3), scores={"made up": 1.7}), evaluated) == (1.7, 0.3)

"""A search around the user's own model: it is the first trial, and what results compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nas_yolo.application import make_config
from nas_yolo.config import SearchConfig
from nas_yolo.proposals import over_limit, propose
from nas_yolo.results import baselines, best_trial, verdict, weights_text
from search_spaces import hook
from search_spaces.model_rows import ModelError
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space
from storage import Repository, Search, Trial

Run = Callable[[Repository, Search], list[Trial]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small detector of other blocks than the stock model's."""
    space = load_space(str(Path(__file__).parent / "space.yaml"))
    smallest = {name: values[-1] for name, values in space.choices.items()}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(hook.model_file(space.architecture(smallest), 3), sort_keys=False))
    return path


def config_of(model: Path, data: Path, budget: str, *limits: str) -> SearchConfig:
    return make_config(
        data=str(data),
        targets=("cpu",),
        budgets=(budget,),
        space=str(model),
        limits=limits,
        imgsz=64,
        epochs=1,
        runner="local",
        inherit=False,
    )


def test_a_search_resumes_without_the_file_and_compares_with_the_model(
    model: Path, few_digits: Path, database: str, run: Run, quick_probe: None, trainings_only: None
) -> None:
    repository = Repository(database)
    search = repository.create_search("own", config_of(model, few_digits, "1trials").document())
    (first,) = run(repository, search)
    assert first.origin == "preset:model:mine.yaml"
    assert first.state == "complete"
    own = load_space(str(model)).model
    assert first.architecture == own
    model.unlink()
    with repository.claimed(search) as claim:
        search = repository.set_config(search, search.config | {"budgets": ["2trials"]}, claim)
    trials = run(repository, search)
    assert len(trials) == 2
    config = SearchConfig.from_document(repository.search("own").config)
    assert config.space.model == own
    assert baselines(trials, config) == [trials[0]]


def test_the_model_is_proposed_first_whatever_the_limits(model: Path, few_digits: Path) -> None:
    config = SearchConfig.from_document(config_of(model, few_digits, "2h", "params_m<=0.18").document())
    model.unlink()
    assert config.space.model is not None
    assert over_limit(config, config.space.model)
    assert propose(config, {}, 0, lambda: ()) == (config.space.model, "preset:model:mine.yaml")


def test_the_verdict_is_about_the_model(finished: tuple[Repository, Search]) -> None:
    repository, search = finished
    stored = SearchConfig.from_document(search.config)
    config = replace(stored, space=replace(stored.space, name="nets/mine.yaml", model=load_preset("yolov8n")))
    stock, *others = repository.trials(search)
    trials = [replace(stock, origin="preset:model:mine.yaml"), *others]
    assert verdict(trials, config).startswith("Trial 1 beats model:mine.yaml by 0.050 mAP50-95 at 1.5 ms against 2 ms")
    assert best_trial(trials, config).number == 1
    assert verdict(others, config) == "No verdict: model:mine.yaml was not trained to the end within the budget."
    short = replace(config, weights="inherited")
    assert weights_text(trials, short) == "from scratch: the budget was too small to train model:mine.yaml first"


def test_a_model_that_is_not_understood_is_refused_before_anything_runs(model: Path, few_digits: Path) -> None:
    content = yaml.safe_load(model.read_text())
    content["head"][0][3] = [None, 2, "bilinear"]
    model.write_text(yaml.safe_dump(content))
    with pytest.raises(ModelError, match=r"row \d+ \[-1, 1, nn.Upsample, .*bilinear\]\] is not understood; .*nearest"):
        config_of(model, few_digits, "2h")

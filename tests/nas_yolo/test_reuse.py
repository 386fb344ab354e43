"""A search that begins with the trained parent and the library of an earlier one, in simulation."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas_yolo.application import create_search
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.driver import Driver
from nas_yolo.results import weights_text
from nas_yolo.runners.simulated import Inline, SimulatedRunner
from nas_yolo.strategy import context_of
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space
from storage import Repository, Search, State
from storage.events import JobStarted
from storage.state import fold


def drive(repository: Repository, search: Search, scenario: Any) -> None:
    with repository.claimed(search) as claim:
        runner = SimulatedRunner(scenario.world())
        context = context_of(repository, search, runner.slots, threads=1, on_gpu=False)
        Driver(repository, search, claim, runner, context, executor=Inline()).run()


@pytest.fixture(scope="module")
def scenario(scenarios: Any) -> Any:
    return scenarios.Scenario("one", "random", ("0.12cpu-h",), library=True)


@pytest.fixture(scope="module")
def config(scenario: Any) -> SearchConfig:
    return replace(scenario.config, warm_start=True)


@pytest.fixture(scope="module")
def done(scenario: Any, config: SearchConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a database with a search that has come to its end."""
    folder = tmp_path_factory.mktemp("done")
    repository = Repository(f"sqlite:///{folder / 'search.db'}")
    search = create_search(repository, "one", config)
    drive(repository, search, scenario)
    repository.close()
    return folder


@pytest.fixture
def repository(done: Path, tmp_path: Path) -> Repository:
    """With that search, whose parent's checkpoint is there."""
    shutil.copytree(done, tmp_path / "data")
    repository = Repository(f"sqlite:///{tmp_path / 'data' / 'search.db'}")
    checkpoint = repository.checkpoint(repository.search("one"), 0)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"trained")
    return repository


def begun(repository: Repository, config: SearchConfig, name: str = "two") -> State:
    return repository.state(create_search(repository, name, config))


def test_a_search_begins_with_the_parent_that_an_earlier_one_trained(
    repository: Repository, config: SearchConfig
) -> None:
    before = repository.state(repository.search("one")).trials[0]
    (parent,) = begun(repository, config).trials
    assert (parent.origin, parent.state, parent.epochs) == ("parent:yolov8n", "complete", before.epochs)
    assert repository.checkpoint(repository.search("two"), 0).read_bytes() == b"trained"
    assert repository.spent(repository.search("two")).cpu_seconds == 0


def test_it_says_whose_parent_that_is(repository: Repository, config: SearchConfig) -> None:
    state = begun(repository, config)
    assert weights_text(state.trials, config).endswith("trained 9 epochs on this data by search one")


def test_entries_and_scores_are_taken_over_for_nothing(repository: Repository, config: SearchConfig) -> None:
    before, after = repository.state(repository.search("one")), begun(repository, config)
    assert before.library_seconds > 0
    assert after.entries == {key: replace(entry, seconds=0.0) for key, entry in before.entries.items()}
    assert after.assemblies == tuple(replace(one, seconds=0.0) for one in before.assemblies)
    assert len(after.entries) > 17
    assert len(after.assemblies) > 3


def test_another_budget_or_target_takes_over_all_the_same(repository: Repository, config: SearchConfig) -> None:
    other = replace(config, budgets=(parse_budget("9h"),), targets=((config.targets[0][0], "another"),))
    assert begun(repository, other).entries


def test_another_space_takes_over_the_parent_only(
    repository: Repository, config: SearchConfig, tmp_path: Path, scenarios: Any
) -> None:
    text = scenarios.SPACE.read_text().replace("width: [16, 24]", "width: [16, 32]")
    (tmp_path / "space.yaml").write_text(text)
    state = begun(repository, replace(config, space=load_space(str(tmp_path / "space.yaml"))))
    assert [trial.state for trial in state.trials] == ["complete"]
    assert (state.entries, state.assemblies) == ({}, ())


def test_the_newest_that_fits_is_taken(repository: Repository, config: SearchConfig) -> None:
    begun(repository, config, "two")
    begun(repository, replace(config, seed=3), "three")
    (parent,) = begun(repository, config, "four").trials
    assert parent.weights is not None
    assert parent.weights.parents == ("search two",)


@pytest.mark.parametrize("changed", ["data", "epochs", "warm_start", "weights"])
def test_what_was_trained_otherwise_or_is_not_wanted_is_not_taken_over(
    changed: str, repository: Repository, config: SearchConfig
) -> None:
    other = {
        "data": replace(config, dataset=replace(config.dataset, fingerprint="1" * 16)),
        "epochs": replace(config, epochs=8),
        "warm_start": replace(config, warm_start=False),
        "weights": replace(config, weights="inherited"),
    }[changed]
    state = begun(repository, other)
    assert (state.trials, state.entries, state.assemblies) == ((), {}, ())
    assert not repository.checkpoint(repository.search("two"), 0).exists()


def test_without_the_checkpoint_nothing_is_taken_over(repository: Repository, config: SearchConfig) -> None:
    repository.checkpoint(repository.search("one"), 0).unlink()
    assert begun(repository, config).trials == ()


def test_where_the_newest_has_lost_its_checkpoint_an_older_one_serves(
    repository: Repository, config: SearchConfig
) -> None:
    begun(repository, config, "two")
    repository.checkpoint(repository.search("two"), 0).unlink()
    (parent,) = begun(repository, config, "three").trials
    assert parent.weights is not None
    assert parent.weights.parents == ("search one",)


def test_a_search_that_was_begun_so_goes_on_and_trains_no_parent(
    repository: Repository, config: SearchConfig, scenario: Any
) -> None:
    search = create_search(repository, "two", config)
    taken = repository.state(search)
    drive(repository, search, scenario)
    state, events = repository.state(search), [one.event for one in repository.events(search)]
    assert state == fold(events)
    assert state.search_state == "done"
    begun_with = {one.job.key for one in events if isinstance(one, JobStarted)}
    assert "train 0" not in begun_with
    assert "train 1" in begun_with
    assert state.trials[1].architecture == load_preset("yolov8n")
    assert state.trials[1].state == "complete"
    assert state.trials[1].weights is not None
    assert state.trials[1].weights.parents[0] == "library of yolov8n"
    assert {**state.entries, **taken.entries} == state.entries  # nothing was made twice
    assert state.assemblies[: len(taken.assemblies)] == taken.assemblies

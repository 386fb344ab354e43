"""Searches as a Python program makes and runs them: nothing is printed, what goes wrong is raised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators.dataset import Reading
from evaluators.packing import Packing, Run
from nas_yolo.application import create_search, free_name, make_config, open_search, run_search, write_best
from nas_yolo.application.data import read_data
from nas_yolo.application.machine import Allotment, allot
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.snapshot import Snapshot
from search_spaces import UserError
from search_spaces.model_file import read_model
from storage import Repository, SearchBusyError

SPACE = Path(__file__).parent / "space.yaml"
FOUND = Packing("a GPU", 2**36, (Run(1, 100.0), Run(2, 190.0)), Run(1, 50.0), 8, "cores")


@pytest.fixture
def config(few_digits: Path) -> SearchConfig:
    return make_config(
        str(few_digits),
        targets=["cpu"],
        budgets=["1trials"],
        space=str(SPACE),
        imgsz=32,
        epochs=2,
        training=["batch=16", "nbs=16"],
        runner="local",
        inherit=False,
        repeats=0,
    )


@pytest.mark.usefixtures("quick_probe", "trainings_only")
def test_a_program_makes_a_search_runs_it_and_gives_it_more(
    config: SearchConfig, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(database)
    search = create_search(repository, "mine", config)

    def stop(snapshot: Snapshot) -> None:
        if any(len(trial.epochs) == 1 for trial in snapshot.trials):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(repository, search, stop, checked=True)
    assert not repository.is_claimed(search)

    phases: list[str] = []
    search = run_search(repository, search, lambda snapshot: phases.append(snapshot.phase))
    assert phases[-1] == "done"
    (trial,) = repository.trials(search)
    assert (trial.state, len(trial.epochs)) == ("complete", 2)
    best = write_best(repository, search)
    assert (best.trial, best.model) == (trial, repository.run_folder(search) / "best.yaml")
    assert read_model(str(best.model)).build() is not None
    assert read_data(str(best.data), False, {}).dataset is not None

    search = run_search(repository, search, budgets=["2trials"])
    assert SearchConfig.from_document(search.config) == replace(config, budgets=(parse_budget("2trials"),))
    assert len(repository.trials(search)) == 2
    assert capsys.readouterr().out == ""


def test_how_the_data_are_read_can_be_replaced(few_digits: Path) -> None:
    told: list[tuple[int, int]] = []
    readings: list[Reading] = []

    def read(data: str, skip_bad: bool, arguments: Mapping[str, Any]) -> Reading:
        reading = read_data(data, skip_bad, arguments, lambda done, total: told.append((done, total)))
        readings.append(reading)
        return reading

    config = make_config(str(few_digits), ["cpu"], ["1h"], space=str(SPACE), training=["classes=[1,2]"], read=read)
    assert told[-1] == (48, 48)
    assert readings[0].dataset == config.dataset
    assert config.dataset.classes == (1, 2)


def test_what_is_wrong_is_raised_before_the_data_are_read() -> None:
    def read(*_: object) -> Reading:
        raise AssertionError("not yet")

    for wrong, message in (
        ({"trial_time": "2gpu-h"}, "must be a time"),
        ({"artifacts": "nosuch://bucket"}, "cannot be used"),
        ({"training": ["bach=3"]}, "did you mean 'batch'"),
    ):
        given: dict[str, Any] = {"data": "none.yaml", "targets": ["cpu"], "budgets": ["1h"], **wrong}
        with pytest.raises(UserError, match=message):
            make_config(**given, read=read)


def test_a_name_is_free_or_numbered(config: SearchConfig, database: str, tmp_path: Path) -> None:
    repository = Repository(database)
    assert free_name(repository, tmp_path / "my images.yaml") == "my-images"
    create_search(repository, "my-images", config)
    assert free_name(repository, tmp_path / "my images.yaml") == "my-images-2"
    assert free_name(repository, Path("/somewhere/cats/data.yaml")) == "cats"


def test_a_search_is_held_while_it_is_open(config: SearchConfig, database: str) -> None:
    repository = Repository(database)
    create_search(repository, "mine", config)
    search = repository.search("mine")
    with open_search(repository, search, checked=True) as opened:
        assert repository.is_claimed(search)
        assert opened.folder.is_dir()
        assert (opened.search, opened.config) == (search, config)
        with pytest.raises(SearchBusyError), open_search(repository, search, ["9h"]):
            pass
    assert not repository.is_claimed(search)
    assert repository.search("mine") == search


def test_what_was_stored_since_the_search_was_looked_up_is_kept(config: SearchConfig, database: str) -> None:
    repository = Repository(database)
    stale = create_search(repository, "mine", config)
    with repository.claimed(stale) as claim:
        repository.set_config(stale, stale.config | {"budgets": ["5trials"], "workers": 3}, claim)
    with open_search(repository, stale, checked=True) as opened:
        assert opened.search.config["budgets"] == ["5trials"]
    with open_search(repository, stale, ["7 trials"], checked=True) as opened:
        assert (opened.search.config["budgets"], opened.search.config["workers"]) == (["7trials"], 3)


def test_the_gpu_is_measured_for_a_search_that_is_held(
    config: SearchConfig, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(database)
    search = create_search(repository, "mine", replace(config, runner="ray", packing={}))
    probes: list[bool] = []

    def measure(*_: object) -> Packing:
        probes.append(repository.is_claimed(search))
        return FOUND

    monkeypatch.setattr("nas_yolo.application.machine.count_gpus", lambda: 2)
    monkeypatch.setattr("nas_yolo.application.machine.gpu_name", lambda: FOUND.device)
    monkeypatch.setattr("nas_yolo.application.gpu_share.measure_packing", measure)
    told: list[bool] = []
    for _ in range(2):  # once is enough
        with open_search(repository, search, checked=True, on_probe=lambda: told.append(True)) as opened:
            assert (opened.allotment.slots, opened.allotment.gpus_per_trial) == (4, 0.5)
    assert (probes, told) == ([True], [True])


@pytest.mark.parametrize(
    ("asked", "gpus", "cores", "allotment"),
    [
        ({}, 0, 8, Allotment(8, 1, 0.0)),
        ({"workers": 3}, 0, 8, Allotment(3, 2, 0.0)),
        ({"workers": 16}, 0, 8, Allotment(16, 1, 0.0)),
        ({"gpus_per_trial": 0.25}, 2, 16, Allotment(8, 2, 0.25)),
        ({"gpus_per_trial": 0.25, "workers": 3}, 2, 16, Allotment(3, 5, 0.25)),
        ({"workers": 9}, 2, 16, Allotment(2, 8, 1.0)),  # more than fit
        ({"runner": "local"}, 2, 16, Allotment(1, 16, 1.0)),
    ],
)
def test_what_each_training_gets(
    config: SearchConfig, asked: dict[str, Any], gpus: int, cores: int, allotment: Allotment
) -> None:
    assert allot(replace(config, **{"runner": "ray"} | asked), gpus, cores) == allotment
    assert allotment.on_gpu == bool(gpus)

"""Searches whose trainings begin with inherited weights, and trainings that fail: real trainings, provoked faults."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.accuracy import training
from evaluators.accuracy.checkpoints import trained_epochs
from evaluators.accuracy.request import TrainingRequest
from evaluators.dataset import load_dataset
from evaluators.evaluation import FirstWeights, Latency
from evaluators.latency import Calibration, fingerprint
from evaluators.target import get_target
from nas_yolo.application import make_config
from nas_yolo.application.checks import check_dataset
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.driver import SearchError
from nas_yolo.results import front_document, front_trials, weights_text
from nas_yolo.snapshot import Snapshot
from search_spaces import UserError
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from storage import Repository, Trial

SPACE = Path(__file__).parent / "space.yaml"
Run = Callable[..., list[Trial]]

pytestmark = pytest.mark.usefixtures("trainings_only")


@pytest.fixture
def config(few_digits: Path) -> SearchConfig:
    """A space of four designs."""
    config = make_config(
        data=str(few_digits),
        targets=("cpu",),
        budgets=("3trials",),
        space=str(SPACE),
        imgsz=32,
        epochs=2,
        training=("batch=16", "nbs=16"),
        runner="local",
        inherit=True,
    )
    one = {name: values[:1] for name, values in config.space.choices.items()}
    choices = {**one, "P2.block": ("Conv", "C2f"), "P5.block": ("C2f", "GhostConv")}
    return replace(config, space=replace(config.space, choices=choices))


@pytest.fixture
def repository(database: str, config: SearchConfig) -> Repository:
    """The latency of whatever may be proposed was measured before: these tests are about trainings."""
    repository = Repository(database)
    repository.add_calibration(Calibration(fingerprint(get_target("cpu")), ImageSize(32, 32), 0.8, 0.01))
    space = config.space
    points = [dict(zip(space.choices, values, strict=True)) for values in product(*space.choices.values())]
    for index, design in enumerate([load_preset("yolov8n"), *map(space.architecture, points)]):
        ms = 9.0 - index
        mark = fingerprint(get_target("cpu"))
        measured = Latency("cpu", mark, ImageSize(32, 32), ms, ms, ms, ms / 1.6, 1.6, ms, ms, 100, 0.0, 0.0, "good")
        repository.add_latency(design, 10, measured)
    return repository


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[TrainingRequest]:
    """All trainings that were begun, in order."""
    begun: list[TrainingRequest] = []

    def note(request: TrainingRequest) -> Iterator[Any]:
        begun.append(request)
        return training.train(request)

    monkeypatch.setattr("nas_yolo.work.train", note)
    return begun


def test_the_stock_model_is_trained_first_and_all_others_begin_with_its_weights(
    run: Run, repository: Repository, config: SearchConfig, requests: list[TrainingRequest]
) -> None:
    search = repository.create_search("one", config.document())

    def interrupt(snapshot: Snapshot) -> None:
        if any(len(trial.epochs) == 1 for trial in snapshot.trials):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(repository, search, interrupt)
    (half, *waiting) = repository.trials(search)
    assert (half.origin, half.state, len(half.epochs)) == ("parent:yolov8n", "paused", 1)
    assert all(trial.epochs == () for trial in waiting)
    assert weights_text([half, *waiting], config) == (
        "first weights from yolov8n, which is trained first (1 of 2 epochs so far)"
    )

    purses: list[int] = []
    parent, *trials = run(repository, search, lambda snapshot: purses.append(snapshot.spending.trials))
    assert (parent.state, parent.epochs[0]) == ("complete", half.epochs[0])  # not paid twice
    assert purses[-1] == len(trials) == 3
    assert trials[0].origin == "preset:yolov8n"
    assert parent.architecture == trials[0].architecture
    assert parent.latencies == trials[0].latencies

    first, again, *others = requests
    assert first.checkpoint == again.checkpoint == repository.checkpoint(search, 0)
    assert first.parents == again.parents == ()
    assert others
    complete = {0}
    for request in others:
        number = int(request.checkpoint.parent.name)
        assert (request.parents[0].name, request.parents[0].file) == ("yolov8n", first.checkpoint)
        assert {int(one.file.parent.name) for one in request.parents} <= complete - {number}
        assert request.rungs == (2,)
        complete.add(number)
    assert any(len(request.parents) == 2 for request in others)

    assert parent not in front_trials([parent, *trials], "cpu")
    document = json.loads(json.dumps(front_document(search, config, [parent, *trials], repository.spent(search))))
    assert document["weights"] == "first weights from yolov8n, trained 2 epochs on this data"
    assert document["budget"]["spent"] == 3
    for member in document["front"]:
        assert member["weights"]["parents"][0] == "yolov8n"
        assert 0.1 < member["weights"]["share"] <= 1


def test_a_search_goes_on_with_the_checkpoints_of_a_store_where_its_folder_is_gone(
    run: Run, repository: Repository, config: SearchConfig, requests: list[TrainingRequest]
) -> None:
    config = replace(config, artifacts=f"memory://{uuid.uuid4().hex}")
    search = repository.create_search("one", config.document())

    def interrupt(snapshot: Snapshot) -> None:
        if sum(trial.state == "complete" for trial in snapshot.trials) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(repository, search, interrupt)
    begun, folder = len(requests), repository.run_folder(search)
    assert not list(folder.rglob("*.pt"))
    shutil.rmtree(folder)
    parent, *trials = run(repository, search)
    assert [trial.state for trial in (parent, *trials)] == ["complete"] * 4
    assert [request.known for request in requests[begun:]] == [0] * len(requests[begun:])
    for trial in trials:
        assert trial.weights
        assert trial.weights.parents[0] == "yolov8n"
    assert {trained_epochs(repository.checkpoint(search, trial.number)) for trial in (parent, *trials)} == {2}


def test_a_store_that_fails_stops_the_search_and_costs_nothing(
    run: Run, repository: Repository, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators import location

    config = replace(config, weights="scratch", budgets=(parse_budget("1trials"),))
    search = repository.create_search("one", config.document())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(location, "_write_here", full)
        with pytest.raises(SearchError, match=r"No space left on device.*; nothing is lost: .* nas-yolo resume one"):
            run(repository, search)
    assert [trial.state for trial in repository.trials(search) if trial.failures] == ["paused"]
    assert repository.trials(search)[0].failures[0].cause == "storage"
    (trial, *_) = run(repository, search)
    assert trial.state == "complete"


def test_a_parent_that_takes_too_much_of_the_budget_is_given_up_for_trainings_from_scratch(
    run: Run,
    repository: Repository,
    config: SearchConfig,
    requests: list[TrainingRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nas_yolo.planning.first_weights.PARENT_SHARE", 1e-9)  # however fast this machine is
    config = replace(config, epochs=3, budgets=(parse_budget("1h"),))
    search = repository.create_search("one", config.document())

    def interrupt(snapshot: Snapshot) -> None:
        if any(trial.state == "complete" for trial in snapshot.trials):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(repository, search, interrupt)
    parent, *trials = repository.trials(search)
    assert (parent.state, len(parent.epochs)) == ("rejected", 2)
    assert parent.reason.endswith("; all trainings begin from scratch")
    assert requests[-1].parents == ()
    stock = next(trial for trial in trials if trial.preset == "yolov8n")
    assert stock.epochs[:2] == parent.epochs  # not trained again
    assert [one.known for one in requests if one.checkpoint == repository.checkpoint(search, stock.number)] == [2]
    assert weights_text([parent, *trials], config).startswith("from scratch, since yolov8n")


def test_memory_that_runs_out_costs_half_the_batch_once_and_a_parent_that_fails_its_weights(
    run: Run,
    repository: Repository,
    config: SearchConfig,
    requests: list[TrainingRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from evaluators.accuracy.trainer import ProxyTrainer

    train_epoch = ProxyTrainer.train_epoch

    def run_out(self: ProxyTrainer) -> float:
        number = int(self.request.checkpoint.parent.name)
        if number == 0 or number == 3 or (number == 2 and self.args.batch > 8):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return train_epoch(self)

    monkeypatch.setattr(ProxyTrainer, "train_epoch", run_out)
    search = repository.create_search("one", replace(config, epochs=1).document())
    parent, stock, halved, failed = run(repository, search)
    batches: dict[int, list[int]] = {}
    for request in requests:
        batches.setdefault(int(request.checkpoint.parent.name), []).append(request.arguments["batch"])
    assert batches == {0: [16, 8], 1: [16], 2: [16, 8], 3: [16, 8]}
    assert [trial.batch for trial in (parent, stock, halved, failed)] == [8, None, 8, 8]
    assert [trial.state for trial in (parent, stock, halved, failed)] == ["failed", "complete", "complete", "failed"]
    assert [failure.cause for failure in failed.failures] == ["oom", "oom"]
    assert failed.reason.startswith("oom: ")
    assert all(request.parents == () for request in requests)
    assert weights_text([parent, stock], config).startswith(
        "from scratch, since yolov8n, to begin with its weights, was"
    )


def test_a_training_that_is_over_its_time_is_tried_once_more_from_its_checkpoint(
    run: Run, repository: Repository, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[TrainingRequest] = []

    def begin(request: TrainingRequest) -> Iterator[Any]:
        begun.append(request)
        if len(begun) == 1:
            yield FirstWeights()  # before an epoch tells how long they take
        yield from training.train(request)

    monkeypatch.setattr("nas_yolo.work.train", begin)
    config = replace(config, budgets=(parse_budget("1trials"),), trial_time_s=1e-3)
    (trial,) = run(repository, repository.create_search("one", config.document()))
    assert trial.origin == "preset:yolov8n"  # one trial is too few to train a parent for
    assert [failure.cause for failure in trial.failures] == ["timeout"]
    assert trial.failures[0].message == "its training was ended after 0 s; as --trial-time says"
    assert (trial.state, len(trial.epochs)) == ("complete", 2)  # the first epoch told how long it should take

    monkeypatch.setattr("nas_yolo.planning.stop.time_limit_s", lambda expected_s, given_s: 0.0)
    (trial,) = run(repository, repository.create_search("two", replace(config, epochs=4).document()))
    assert [failure.cause for failure in trial.failures] == ["timeout", "timeout"]
    assert trial.state == "failed"
    assert trial.reason.startswith("timeout: its training was ended after 0 s; ")
    assert len(trial.epochs) == 2


def test_data_that_disappears_in_mid_search_stops_it_and_costs_nothing(
    run: Run,
    repository: Repository,
    config: SearchConfig,
    few_digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(few_digits.parent, tmp_path / "data")
    dataset = load_dataset(tmp_path / "data" / "data.yaml")
    images = tmp_path / "data" / "images"

    config = replace(config, dataset=dataset, epochs=1, weights="scratch", budgets=(parse_budget("2trials"),))
    search = repository.create_search("one", config.document())

    def remove(snapshot: Snapshot) -> None:
        if snapshot.trials and snapshot.trials[0].state == "complete" and images.exists():
            images.rename(tmp_path / "elsewhere")

    with pytest.raises(SearchError, match=r"images.* gone.*nas-yolo resume one"):
        run(repository, search, remove)
    before = repository.trials(search)
    assert [trial.state for trial in before] == ["complete", "ready"]
    with pytest.raises(UserError, match=r"are gone: .*images/train is gone"):
        check_dataset(search)

    (tmp_path / "elsewhere").rename(images)
    check_dataset(search)
    after = run(repository, search)
    assert [trial.state for trial in after] == ["complete", "complete"]
    assert after[0].epochs == before[0].epochs

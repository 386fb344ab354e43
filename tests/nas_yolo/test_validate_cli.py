"""`nas-yolo validate` on a search whose stock model was really trained, for a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from evaluators.accuracy import deployed
from evaluators.accuracy.request import DeployedRequest, TrainingRequest
from evaluators.accuracy.training import train
from evaluators.dataset import load_dataset
from evaluators.errors import LatencyError
from evaluators.evaluation import DeployedAccuracy, Epoch
from evaluators.latency import fingerprint
from evaluators.target import Target, save_targets
from nas_yolo.cli import main
from nas_yolo.environment import count_cores
from nas_yolo.results import deployed_document
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from storage import Repository, Search

Finished = tuple[Repository, Search]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["validate", *map(str, arguments)])


def refused(result: Result, *fragments: str) -> None:
    """Exit 1 with one line that contains the fragments."""
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    for fragment in fragments:
        assert fragment in line


@pytest.fixture
def own_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nano`, a device that cannot be reached, and `gpu`, whose runtime is not here."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    nano = Target("nano", ssh="me@nowhere.invalid", precision="int8", exclusive=True)
    save_targets({"nano": nano, "gpu": Target("gpu", device="tensorrt")})


@pytest.fixture
def validated(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> list[DeployedRequest]:
    """What was asked of `validate_deployed`, which answers at once: a file that finds a little less than its network.

    Trials 1 and 3 have a file where their weights would be, which says after which epoch it was written.
    """
    repository, search = finished
    asked: list[DeployedRequest] = []

    def answer(request: DeployedRequest, progress: Callable[[int], None]) -> DeployedAccuracy:
        asked.append(request)
        if request.target.device != "cpu":
            raise LatencyError("unsupported", "onnxruntime cannot be used here: it has no provider")
        progress(16)
        target = request.target
        return DeployedAccuracy(target.name, "cccc", target.precision, request.epochs, 16, 0.33, 0.5, 0.35, 0.54)

    monkeypatch.setattr(deployed, "validate_deployed", answer)
    for number in (1, 3):
        repository.checkpoint(search, number).parent.mkdir(parents=True)
        torch.save({"epoch": 3 if number == 1 else 1}, repository.checkpoint(search, number))
    return asked


def test_a_trained_trial_is_validated_for_real(finished: Finished, few_digits: Path) -> None:
    repository, search = finished
    dataset, checkpoint = load_dataset(few_digits), repository.checkpoint(search, 3)
    checkpoint.parent.mkdir(parents=True)
    request = TrainingRequest(
        load_preset("yolov8n-shufflev2"), dataset, ImageSize(64, 64), 1, 1, 0, checkpoint, checkpoint.parent / "scratch"
    )
    assert isinstance(list(train(request))[-1], Epoch)

    result = invoke("done", "--trial", 3, "--json")

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["name"], found["trial"], found["imgsz"]) == ("done", 3, 64)
    cpu = found["deployed"]["cpu"]
    assert (cpu["precision"], cpu["epochs"], cpu["images"]) == ("fp32", 1, 16)
    assert (cpu["runtime"], cpu["runtime_of"]) == ("onnxruntime", "target")
    assert cpu["fingerprint"] == fingerprint(Target("cpu"))
    stored = repository.trials(search)[3].deployed["cpu"]
    assert {key: cpu[key] for key in deployed_document(stored)} == deployed_document(stored)


def test_by_default_the_best_trial_on_the_targets_of_the_search(
    finished: Finished, validated: list[DeployedRequest]
) -> None:
    result = invoke("done")
    assert result.exit_code == 0, result.output
    (request,) = validated
    assert (request.target.name, request.architecture) == ("cpu", load_preset("yolov8n-ghost"))
    assert (request.epochs, request.imgsz, request.threads) == (3, ImageSize(64, 64), count_cores())
    assert "Trial 1 of done, 3 epochs, 16 images, 64 px" in result.stdout
    (row,) = (line.split() for line in result.stdout.splitlines() if line.strip().startswith("cpu"))
    assert row == ["cpu", "fp32", "0.350", "0.330", "-0.020", "0.540", "0.500", "-0.040"]
    assert "this machine" not in result.stdout


def test_several_targets_and_a_device_that_is_not_asked(
    finished: Finished, validated: list[DeployedRequest], own_targets: None
) -> None:
    result = invoke("done", "--trial", 1, "--target", "cpu", "--target", "nano")
    assert result.exit_code == 0, result.output
    assert [request.target.precision for request in validated] == ["fp32", "int8"]
    assert "nano: computed by this machine's onnxruntime, not by the device's." in result.stdout
    found = json.loads(invoke("done", "--trial", 1, "--target", "nano", "--json").stdout)
    assert found["deployed"]["nano"]["runtime_of"] == "this machine"
    assert sorted(finished[0].trials(finished[1])[1].deployed) == ["cpu", "nano"]


def test_a_target_that_cannot_be_validated_here_does_not_hide_the_others(
    finished: Finished, validated: list[DeployedRequest], own_targets: None
) -> None:
    result = invoke("done", "--trial", 1, "--target", "gpu", "--target", "cpu", "--json")
    assert result.exit_code == 1
    assert list(json.loads(result.stdout)["deployed"]) == ["cpu"]
    message = "Error: trial 1 was not validated on gpu: onnxruntime cannot be used here: it has no provider"
    assert result.stderr.strip() == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("done", "--trial", 2), "trial 2 has no trained weights; choose another with --trial"),
        (("done", "--trial", 9), "no trial 9; it has trials 0 to 3"),
        (("done", "--target", "nanoo"), "unknown target 'nanoo'"),
        (("don",), "did you mean 'done'"),
        (("done", "--trial", 1, "--target", "gpu"), "trial 1 was not validated on gpu"),
    ],
)
def test_what_cannot_be_validated_is_answered_in_one_line(
    arguments: tuple[Any, ...], message: str, validated: list[DeployedRequest], own_targets: None
) -> None:
    refused(invoke(*arguments), message)


def test_data_that_changed_since_the_search_is_refused(
    finished: Finished, validated: list[DeployedRequest], few_digits: Path
) -> None:
    label = next((few_digits.parent / "labels" / "val").glob("*.txt"))
    text = label.read_text()
    label.write_text(text + text.splitlines()[0] + "\n")
    try:
        refused(invoke("done", "--trial", 1), "changed since search 'done' began")
    finally:
        label.write_text(text)
    assert validated == []


def test_json_shows_the_accuracy_and_the_front_only_a_difference(
    finished: Finished, validated: list[DeployedRequest]
) -> None:
    repository, search = finished

    def shown(command: str, *options: str) -> str:
        return CliRunner().invoke(main, [command, "done", *options]).stdout

    trial = repository.trials(search)[1]
    good = DeployedAccuracy("cpu", "cccc", "fp32", 3, 16, 0.349, 0.54, 0.35, 0.54)
    repository.add_deployed(search, trial.number, good)
    assert "deployed" not in shown("front")
    (document,) = (found for found in json.loads(shown("front", "--json"))["front"] if found["trial"] == 1)
    assert document["deployed"]["cpu"]["map50_95"] == 0.349
    assert document["deployed"]["cpu"]["torch_map50_95"] == 0.35
    assert json.loads(shown("status", "--json"))["trials"][0]["deployed"] == {}

    invoke("done", "--trial", 1)
    assert "Trial 1 deployed in fp32: -0.020 mAP50-95 against PyTorch" in shown("front")
    before = replace(good, epochs=1, map50_95=0.1)  # of a training that went on since
    repository.add_deployed(search, trial.number, before)
    assert "deployed" not in shown("front")

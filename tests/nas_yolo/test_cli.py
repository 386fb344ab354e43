"""The command line as its users meet it: one line for a mistake, one JSON document for a script."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from evaluators.complexity import predict_size
from evaluators.errors import LatencyError
from evaluators.evaluation import FirstWeights
from nas_yolo.application import make_config
from nas_yolo.application.checks import check_pretrained
from nas_yolo.cli import main
from nas_yolo.config import DEFAULT_WEIGHTS, SearchConfig
from search_spaces import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.model_file import read_model
from search_spaces.presets import load_preset, presets
from search_spaces.space_file import load_space
from search_spaces.space_reader import list_spaces
from storage import Repository, Search, default_url
from storage.events import BatchSet, WeightsTaken

SPACE = Path(__file__).parent / "space.yaml"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, *fragments: str) -> None:
    """Exit 1 with one line that contains the fragments."""
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    for fragment in fragments:
        assert fragment in lines[0]


@pytest.fixture
def search(few_digits: Path, database: str) -> Callable[..., Result]:
    """`nas-yolo search` with everything right but what a test changes; refused ones never start anything."""

    def run(**changes: object) -> Result:
        options: dict[str, object] = {"data": few_digits, "target": "cpu", "budget": "4trials", "imgsz": 64}
        options |= {"space": SPACE, "runner": "local"} | changes
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return invoke("search", *arguments)

    return run


@pytest.fixture
def broken_data(few_digits: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the data set with its YAML changed."""

    def make(**changes: Any) -> Path:
        shutil.copytree(few_digits.parent, tmp_path / "data", dirs_exist_ok=True)
        file = tmp_path / "data" / "data.yaml"
        document = yaml.safe_load(file.read_text()) | changes
        file.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
        return file

    return make


def test_data_that_is_missing_or_no_yaml(search: Callable[..., Result], tmp_path: Path) -> None:
    refused(search(data=tmp_path / "none.yaml"), "none.yaml does not exist")
    file = tmp_path / "bad.yaml"
    file.write_text("train: [unclosed")
    refused(search(data=file), "bad.yaml is not valid YAML")
    file.write_text("just words")
    refused(search(data=file), "must be a mapping")


def test_data_without_classes(search: Callable[..., Result], broken_data: Callable[..., Path]) -> None:
    refused(search(data=broken_data(names=[])), "0 classes")
    refused(search(data=broken_data(names=None)), "names is missing")


def test_data_without_images(search: Callable[..., Result], broken_data: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(search(data=broken_data(train=str(tmp_path / "empty"))), "no images in", "empty")
    refused(search(data=broken_data(val="nowhere")), "val images", "do not exist")


def test_labels_out_of_range(search: Callable[..., Result], broken_data: Callable[..., Path]) -> None:
    file = broken_data()
    label = next((file.parent / "labels" / "train").iterdir())
    label.write_text("0 0.5 0.5 0.1 0.1\n10 0.5 0.5 0.1 0.1\n")
    refused(search(data=file), f"{label.name}:2: class 10 is out of range")
    label.write_text("0 50 0.5 0.1 0.1\n")
    refused(search(data=file), "a coordinate is above 1", "search --skip-bad leaves such images out")


def test_an_unknown_target(search: Callable[..., Result]) -> None:
    refused(
        search(target="jetson"), "unknown target 'jetson'", "known: cpu", "To add a device: nas-yolo target add jetson"
    )


@pytest.mark.parametrize(
    ("budget", "message"),
    [("0h", "more than 0"), ("-3h", "more than 0"), ("soon", "not readable"), ("50", "not readable")],
)
def test_a_budget_that_is_none(search: Callable[..., Result], budget: str, message: str) -> None:
    refused(search(budget=budget), message)


def test_a_gpu_budget_without_a_gpu(search: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_yolo.application.machine.count_gpus", lambda: 0)
    refused(search(budget="50gpu-h"), "no GPU", "16cpu-h")


def test_an_unknown_space_block_sampler_runner_or_limit(search: Callable[..., Result], tmp_path: Path) -> None:
    refused(search(space="yolov8m"), "unknown space 'yolov8m'; did you mean 'yolov8")
    file = tmp_path / "my-space.yaml"
    file.write_text(SPACE.read_text().replace("ShuffleV2", "ShufleV2"))
    refused(search(space=file), "my-space.yaml:6: unknown block 'ShufleV2'; did you mean 'ShuffleV2'?")
    refused(search(sampler="tpee"), "did you mean 'tpe'?")
    refused(search(runner="rai"), "did you mean 'ray'?")
    refused(search(limit="latency<=3"), "did you mean 'latency_ms'?")
    refused(search(imgsz=100), "multiple of 32")
    refused(search(imgsz="96x60"), "--imgsz 96x60 must be a multiple of 32, or WIDTHxHEIGHT of two, e.g. 96x64")
    file.write_text(SPACE.read_text() + "imgsz: [32, 64]\n")
    refused(search(space=file, imgsz="64x32"), "--imgsz 64x32", "must be one that the space chooses from: (32, 64)")
    refused(search(epochs=0), "at least 1")


def test_training_arguments(search: Callable[..., Result]) -> None:
    refused(search(train="bach=3"), "did you mean 'batch'?")
    refused(search(train="epochs=3"), "decided by the search itself")
    refused(search(train="batch"), "KEY=VALUE")
    refused(search(train="lr0=fast"), "lr0")


def test_a_database_that_cannot_be_written(search: Callable[..., Result], tmp_path: Path) -> None:
    refused(search(storage=f"sqlite:///{tmp_path}"), "cannot be opened")
    refused(search(storage="sqlite:////no/such/folder/x.db"), "cannot be opened")
    url = f"sqlite:///{tmp_path / 'there.db'}"
    Repository(url).close()
    refused(search(storage=f"sqlite:///file:{tmp_path / 'there.db'}?mode=ro&uri=true"), "readonly")


def test_a_database_of_a_newer_version(search: Callable[..., Result], tmp_path: Path) -> None:
    import sqlite3

    Repository(f"sqlite:///{tmp_path / 'new.db'}").close()
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("UPDATE nas_yolo_version SET version_num = '9999'")
    connection.close()
    refused(search(storage=f"sqlite:///{tmp_path / 'new.db'}"), "newer nas-yolo", "upgrade")


def test_a_name_that_is_taken(finished: object, search: Callable[..., Result]) -> None:
    refused(search(name="done"), "nas-yolo resume done")
    refused(search(name="../up"), "letters, digits")


def test_front_as_json_and_for_people(finished: tuple[Repository, Search]) -> None:
    document = json.loads(invoke("front", "done", "--json").stdout)
    assert document["name"] == "done"
    assert document["budget"] == {"limit": 2.0, "spent": 0.0, "unit": "h"}
    assert [(t["trial"], t["map50_95"], t["latency_ms"], t["latency_ci_ms"]) for t in document["front"]] == [
        (1, 0.35, {"cpu": 1.5}, {"cpu": [1.4, 1.6]}),
        (2, 0.40, {"cpu": 3.0}, {"cpu": [2.9, 3.1]}),
    ]
    assert [t["trial"] for t in document["baselines"]] == [0]
    member = document["front"][0]
    assert (member["params_m"], member["gflops"], member["epochs"]) == (2.0, 1.0, 3)
    assert Architecture.from_document(member["architecture"]) == load_preset("yolov8n-ghost")
    assert document["trust"]["verdict"].startswith("Trial 1 beats stock yolov8n by 0.050 mAP50-95")
    assert document["trust"]["fidelity_correlation"] == {}  # three epochs are one rung
    people = invoke("front", "done")
    assert people.exit_code == 0
    assert "0.350" in people.output
    assert "yolov8n-ghost" in people.output


def test_repeats_are_shown_but_are_no_trials_that_were_asked_for(
    finished: tuple[Repository, Search], by_hand: Any
) -> None:
    repository, search = finished
    by_hand(repository, search).trial(4, load_preset("yolov8n-ghost"), "repeat:1", 0.1, 0.2, 0.36, state="complete")
    (row,) = json.loads(invoke("list", "--json").stdout)
    assert (row["trials"], row["complete"]) == (4, 3)
    status = json.loads(invoke("status", "done", "--json").stdout)
    assert [trial["origin"] for trial in status["trials"]][4:] == ["repeat:1"]
    assert status["trust"]["noise_map50_95"]["degrees_of_freedom"] == 1
    assert "repeat of 1" in invoke("status", "done").output
    for command in ("status", "front"):
        assert "Noise between seeds: standard deviation 0.007" in invoke(command, "done").output
    document = json.loads(invoke("front", "done", "--json").stdout)
    assert [(t["trial"], t["map50_95_seeds"]) for t in document["front"]] == [(1, [0.35, 0.36]), (2, [0.40])]
    assert [t["indistinguishable_from"] for t in document["front"]] == [[2, 0], [1, 0]]


def test_the_number_of_repeats(search: Callable[..., Result], few_digits: Path) -> None:
    given = {"data": str(few_digits), "targets": ("cpu",), "budgets": ("2h",), "space": str(SPACE), "runner": "local"}
    assert [make_config(**given, repeats=repeats).repeats for repeats in (None, 0, 3)] == [None, 0, 3]
    assert search(repeats=-1).exit_code == 2


def test_where_checkpoints_are_kept(
    search: Callable[..., Result], few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"data": str(few_digits), "targets": ("cpu",), "budgets": ("2h",), "space": str(SPACE), "runner": "local"}
    monkeypatch.chdir(tmp_path)
    config = make_config(**given, artifacts="kept")
    assert config.artifacts == str(tmp_path / "kept")
    assert SearchConfig.from_document(json.loads(json.dumps(config.document()))) == config
    repository = Repository(default_url())
    here, there = (
        repository.create_search(name, make_config(**given, artifacts=url).document())
        for name, url in (("here", None), ("there", "memory://bucket/searches"))
    )
    assert repository.checkpoint(here, 7) == repository.run_folder(here) / "trials" / "00007" / "checkpoint.pt"
    name = repository.run_folder(there).name
    assert str(repository.checkpoint(there, 7)) == f"memory://bucket/searches/{name}/trials/00007/checkpoint.pt"
    refused(search(artifacts="nosuch://bucket"), "nosuch://bucket cannot be used")
    (tmp_path / "file").touch()
    refused(search(artifacts="file"), "file/nas-yolo.probe cannot be written")
    with repository.claimed(there) as claim:
        repository.set_config(there, there.config | {"artifacts": str(tmp_path / "file")}, claim)
    refused(invoke("resume", "there"), "file/nas-yolo.probe cannot be written")


def test_where_first_weights_come_from(
    search: Callable[..., Result], few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"data": str(few_digits), "targets": ("cpu",), "budgets": ("2h",), "space": str(SPACE), "runner": "local"}
    import torch
    from ultralytics.nn.tasks import DetectionModel

    file, other = tmp_path / "mine.pt", tmp_path / "other.pt"
    torch.save({"model": DetectionModel("yolov8n.yaml", nc=2, verbose=False).half()}, file)
    other.write_text("no checkpoint")
    monkeypatch.chdir(tmp_path)
    config = make_config(**given, pretrained="mine.pt", trial_time="2h")
    assert (config.weights, config.pretrained) == (DEFAULT_WEIGHTS, str(file.resolve()))
    assert make_config(**given, pretrained="mine.pt", inherit=True).weights == "inherited"
    assert config.trial_time_s == 7200
    assert SearchConfig.from_document(json.loads(json.dumps(config.document()))) == config
    asked = [make_config(**given, inherit=inherit) for inherit in (None, True, False)]
    assert [one.weights for one in asked] == [DEFAULT_WEIGHTS, "inherited", "scratch"]
    old = config.document()
    for key in ("weights", "pretrained", "pretrained_sha256", "trial_time_s", "artifacts"):
        del old[key]
    assert SearchConfig.from_document(old) == make_config(**given, inherit=False)

    both = ("search", "--data", few_digits, "--target", "cpu", "--budget", "2h", "--pretrained", file, "--from-scratch")
    refused(invoke(*both), "give --pretrained or --from-scratch, not both")
    refused(search(pretrained=tmp_path / "none.pt"), "none.pt does not exist; give an Ultralytics checkpoint")

    def offline(*_: object) -> str:
        raise ConnectionError("offline")

    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", offline)
    refused(search(pretrained="yolov8n.pt"), "--pretrained yolov8n.pt is no file here, and could not be downloaded")

    repository = Repository(default_url())
    started = repository.create_search("gone", config.document())
    check_pretrained(started)
    refused(search(pretrained=other), "other.pt is no PyTorch checkpoint; give a checkpoint as Ultralytics' training")
    file.rename(tmp_path / "elsewhere")
    file.write_text("another")
    refused(invoke("resume", "gone"), "mine.pt, with which the trainings of 'gone' begin, is another file now")
    file.unlink()
    refused(invoke("resume", "gone"), "mine.pt, with which the trainings of 'gone' begin, is gone")


def test_a_space_that_can_have_no_library_inherits(few_digits: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.read_text() + "imgsz: [32, 64]\n")
    given = {"data": str(few_digits), "targets": ("cpu",), "budgets": ("2h",), "runner": "local", "imgsz": 64}
    assert make_config(**given, space=str(SPACE)).weights == "library"
    assert make_config(**given, space=str(space)).weights == "inherited"


@pytest.mark.parametrize(
    ("value", "fragment"), [("2gpu-h", "--trial-time '2gpu-h' must be a time"), ("soon", "'soon' is not readable")]
)
def test_a_trial_time_that_is_none(search: Callable[..., Result], value: str, fragment: str) -> None:
    refused(search(**{"trial-time": value}), fragment)


@pytest.mark.parametrize(
    ("stored", "goes_on"),
    [
        ({"subset": 0.5, "small_imgsz": None}, False),
        ({"subset": 1.0, "small_imgsz": 32}, False),
        ({"subset": 1.0, "small_imgsz": "64x32"}, False),
        ({"subset": 1.0, "small_imgsz": None}, True),  # as searches that did without were stored
        ({"subset": 1}, True),
    ],
)
def test_a_search_whose_first_rungs_saw_fewer_or_smaller_images_is_read_but_does_not_go_on(
    finished: tuple[Repository, Search], monkeypatch: pytest.MonkeyPatch, stored: dict[str, Any], goes_on: bool
) -> None:
    monkeypatch.setattr("nas_yolo.application.run.OpenSearch.run", lambda *_: None)
    repository, search = finished
    with repository.claimed(search) as claim:
        repository.set_config(search, search.config | stored, claim)
    for command in (("list",), ("status", "done"), ("front", "done"), ("front", "done", "--json")):
        assert invoke(*command).exit_code == 0
    if goes_on:
        assert invoke("resume", "done").exit_code == 0
    else:
        refused(invoke("resume", "done"), "begun with --subset or --small-imgsz, which are gone", "start a new search")


def test_front_and_status_say_what_trainings_began_with(
    finished: tuple[Repository, Search], monkeypatch: pytest.MonkeyPatch, by_hand: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    repository, search = finished
    assert "Trainings: from scratch." in invoke("front", "done").output
    assert "inherited" not in invoke("front", "done").output
    with repository.claimed(search) as claim:
        repository.set_config(search, search.config | {"weights": "inherited"}, claim)
    rows = by_hand(repository, search)
    rows.trial(4, load_preset("yolov8n"), "parent:yolov8n", 0.9, 0.9, 0.9, state="complete")
    for number, share in enumerate((1.0, 0.87, 0.45)):
        rows.record(WeightsTaken(number, FirstWeights(("yolov8n",), share)))
    rows.record(BatchSet(1, 4))

    regime = "first weights from yolov8n, trained 3 epochs on this data"
    for command in ("front", "status"):
        output = invoke(command, "done").output
        assert f"Trainings: {regime}." in output
        for share in ("100%", "87%", "45%"):
            assert share in output
        document = json.loads(invoke(command, "done", "--json").stdout)
        assert document["weights"] == regime
    assert document["trials"][1]["weights"] == {"parents": ["yolov8n"], "share": 0.87}
    assert (document["trials"][3]["weights"], document["trials"][1]["batch"]) == (None, 4)
    with repository.claimed(search) as claim:
        repository.set_config(search, search.config | {"weights": "library"}, claim)
    blocks = "first weights from blocks that imitate yolov8n, trained 3 epochs on this data"
    assert f"Trainings: {blocks}." in invoke("front", "done").output
    assert "87%" in invoke("front", "done").output
    assert "yolov8n, for first weights" in output
    assert "batch of 4: memory had run out" in output
    (row,) = json.loads(invoke("list", "--json").stdout)
    assert (row["trials"], row["complete"]) == (4, 3)


def test_status_and_list(finished: tuple[Repository, Search]) -> None:
    status = json.loads(invoke("status", "done", "--json").stdout)
    assert [trial["state"] for trial in status["trials"]] == ["complete"] * 3 + ["paused"]
    assert status["worked_on"] is False
    (row,) = json.loads(invoke("list", "--json").stdout)
    assert (row["name"], row["state"], row["trials"], row["complete"]) == ("done", "done", 4, 3)
    for command in (("status", "done"), ("list",)):
        assert invoke(*command).exit_code == 0


def test_export_chooses_the_best_that_is_as_fast_as_stock(finished: tuple[Repository, Search], tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    output = tmp_path / "best.yaml"
    result = json.loads(invoke("export", "done", "-o", output, "--json").stdout)
    assert result == {
        **{"trial": 1, "path": str(output), "files": [str(output)], "kind": "stock"},
        **{"params": 2_000_001, "needs_nas_yolo": []},
    }
    text = output.read_text()
    assert "C2fGhost" not in text  # written in Ultralytics' own rows
    assert "# stock, for plain Ultralytics: yolo train model=best.yaml" in text
    model = DetectionModel(str(output), verbose=False)
    assert model.yaml["nc"] == 10
    assert (
        sum(parameter.numel() for parameter in model.parameters())
        == predict_size(load_preset("yolov8n-ghost"), 10, ImageSize(64, 64)).params
    )
    assert json.loads(invoke("export", "done", "--max-latency", 3, "-o", output, "--json").stdout)["trial"] == 2
    stock = invoke("export", "done", "--trial", 0, "-o", output)
    assert "Trial 0 of done, stock, Ultralytics alone loads it:" in stock.output
    assert f"Train it with: yolo train model={output} data=..." in stock.output


def test_export_of_a_design_that_needs_nas_yolo(finished: tuple[Repository, Search], tmp_path: Path) -> None:
    from search_spaces import hook

    output = tmp_path / "best.yaml"
    result = json.loads(invoke("export", "done", "--trial", 2, "-o", output, "--json").stdout)
    assert (result["kind"], result["files"]) == ("needs nas-yolo", [str(output)])  # it was never trained
    assert result["needs_nas_yolo"] == ["ConvNeXtStem", "ConvNeXtDown", "ConvNeXt"]
    assert "nas-yolo yolo train model=best.yaml" in output.read_text()
    model, expected = read_model(str(output)).build(), hook.build(hook.model_file(load_preset("yolov8n-convnext"), 10))
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}


FILES = ("best.yaml", "weights.pt", "best.onnx", "README.md")


@pytest.fixture
def weights(finished: tuple[Repository, Search]) -> Callable[[int], dict[str, torch.Tensor]]:
    """Puts a checkpoint where a training would have left it."""
    from search_spaces import hook

    repository, search = finished

    def train(number: int) -> dict[str, torch.Tensor]:
        architecture = repository.trials(search)[number].architecture
        state: dict[str, torch.Tensor] = hook.build(hook.model_file(architecture, 10)).state_dict()
        checkpoint = repository.checkpoint(search, number)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"ema": state}, checkpoint)
        return state

    return train


def test_export_writes_a_folder_too_where_the_yaml_alone_is_not_enough(
    weights: Callable[[int], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    trained, output = weights(2), tmp_path / "fast.yaml"
    result = json.loads(invoke("export", "done", "--trial", 2, "-o", output, "--json").stdout)
    assert result["files"] == [str(output), *(str(tmp_path / "fast" / name) for name in FILES)]
    assert all(Path(file).stat().st_size for file in result["files"])
    saved = torch.load(tmp_path / "fast" / "weights.pt", weights_only=True)
    assert list(saved) == list(trained)
    assert all(torch.equal(saved[key], trained[key]) for key in trained)
    readme = (tmp_path / "fast" / "README.md").read_text()
    assert "hook.install()" in readme
    assert "nas-yolo (for ConvNeXtStem, ConvNeXtDown, ConvNeXt)" in readme
    assert output.read_text() != (tmp_path / "fast" / "best.yaml").read_text()  # which names itself
    people = invoke("export", "done", "--trial", 2, "-o", output)
    assert "needs nas-yolo, for ConvNeXtStem, ConvNeXtDown, ConvNeXt:" in people.output
    assert str(tmp_path / "fast" / "best.onnx") in people.output


def test_export_of_a_stock_design_as_yaml_or_as_a_folder(
    weights: Callable[[int], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    import onnxruntime
    from ultralytics.nn.tasks import DetectionModel

    weights(1)
    result = json.loads(invoke("export", "done", "-o", tmp_path / "ghost.yaml", "--json").stdout)
    assert result["files"] == [str(tmp_path / "ghost.yaml")]  # enough, and all that was asked for
    assert not (tmp_path / "ghost").exists()
    folder = tmp_path / "ghost"
    result = json.loads(invoke("export", "done", "-o", folder, "--json").stdout)
    assert result["path"] == str(folder)
    assert result["files"] == [str(folder / name) for name in FILES]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)  # nothing temporary is left
    DetectionModel(str(folder / "best.yaml"), verbose=False).load_state_dict(
        torch.load(folder / "weights.pt", weights_only=True)
    )
    (images,) = onnxruntime.InferenceSession(folder / "best.onnx", providers=["CPUExecutionProvider"]).get_inputs()
    assert images.shape == [1, 3, 64, 64]
    readme = (folder / "README.md").read_text()
    assert "nas-yolo yolo" not in readme
    assert "8: '8', 9: '9'}" in readme  # the classes by number
    assert f"Train it with: yolo train model={folder / 'best.yaml'}" in invoke("export", "done", "-o", folder).output


def test_export_to_where_it_cannot_be_written(
    weights: Callable[[int], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    weights(1)
    (tmp_path / "file").write_text("something else")
    refused(invoke("export", "done", "-o", tmp_path / "file"), "is not a folder")
    (tmp_path / "best.yaml").mkdir()
    refused(invoke("export", "done", "-o", tmp_path / "best.yaml"), "cannot write")
    assert (tmp_path / "file").read_text() == "something else"


def test_an_exported_model_trains_with_the_yolo_command(
    finished: tuple[Repository, Search], few_digits: Path, tmp_path: Path
) -> None:
    commands = {1: [str(Path(sys.executable).parent / "yolo")], 2: [sys.executable, "-m", "nas_yolo", "yolo"]}
    for trial, command in commands.items():  # C2fGhost, in stock rows, and ConvNeXt
        output = tmp_path / f"trial{trial}.yaml"
        assert invoke("export", "done", "--trial", trial, "-o", output).exit_code == 0
        command = [*command, "train", f"model={output}", f"data={few_digits}"]
        command += ["epochs=1", "imgsz=32", "device=cpu", "workers=0", "plots=False", f"project={tmp_path}", "name=run"]
        done = subprocess.run([*command, "exist_ok=True"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (tmp_path / "run" / "weights" / "last.pt").unlink()


def test_export_of_what_is_not_there(finished: tuple[Repository, Search], tmp_path: Path) -> None:
    output = tmp_path / "best.yaml"
    refused(invoke("export", "done", "--trial", 9, "-o", output), "no trial 9; it has trials 0 to 3")
    refused(invoke("export", "done", "--trial", -1, "-o", output), "no trial -1")
    refused(invoke("export", "done", "--max-latency", 0.5, "-o", output), "the fastest takes 1.5 ms")
    refused(invoke("export", "done", "-o", tmp_path / "folder"), "no trained weights; export its YAML: -o folder.yaml")
    refused(invoke("export", "don", "-o", output), "did you mean 'done'")
    refused(invoke("export", "done", "-o", tmp_path / "no" / "best.yaml"), "does not exist")
    assert invoke("export", "done", "--trial", 1, "--max-latency", 3, "-o", output).exit_code == 2
    assert not output.exists()


def test_resume_on_data_that_changed_or_is_gone(
    search: Callable[..., Result], broken_data: Callable[..., Path], database: str
) -> None:
    file = broken_data()
    config = make_config(data=str(file), targets=("cpu",), budgets=("2h",), imgsz=64, runner="local")
    Repository(database).create_search("mine", config.document())
    label = next((file.parent / "labels" / "val").iterdir())
    label.write_text(label.read_text() + "1 0.5 0.5 0.1 0.1\n")
    refused(invoke("resume", "mine"), "changed since search 'mine' began")
    file.unlink()  # the search has its own reading of it
    refused(invoke("resume", "mine"), "changed since search 'mine' began")
    shutil.rmtree(file.parent)
    refused(invoke("resume", "mine"), "are gone", "images/train is gone", "put them back")


def test_a_resume_that_is_refused_changes_nothing(
    broken_data: Callable[..., Path], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, kept = broken_data(), tmp_path / "kept"
    config = make_config(
        data=str(file), targets=("cpu",), budgets=("2h",), imgsz=64, runner="local", artifacts=str(kept)
    )
    repository = Repository(database)
    repository.create_search("mine", config.document())
    begun = repository.search("mine")

    def unchanged() -> bool:
        return repository.search("mine") == begun and not kept.exists() and not repository.run_folder(begun).exists()

    with repository.claimed(begun):
        refused(invoke("resume", "mine", "--budget", "100h"), "'mine' is being worked on by process")
        assert unchanged()
    monkeypatch.setattr("nas_yolo.application.machine.count_gpus", lambda: 0)
    refused(invoke("resume", "mine", "--budget", "9gpu-h"), "no GPU")
    label = next((file.parent / "labels" / "val").iterdir())
    label.write_text(label.read_text() + "1 0.5 0.5 0.1 0.1\n")
    refused(invoke("resume", "mine", "--budget", "100h"), "changed since search 'mine' began")
    assert unchanged()
    assert not repository.is_claimed(begun)


def test_resume_with_a_gpu_budget_where_there_is_no_gpu(
    few_digits: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(data=str(few_digits), targets=("cpu",), budgets=("2h",), imgsz=64, runner="local")
    Repository(database).create_search("mine", config.document() | {"budgets": ["2gpu-h"]})
    monkeypatch.setattr("nas_yolo.application.machine.count_gpus", lambda: 0)
    refused(invoke("resume", "mine"), "budget 2gpu-h: this machine has no GPU")  # it would never end


def test_a_search_that_is_refused_leaves_no_folder(
    finished: object, search: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(target: object) -> dict[str, Any]:
        raise LatencyError("unreachable", "it does not answer")

    refused(search(artifacts=tmp_path / "kept", name="done"), "nas-yolo resume done")
    refused(search(artifacts=tmp_path / "kept", name="../up"), "letters, digits")
    monkeypatch.setattr("nas_yolo.application.checks.identify", silent)
    refused(search(artifacts=tmp_path / "kept"), "target cpu cannot be measured on: it does not answer")
    assert not (tmp_path / "kept").exists()


def test_resume_of_what_is_not_there(finished: tuple[Repository, Search]) -> None:
    refused(invoke("resume", "other"), "unknown search 'other'")
    refused(invoke("resume", "done", "--budget", "0h"), "more than 0")


def test_profile_shows_what_ultralytics_counts(database: str) -> None:
    ghost = json.loads(invoke("profile", "yolov8n-ghost", "--json").stdout)
    assert (ghost["params"], round(ghost["gflops"], 1), ghost["layers"]) == (2_502_908, 7.1, 323)
    stock = json.loads(invoke("profile", "yolov8n.yaml", "--json").stdout)
    assert (stock["params"], round(stock["gflops"], 1)) == (3_157_200, 8.9)


def test_profile_says_which_model_and_scale_it_took(database: str, tmp_path: Path) -> None:
    ghost = json.loads(invoke("profile", "yolov8n-ghost.yaml", "--imgsz", 64, "--json").stdout)
    assert (ghost["params"], ghost["origin"]) == (1_865_316, "Ultralytics")
    assert (ghost["scale"], ghost["scale_from"]) == ("n", "file name")
    assert ghost["namesakes"] == ["nas-yolo's known design yolov8n-ghost"]
    said = invoke("profile", "yolov8n-ghost", "--imgsz", 64).stdout.splitlines()[0]
    assert said == "yolov8n-ghost: known design of nas-yolo; another model than Ultralytics' own yolov8n-ghost.yaml"


def test_profile_takes_a_checkpoint(database: str, tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    network = DetectionModel("yolo11n.yaml", nc=2, verbose=False)
    network.names = {0: "cat", 1: "dog"}
    torch.save({"ema": network.half()}, tmp_path / "best.pt")
    document = json.loads(invoke("profile", tmp_path / "best.pt", "--imgsz", 64, "--json").stdout)
    assert (document["classes"], document["names"], document["scale"]) == (2, ["cat", "dog"], "n")
    assert document["params"] == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.usefixtures("quick_probe")
def test_profile_measures_once_and_again_when_asked(database: str) -> None:
    def measured(*more: str) -> dict[str, Any]:
        result = invoke("profile", "yolov8n", "--target", "cpu", "--imgsz", 64, "--json", *more)
        assert result.exit_code == 0, result.output
        latency: dict[str, Any] = json.loads(result.stdout)["latency_ms"]["cpu"]
        return latency

    first = measured()
    assert first["ci"][0] <= first["latency"] <= first["ci"][1]
    assert (first["runtime"], first["precision"], first["threads"]) == ("onnxruntime", "fp32", 1)
    assert first["quality"] == "good"  # only good measurements are kept
    assert measured() == first
    assert measured("--fresh")["median"] != first["median"]


@pytest.mark.usefixtures("quick_probe")
def test_profile_at_a_size_that_is_not_square(database: str) -> None:
    result = invoke("profile", "yolov8n", "--target", "cpu", "--imgsz", "96x64", "--json")
    assert result.exit_code == 0, result.output
    wide = json.loads(result.stdout)
    square = json.loads(invoke("profile", "yolov8n", "--imgsz", 64, "--json").stdout)
    assert (wide["imgsz"], square["imgsz"]) == ("96x64", 64)
    assert wide["gflops"] == pytest.approx(1.5 * square["gflops"], rel=0.01)
    assert wide["latency_ms"]["cpu"]["quality"] == "good"


def test_profile_of_what_is_not_there(database: str, tmp_path: Path) -> None:
    refused(invoke("profile", "yolov8n-gost"), "did you mean 'yolov8n-ghost'?")
    refused(invoke("profile", "none.yaml"), "does not exist")
    refused(invoke("profile", "yolov8n", "--target", "jetson"), "unknown target")
    refused(invoke("profile", "yolov8n", "--imgsz", 33), "multiple of 32")
    bad = tmp_path / "bad.yaml"
    bad.write_text("nc: 1\nbackbone: [[-1, 1, NoSuchBlock, [8]]]\nhead: []\n")
    refused(invoke("profile", bad), "head has no rows")
    refused(invoke("profile", "yolov8n.pt"), "yolov8n.pt does not exist, and nothing is downloaded")


def test_models_and_spaces_list_the_whole_library() -> None:
    models = {row["name"]: row for row in json.loads(invoke("models", "--json").stdout)}
    assert list(models) == list(presets())
    assert models["yolov9t-focal"] == {
        **{"name": "yolov9t-focal", "family": "yolov9", "what": presets()["yolov9t-focal"].description},
        "blocks": ["Conv", "ELAN1", "AConv", "RepNCSPELAN4", "FocalModulation"],
    }
    spaces = {row["name"]: row for row in json.loads(invoke("spaces", "--json").stdout)}
    assert tuple(spaces) == list_spaces()
    for name, row in spaces.items():
        assert Path(row["file"]).is_file()
        assert row["architectures"] == load_space(name).size
        assert row["family"] == load_space(name).family
    for command, names in (("models", models), ("spaces", spaces)):
        people = invoke(command)
        assert people.exit_code == 0
        assert all(name in people.output for name in names)


def test_doctor(database: str) -> None:
    checks = json.loads(invoke("doctor", "--json").stdout)
    assert all(check["ok"] for check in checks)


def test_only_stock_blocks(search: Callable[..., Result], few_digits: Path, tmp_path: Path) -> None:
    given = {"data": str(few_digits), "targets": ("cpu",), "budgets": ("2h",), "space": str(SPACE), "runner": "local"}
    everything, stock = (make_config(**given, blocks=blocks).space for blocks in ("all", "stock"))
    assert everything == load_space(str(SPACE))
    assert stock == everything.restricted_to_stock()
    assert stock.choices["P2.block"] == ("Conv", "C2f")
    assert search(blocks="stok").exit_code == 2
    (tmp_path / "ours.yaml").write_text(SPACE.read_text().replace("block: [C2f, ConvNeXt]", "block: [UIB, ConvNeXt]"))
    refused(search(space=tmp_path / "ours.yaml", blocks="stock"), "P4.block has no block that stock Ultralytics knows")


def test_a_limit_that_nothing_keeps(search: Callable[..., Result]) -> None:
    refused(search(limit="params_m<=0.01"), "--limit params_m<=0.01 leaves nothing of space", "raise the limit")


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    result = invoke("serch")
    assert result.exit_code == 2
    assert "did you mean 'search'?" in result.stderr
    assert invoke("search", "--bugdet", "8h").exit_code == 2
    assert invoke("search", "--data", "x.yaml").exit_code == 2


def test_debug_shows_the_traceback(database: str) -> None:
    result = invoke("--debug", "front", "none")
    assert type(result.exception).__name__ == "SearchNotFoundError"


def test_the_dashboard_refuses_what_it_cannot_serve(finished: tuple[Repository, Search]) -> None:
    import socket

    refused(invoke("dashboard", "other"), "unknown search")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = invoke("dashboard", "done", "--port", taken.getsockname()[1])
    assert result.exit_code == 1
    assert "choose another with --port" in result.stderr

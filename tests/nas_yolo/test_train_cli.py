"""`nas-yolo train` on two trials that were really trained, for a moment; one of them needs nas-yolo and no NMS."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from ultralytics.nn.tasks import load_checkpoint

from evaluators.accuracy.checkpoints import trained_weights
from evaluators.accuracy.full import FinalTrainer, first_network, read_weights
from evaluators.accuracy.request import TrainingRequest
from evaluators.accuracy.training import train
from evaluators.dataset import load_dataset
from evaluators.evaluation import Epoch, Latency
from nas_yolo.application import make_config
from nas_yolo.cli import main
from search_spaces import Architecture, Level, Neck, Stage, Stem
from search_spaces.image_size import ImageSize
from search_spaces.model_file import read_model
from search_spaces.presets import load_preset
from storage import Repository
from storage.events import EpochEnded

STAGES = ("C2fGhost", "C2f", "C2f", "C2f")
LEVELS = (Level("C2f", 16, 1), Level("C2f", 24, 1), Level("C2f", 32, 1))
STOCK = Architecture(
    "yolov8",
    Stem("Conv", 16),
    tuple(Stage("Conv", block, width, 1) for block, width in zip(STAGES, (16, 16, 24, 32), strict=True)),  # type: ignore[arg-type]
    Neck("Conv", LEVELS),
)
OURS = Architecture(
    "yolo26",
    Stem("Conv", 16),
    tuple(Stage("Conv", "ShuffleV2", width, 1) for width in (16, 16, 24, 32)),  # type: ignore[arg-type]
    Neck("Conv", tuple(Level("C3k2", width, 1) for width in (16, 24, 32))),  # type: ignore[arg-type]
)
FAST = "deterministic=False"  # a CPU's trainings are so without being asked; asking costs 2 s of imports in a process
TRAINING = ("batch=8", "optimizer=AdamW", "lr0=1e-3", "mosaic=0.0")


class Trained(SimpleNamespace):
    """A search `tiny` with a trial of each architecture.

    Attributes:
        data: The data YAML.
        folder: For runs.
        checkpoints: Of the trials.
    """

    data: Path
    folder: Path
    url: str
    checkpoints: list[Path]

    def command(self, *arguments: object) -> list[str]:
        return ["train", *map(str, arguments), "--storage", self.url]

    def invoke(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, self.command("tiny", *arguments))

    def refused(self, *arguments: object) -> str:
        """The one line that is the answer."""
        result = self.invoke(*arguments)
        assert result.exit_code == 1, (result.output, result.exception)
        assert result.stdout == ""
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith("Error: ")
        return line


@pytest.fixture(scope="module")
def trained(few_digits: Path, tmp_path_factory: pytest.TempPathFactory, by_hand: Any) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    data = folder / "few" / "data.yaml"  # of its own: a test changes it
    shutil.copytree(few_digits.parent, data.parent)
    url = f"sqlite:///{folder / 'search.db'}"
    repository = Repository(url)
    config = make_config(str(data), ("cpu",), ("1h",), imgsz=64, epochs=1, runner="local", training=TRAINING, seed=3)
    search = repository.create_search("tiny", config.document())
    checkpoints, rows = [], by_hand(repository, search)
    for number, architecture in enumerate((STOCK, OURS)):
        rows.trial(number, architecture, "sampler:random")
        repository.add_latency(
            architecture,
            10,
            Latency("cpu", config.targets[0][1], ImageSize(64, 64), 2, 1.9, 2.1, 1, 2, 2, 2, 9, 0, 0, "good"),
        )
        checkpoint = repository.checkpoint(search, number)
        checkpoint.parent.mkdir(parents=True)
        request = TrainingRequest(
            architecture,
            config.dataset,
            config.imgsz,
            1,
            1,
            3,
            checkpoint,
            folder / "scratch",
            arguments=config.training,
        )
        for report in train(request):
            assert isinstance(report, Epoch), report
            rows.record(EpochEnded(number, report))
        rows.move(number, "ready", "training", "complete")
        checkpoints.append(checkpoint)
    rows.trial(2, load_preset("yolov8n"), "preset:yolov8n")  # which was not trained, nor this:
    rows.trial(3, replace(STOCK, activation="ReLU"), "sampler:random")
    return Trained(data=data, folder=folder, url=url, checkpoints=checkpoints)


@pytest.fixture(scope="module")
def run(trained: Trained) -> Any:
    """Three epochs of trial 0, stopped by Ctrl-C in the second, resumed to the end in another process with `--json`."""
    seen: list[dict[str, torch.Tensor]] = []

    class Watched(FinalTrainer):
        def optimizer_step(self) -> None:
            seen.append({name: value.detach().clone() for name, value in self.model.named_parameters()})
            super().optimizer_step()
            if self.epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the test runner's processes ignore it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluators.accuracy.full.FinalTrainer", Watched)
        stopped = trained.invoke("--trial", 0, "--epochs", 3, f"project={trained.folder}", "nbs=8", FAST)
    signal.signal(signal.SIGINT, before)
    weights = trained.folder / "tiny-trial-0" / "weights"
    saved = read_weights(weights / "last.pt")
    given = ["--trial", 0, "resume=True", "plots=False", f"project={trained.folder}", "--json"]
    resumed = subprocess.run(
        [sys.executable, "-m", "nas_yolo", *trained.command("tiny", *given)],
        env={**os.environ, "YOLO_VERBOSE": "true", "YOLO_CONFIG_DIR": str(trained.folder)},  # as after installation
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert not (trained.folder / "Ultralytics").exists()  # nothing is written to the user's own settings
    return SimpleNamespace(stopped=stopped, resumed=resumed, weights=weights, saved=saved, seen=seen)


@pytest.fixture(scope="module")
def short(trained: Trained) -> Any:
    """An epoch of trial 1, on images that are not square."""
    given = ["--trial", 1, "--epochs", 1, "plots=False", f"project={trained.folder}", "name=short", "imgsz=96x64", FAST]
    result = trained.invoke(*given)
    assert result.exit_code == 0, (result.output, result.exception)
    return SimpleNamespace(result=result, best=trained.folder / "short" / "weights" / "best.pt")


def test_the_first_optimizer_step_sees_the_weights_of_the_trial(trained: Trained, run: Any) -> None:
    network = first_network(STOCK, 10, trained.checkpoints[0])
    expected = dict(network.named_parameters())
    assert run.seen[0].keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in run.seen[0].items())
    weights = trained_weights(trained.checkpoints[0])
    assert weights is not None
    assert torch.equal(run.seen[0]["model.0.conv.weight"], weights["model.0.conv.weight"])
    assert any(not torch.equal(value, run.seen[0][name]) for name, value in run.seen[-1].items())


def test_ctrl_c_says_how_to_go_on_and_what_it_says_works(run: Any) -> None:
    assert run.stopped.exit_code == 130
    last = run.weights / "last.pt"
    assert f"Go on with: nas-yolo train tiny --trial 0 resume={last}" in run.stopped.stdout
    assert (run.saved.epochs, run.saved.resumable) == (1, True)
    with open(run.weights.parent / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    rates = [float(row["lr/pg0"]) for row in rows]
    assert rates[2] == pytest.approx(0.001 * (1 - 2 / 3 * 0.99), rel=1e-3)  # of one schedule over three epochs
    assert [path.name for path in run.weights.parent.parent.glob("tiny-trial-0*")] == ["tiny-trial-0"]


def test_the_run_folder_is_that_of_an_ultralytics_training(trained: Trained, run: Any) -> None:
    folder = run.weights.parent
    names = {path.name for path in folder.iterdir()}
    assert {"args.yaml", "results.csv", "labels.jpg", "train_batch0.jpg"} <= names  # plots until it was stopped
    best = read_weights(run.weights / "best.pt")
    assert best.names == tuple(yaml.safe_load(trained.data.read_text())["names"].values())
    assert (best.epochs, best.resumable) == (3, False)
    expected = {"batch": 8, "lr0": 0.001, "imgsz": 64, "seed": 3, "warmup_bias_lr": 0.0}
    assert {key: best.arguments[key] for key in expected} == expected
    # A data file of the search's own, which means the same from any folder.
    assert load_dataset(best.arguments["data"]).fingerprint == load_dataset(trained.data).fingerprint
    assert Path(best.arguments["data"]).is_relative_to(trained.folder / "runs")
    model = read_model(str(run.weights / "best.pt"))
    assert (model.names, model.classes) == (best.names, len(best.names))
    theirs, _ = load_checkpoint(run.weights / "best.pt")
    built = model.build().state_dict()
    assert all(torch.equal(value, built[name]) for name, value in theirs.state_dict().items())


def test_the_last_lines_say_where_it_is_how_good_it_is_and_what_to_type_next(trained: Trained, short: Any) -> None:
    lines = short.result.stdout.splitlines()[-6:]
    saved = read_weights(short.best)
    assert lines[0] == f"Trial 1 of tiny, trained on: {short.best.parent.parent}"
    assert lines[1].endswith(f"search's 1 epoch at 64 px, now {saved.map50_95:.3f}, the best of 1 more at 96x64 px")
    assert lines[2] == "Next (needs nas-yolo, for ShuffleV2):"
    assert lines[3] == f"  nas-yolo yolo predict model={short.best} imgsz=64,96 nms=False source=..."
    assert lines[4] == f"  nas-yolo yolo export model={short.best} imgsz=64,96 nms=False format=onnx"
    data = saved.arguments["data"]
    assert lines[5] == f"  nas-yolo yolo val model={short.best.with_suffix('.onnx')} nms=False data={data}"
    assert (saved.arguments["nms"], saved.arguments["imgsz"]) == (False, [64, 96])  # height and width


def test_json_has_standard_output_for_itself(trained: Trained, run: Any) -> None:
    document = json.loads(run.resumed.stdout)
    best = run.weights / "best.pt"
    assert (document["trial"], document["weights"], document["kind"]) == (0, str(best), "stock")
    assert document["after"] == {"map50_95": read_weights(best).map50_95, "epochs": 3, "imgsz": 64}
    assert (document["before"]["epochs"], document["before"]["imgsz"]) == (1, 64)
    assert "Resuming training" in run.resumed.stderr  # Ultralytics' own report


FRESH = """
import runpy, sys
from ultralytics import YOLO
best, data, folder, script = sys.argv[1:]
found = YOLO(best).val(data=data, imgsz=64, plots=False, save_dir=folder)
assert not {"search_spaces", "evaluators", "nas_yolo"} & set(sys.modules)
print(found.box.map)
runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def fresh(trained: Trained, run: Any) -> Any:
    """A process that knows nothing of nas-yolo, in another folder.

    It validates the stock model, and then does what a process of a training on several GPUs does, alone, with trial 1;
    at a learning rate of 0, so that weights stay what they are at first.
    """
    from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

    overrides = {
        **{"model": str(trained.checkpoints[1]), "data": str(trained.data), "imgsz": 64, "epochs": 1, "device": "cpu"},
        **{"lr0": 0.0, "warmup_bias_lr": 0.0, "optimizer": "SGD", "nms": False, "plots": False, "batch": 8},
        **{"project": str(trained.folder), "name": "child", "deterministic": False},
    }
    trainer = FinalTrainer(overrides=overrides)
    script = generate_ddp_file(trainer)
    given = [str(run.weights / "best.pt"), str(trained.data), str(trained.folder / "val"), script]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *given], cwd="/", env=environment, capture_output=True, text=True, timeout=250
    )
    ddp_cleanup(trainer, script)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(output=done.stdout, best=trainer.best)


def test_plain_ultralytics_loads_a_stock_model_and_finds_the_accuracy_that_was_told(run: Any, fresh: Any) -> None:
    assert float(fresh.output.split()[0]) == pytest.approx(read_weights(run.weights / "best.pt").map50_95, abs=0.01)


def test_a_process_of_a_training_on_several_gpus_begins_with_the_weights_of_the_trial(
    trained: Trained, fresh: Any
) -> None:
    expected = trained_weights(trained.checkpoints[1])
    assert expected is not None
    network = torch.load(fresh.best, map_location="cpu", weights_only=False)["model"]
    for name, value in network.named_parameters():
        assert torch.equal(value, expected[name].half()), name


@pytest.fixture
def argv() -> Iterator[None]:
    """`nas-yolo yolo` puts its own arguments there."""
    kept = sys.argv[:]
    yield
    sys.argv[:] = kept


@pytest.mark.usefixtures("argv")
@pytest.mark.filterwarnings("ignore")  # PyTorch's of its exporter
def test_the_printed_lines_predict_export_and_validate_at_the_size_of_the_training(
    short: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.models.yolo.detect import DetectionPredictor, DetectionValidator

    shapes: dict[type, tuple[int, ...]] = {}
    for task in (DetectionPredictor, DetectionValidator):

        def note(self: Any, batch: Any, task: Any = task, plain: Any = task.preprocess) -> Any:
            found = plain(self, batch)
            shapes[task] = tuple((found["img"] if isinstance(found, dict) else found).shape[1:])
            return found

        monkeypatch.setattr(task, "preprocess", note)
    image = tmp_path / "wide.png"
    Image.new("RGB", (150, 100)).save(image)  # of the size's shape: else predictions are cut to the image's
    for line in short.result.stdout.splitlines()[-3:]:
        command = [*line.replace("source=...", f"source={image}").split()[1:], f"project={tmp_path}", "plots=False"]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, (done.output, done.exception)
    assert (tmp_path / "predict" / image.name).with_suffix(".jpg").is_file()
    (given,) = onnxruntime.InferenceSession(short.best.with_suffix(".onnx")).get_inputs()
    assert given.shape == [1, 3, 64, 96]
    assert shapes == {DetectionPredictor: (3, 64, 96), DetectionValidator: (3, 64, 96)}


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["model=yolov8n.pt"], "the network is the trial's; choose another with --trial"),
        (["pretrained=yolov8n.pt"], "the first weights are the trial's"),
        (["epochs=3"], "is an option: --epochs 300"),
        (["bach=3"], "did you mean 'batch'"),
        (["batch"], "must be KEY=VALUE"),
        (["lr0=high"], "is of invalid type str"),
        (["device=7"], "Invalid CUDA 'device=7' requested"),
        (["data=no.yaml"], "data file no.yaml does not exist"),
        (["--trial", 2], "trial 2 has no trained weights; choose another with --trial"),
        (["resume=no.pt"], "no.pt does not exist; give the weights/last.pt of a run"),
        (["resume=True", "name=no"], "to resume; give the path of its weights"),
        (["resume=True", "--epochs", 9], "goes on to the epochs that it was begun with"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(trained: Trained, arguments: list[Any], answer: str) -> None:
    assert answer in trained.refused(*arguments, f"project={trained.folder / 'refused'}")


def test_only_an_unfinished_run_of_the_same_trial_is_resumed(trained: Trained, run: Any, tmp_path: Path) -> None:
    last = run.weights / "last.pt"
    assert "nothing is left to resume" in trained.refused("--trial", 0, f"resume={last}")
    assert "is no training of trial 1" in trained.refused("--trial", 1, f"resume={last}")
    assert "is no training of trial 3" in trained.refused("--trial", 3, f"resume={last}")  # the same rows and weights
    (tmp_path / "last.pt").write_text("nothing")
    assert "is not the file of an Ultralytics training" in trained.refused(f"resume={tmp_path / 'last.pt'}")


def test_data_of_other_classes_or_that_changed_are_refused(trained: Trained, tmp_path: Path) -> None:
    document = yaml.safe_load(trained.data.read_text())
    names = [*list(document["names"].values())[1:], "ten"]
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**document, "path": str(trained.data.parent), "names": names}))
    assert "the same classes in the same order" in trained.refused(f"data={other}")
    label = next((trained.data.parent / "labels" / "train").iterdir())
    before = label.read_text()
    label.write_text(before + "0 0.5 0.5 0.1 0.1\n")
    assert f"train on them as they are: data={trained.data}" in trained.refused()
    label.write_text(before)

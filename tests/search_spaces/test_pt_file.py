"""Checkpoints are read without making anything of what they name, and are refused as what they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

from search_spaces import hook
from search_spaces.contract import randomise
from search_spaces.model_file import read_model
from search_spaces.model_rows import ModelError
from search_spaces.presets import load_preset
from search_spaces.pt_file import network_of, plain, read_checkpoint

NAMES = {0: "cat", 1: "dog", 2: "hen"}


def trained(name: str) -> tasks.DetectionModel:
    """Ultralytics' own model with statistics as after a training."""
    network = tasks.DetectionModel(name, nc=3, verbose=False)
    network.names = dict(NAMES)
    randomise(network)
    return network


@pytest.fixture(scope="module")
def network() -> tasks.DetectionModel:
    return trained("yolov8n.yaml")


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[object], str]:
    """The path of a file that `torch.save` wrote."""

    def save(content: object, name: str = "best.pt") -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return save


def refused(path: str, *fragments: str) -> None:
    """In one line that names the file."""
    with pytest.raises(ModelError) as caught:
        read_model(path)
    text = str(caught.value)
    assert "\n" not in text
    for fragment in (path, *fragments):
        assert fragment in text


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolov9t.yaml", "yolov10n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
def test_a_checkpoint_is_the_network_that_ultralytics_loads(name: str, saved: Callable[..., str]) -> None:
    path = saved({"model": None, "ema": trained(name).half(), "train_args": {}})
    model = read_model(path)
    assert (model.classes, model.names, model.origin) == (3, ("cat", "dog", "hen"), "file")
    ours, (theirs, _) = model.build().eval(), tasks.load_checkpoint(path)
    if getattr(theirs.model[-1], "one2one_cv2", None) is not None:
        theirs.model[-1].end2end = True
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(image)[0], theirs(image)[0])


def test_a_file_that_ultralytics_itself_saved(tmp_path: Path) -> None:
    YOLO("yolo11n.yaml").save(tmp_path / "mine.pt")
    model = read_model(str(tmp_path / "mine.pt"))
    assert (model.classes, model.scale, model.scale_from) == (80, "n", "checkpoint")
    assert model.text.startswith(f"checkpoint {tmp_path}/mine.pt, scale n, trained for 0, 1, 2, 3, 4, ...")
    assert sum(p.numel() for p in model.build().parameters()) == 2_624_080


@pytest.mark.parametrize("name", ["yolov8n-ghostv2", "yolov8n-convnext", "yolov8n-focal"])
def test_a_checkpoint_with_our_blocks(name: str, saved: Callable[..., str]) -> None:
    ours = randomise(hook.build(hook.model_file(load_preset(name), 3)))
    model = read_model(saved({"ema": ours}))
    built = model.build().state_dict()
    assert all(torch.equal(value, built[key]) for key, value in ours.state_dict().items())


def test_a_checkpoint_of_a_search(saved: Callable[..., str]) -> None:
    architecture = load_preset("yolov8n-ghost")
    ours = hook.build(hook.model_file(architecture, 3))
    model = read_model(saved({"architecture": architecture.document, "ema": ours.state_dict()}))
    assert (model.architecture, model.classes) == (architecture, 3)
    assert torch.equal(
        model.build().state_dict()["model.0.cv1.conv.weight"], ours.state_dict()["model.0.cv1.conv.weight"]
    )


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("yolov8n-seg.yaml", "is a model for segmentation: it ends in Segment"),
        ("yolov8n-pose.yaml", "is a model for poses: it ends in Pose"),
        ("yolov8n-obb.yaml", "is a model for oriented boxes (OBB): it ends in OBB"),
        ("yolov8n-cls.yaml", "is an image classifier: it ends in Classify"),
    ],
)
def test_other_tasks_are_refused_as_what_they_are(name: str, fragment: str, tmp_path: Path) -> None:
    YOLO(name).save(tmp_path / "mine.pt")
    refused(str(tmp_path / "mine.pt"), fragment, "give a detection model")


@pytest.fixture
def yolov5() -> Iterator[type[nn.Module]]:
    """A class where the YOLOv5 repository has its own."""
    modules = {name: ModuleType(name) for name in ("models", "models.yolo")}
    kind = type("DetectionModel", (nn.Conv2d,), {"__module__": "models.yolo"})
    modules["models.yolo"].DetectionModel = kind  # type: ignore[attr-defined]
    sys.modules.update(modules)
    yield kind
    for name in modules:
        del sys.modules[name]


def test_a_checkpoint_of_yolov5_is_refused_as_one(yolov5: type[nn.Module], saved: Callable[..., str]) -> None:
    refused(saved({"model": yolov5(3, 8, 1)}), "is a checkpoint of the YOLOv5 repository", "e.g. yolov5nu")


class Own(nn.SiLU):
    """A unit that is no block, in a file of its own."""


def test_layers_of_others_are_refused_with_their_names(
    saved: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained("yolov8n.yaml")
    network.model[3].act = Own()
    path = saved({"model": network})
    monkeypatch.delattr(sys.modules[__name__], "Own")  # as where the file of that class was never imported
    refused(path, f"it needs {__name__}.Own, which neither Ultralytics' layers nor", "add-a-block.md")


def test_units_of_blocks_may_be_in_other_files_than_the_block(saved: Callable[..., str]) -> None:
    network = trained("yolov8n.yaml")
    network.model[3].act = Own()
    path = Path(saved({"model": network}))
    assert network_of(read_checkpoint(path), path).leaves["model.3.act"] == "Own"


def test_what_holds_no_network_is_refused_as_what_it_is(
    saved: Callable[..., str], network: tasks.DetectionModel, tmp_path: Path
) -> None:
    refused(saved(network.state_dict()), "holds weights only (a state dict), no network")
    refused(saved({"epoch": 3, "model": network.state_dict()}), "holds weights only (a state dict), no network")
    refused(saved({"epoch": 3}), "is no checkpoint of a model: it holds epoch")
    refused(saved([1, 2]), "is no checkpoint: it holds builtins.list")
    refused(saved(network), "is no checkpoint: it holds ultralytics.nn.tasks.DetectionModel")
    refused(saved({"model": nn.Conv2d(3, 8, 1)}), "holds a torch.nn.modules.conv.Conv2d, which is no detector")
    refused(saved({"architecture": "{}", "ema": {}}), "is no checkpoint of a search that this nas-yolo can read")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_what_is_no_checkpoint_is_refused_as_what_it_is(tmp_path: Path, network: tasks.DetectionModel) -> None:
    path = tmp_path / "best.pt"
    path.touch()
    refused(str(path), "is empty")
    path.write_text("nc: 80\n")
    refused(str(path), "is no PyTorch checkpoint")
    torch.save({"model": network}, path)
    whole = path.read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        refused(str(path), "is damaged: truncated, or no PyTorch checkpoint")
    torch.jit.script(nn.Linear(2, 2)).save(path)
    refused(str(path), "is a TorchScript export")


def test_a_network_that_was_changed_after_it_was_built_is_refused(saved: Callable[..., str]) -> None:
    def build_of(network: nn.Module) -> None:
        read_model(saved({"ema": network})).build()

    activation, narrowed = trained("yolov8n.yaml"), trained("yolov8n.yaml")
    activation.model[3].act = nn.ReLU()
    with pytest.raises(ModelError, match=r"not what its rows build \(first at model\.3\.act\): it was fused, pruned"):
        build_of(activation)
    narrowed.model[0].bn = nn.BatchNorm2d(8)
    with pytest.raises(ModelError, match=r"first at model\.0\.bn\.weight"):
        build_of(narrowed)
    with pytest.raises(ModelError, match=r"first at model\.0\.bn\.weight"):
        build_of(trained("yolov8n.yaml").fuse(verbose=False))


def test_numbers_of_numpy_are_read(saved: Callable[..., str]) -> None:
    path = Path(saved({"a": np.float64(0.25), "b": 0.5, "c": np.float32(2), "d": np.int64(3)}))
    assert [plain(value) for value in read_checkpoint(path).values()] == [0.25, 0.5, 2.0, 3]


# What a file must not do -------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call: whoever unpickles it makes it."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def attacks(mark: str) -> dict[str, Any]:
    return {
        "system": Call(os.system, f"touch {mark}"),
        "mkdir": Call(os.mkdir, mark),
        "eval": Call(eval, f"__import__('os').mkdir({mark!r})"),
        "exec": Call(exec, f"import os; os.mkdir({mark!r})"),
        "numpy": Call(np.save, mark, 1),
        "pathlib": Call(Path.touch, Path(mark)),
        "hidden in a layer": nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU()).append(Carrier(mark)),
    }


class Carrier(nn.Identity):
    """A layer of torch with an attribute that is a call."""

    def __init__(self, mark: str):
        super().__init__()
        self.harmless = Call(os.mkdir, mark)

    def __reduce__(self) -> Any:
        return nn.Identity, (), self.__dict__


@pytest.mark.parametrize("kind", list(attacks("")))
@pytest.mark.parametrize("place", ["model", "beside"])
def test_a_checkpoint_runs_nothing(
    kind: str, place: str, saved: Callable[..., str], tmp_path: Path, network: tasks.DetectionModel
) -> None:
    mark = tmp_path / "mark"
    attack = attacks(str(mark))[kind]
    path = saved({"model": attack} if place == "model" else {"model": network, "train_args": attack})
    refused(path)
    assert sorted(tmp_path.iterdir()) == [Path(path)]
    torch.load(path, weights_only=False)  # what Ultralytics does by itself
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_calls_no_layer_or_network(
    saved: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: tasks.DetectionModel
) -> None:
    """Also those that may be named: a network reads its argument as a path or an address."""
    asked: list[object] = []
    monkeypatch.setattr(tasks, "yaml_model_load", lambda path: asked.append(path) or {})
    path = saved({"model": network, "other": Call(tasks.DetectionModel, "https://example.com/model.yaml")})
    refused(path, "calls ultralytics.nn.tasks.DetectionModel")
    refused(saved({"model": network, "other": Call(tasks.TorchVision, "resnet18")}), "calls ultralytics.nn.modules")
    assert not asked


def test_a_malicious_activation_in_a_checkpoint_is_refused(
    saved: Callable[..., str], tmp_path: Path, network: tasks.DetectionModel
) -> None:
    network = trained("yolov8n.yaml")
    network.yaml["activation"] = f"__import__('os').mkdir({str(tmp_path / 'mark')!r})"
    refused(saved({"model": network}), "is not of the form nn.ReLU()")
    assert not (tmp_path / "mark").exists()


def test_reading_leaves_what_torch_may_load_as_it_was(saved: Callable[..., str], network: tasks.DetectionModel) -> None:
    hook.install()
    before = set(torch.serialization.get_safe_globals())
    read_model(saved({"model": network}))
    with pytest.raises(ModelError):
        read_model(saved({"model": Call(eval, "1")}))
    assert set(torch.serialization.get_safe_globals()) == before

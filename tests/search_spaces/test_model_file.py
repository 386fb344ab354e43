"""A model YAML is read as Ultralytics reads it, and nothing in it is executed or downloaded."""

from __future__ import annotations

import inspect
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv, TorchVision

from search_spaces import hook
from search_spaces.model_file import Model, read_model
from search_spaces.model_rows import ModelError
from search_spaces.presets import load_preset
from search_spaces.space_reader import LIBRARY

OWN = sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))
SCALED = [f"{name}.yaml" for name in ("yolov8s", "yolov8x-p2", "yolov8n6", "yolo11m", "yolo11l", "yolo12x", "yolo26x")]


def small(**changes: Any) -> dict[str, Any]:
    """A detector of a few rows."""
    return {
        "nc": 2,
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 2, "C2f", [24, True]]],
        "head": [[[2], 1, "Detect", ["nc"]]],
        **changes,
    }


def with_row(*row: Any) -> dict[str, Any]:
    """With a row of its own between backbone and head."""
    document = small()
    document["backbone"].append([-1, 1, *row])
    document["head"][0][0] = [3]
    return document


def write(folder: Path, content: object, name: str = "model.yaml") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def params(file: dict[str, Any]) -> int:
    """As Ultralytics builds it, without memory for weights."""
    with torch.device("meta"):
        layers, _ = inspect.unwrap(tasks.parse_model)(deepcopy(file), 3, False)
    return sum(parameter.numel() for parameter in layers.parameters())


@pytest.mark.parametrize("name", [*(str(path) for path in OWN), *SCALED], ids=lambda name: Path(name).stem)
def test_ultralytics_own_files_are_the_same_models_or_refused_for_what_they_are(name: str) -> None:
    theirs = tasks.yaml_model_load(name)
    head = theirs["head"][-1][2]
    if head not in ("Detect", "v10Detect"):
        with pytest.raises(ModelError, match=f" is an? .*: it ends in {head}; give a detection model"):
            read_model(name)
        return
    model = read_model(name)
    assert params(model.file) == params(theirs)
    assert model.origin == "Ultralytics"
    assert model.scale == (theirs["scale"] or next(iter(theirs.get("scales", {})), None))


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolov6.yaml", "yolov10n.yaml", "yolo26.yaml"])
def test_a_network_is_built_as_ultralytics_builds_it(name: str) -> None:
    hook.install()
    torch.manual_seed(0)
    network = read_model(name).build().eval()
    torch.manual_seed(0)
    theirs = tasks.DetectionModel(name, verbose=False).eval()
    assert [type(layer) for layer in network.modules()] == [type(layer) for layer in theirs.modules()]
    for one, other in zip(network.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    network.model[-1].end2end = theirs.model[-1].end2end
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image)[0], theirs(image)[0])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("yolov8s.yaml", "Ultralytics' own yolov8.yaml, scale s as the name says"),
        ("yolov8.yaml", "Ultralytics' own yolov8.yaml, scale n, the first of n, s, m, l, x, since the name says none"),
        ("yolov9t.yaml", "Ultralytics' own yolov9t.yaml"),
        ("yolov8n6.yaml", "Ultralytics' own yolov8-p6.yaml, scale n as the name says"),
        ("yolov8n", "known design of nas-yolo"),
        (
            "yolov8n-ghost",
            "known design of nas-yolo; another model than Ultralytics' own yolov8n-ghost.yaml",
        ),
        (
            "yolov8n-ghost.yaml",
            "Ultralytics' own yolov8-ghost.yaml, scale n as the name says; another model than nas-yolo's known design "
            "yolov8n-ghost",
        ),
        (
            "yolov8-ghost.yaml",
            "Ultralytics' own yolov8-ghost.yaml, scale n, the first of n, s, m, l, x, since the name says none; "
            "another model than nas-yolo's known design yolov8n-ghost",
        ),
    ],
)
def test_what_was_taken_is_said(name: str, text: str) -> None:
    assert read_model(name).text == text


def test_the_two_models_called_ghost_are_two() -> None:
    assert params(read_model("yolov8n-ghost.yaml").file) == 1_865_316
    assert read_model("yolov8n-ghost").architecture == load_preset("yolov8n-ghost")


def test_a_file_on_disk_goes_before_ultralytics_own_and_gives_its_scale_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scales = {"n": [0.5, 0.5, 1024], "s": [0.5, 1.0, 1024]}
    write(tmp_path, small(scales=scales), "yolov8.yaml")
    first, named = read_model("yolov8.yaml"), read_model("yolov8s.yaml")
    assert (first.origin, first.scale, first.scale_from) == ("file", "n", "first of its scales")
    assert (named.origin, named.scale, named.scale_from) == ("file", "s", "file name")
    for model, name in ((first, "yolov8.yaml"), (named, "yolov8s.yaml")):
        assert params(model.file) == params(tasks.yaml_model_load(name))
    assert params(first.file) < params(named.file)
    assert first.text.endswith(
        "; another model than nas-yolo's known design yolov8n; another model than Ultralytics' own yolov8.yaml"
    )
    with pytest.raises(ModelError, match=r"yolov8m\.yaml: the file name says scale m, and its scales are n, s; rename"):
        read_model("yolov8m.yaml")


def test_a_file_without_scales_still_has_its_name_s(tmp_path: Path) -> None:
    """Ultralytics gives C3k2 other units at scales m, l and x."""
    document = with_row("C3k2", [24, False])
    for name in ("yolo11n-mine.yaml", "yolo11m-mine.yaml"):
        path = write(tmp_path, document, name)
        assert params(read_model(path).file) == params(tasks.yaml_model_load(path))
    assert params(read_model(path).file) != params(read_model(write(tmp_path, document)).file)
    assert read_model(path).text.endswith("scale m as the name says")


def test_a_scale_in_the_file_does_not_count_as_with_ultralytics(tmp_path: Path) -> None:
    path = write(tmp_path, small(scale="s", scales={"n": [1.0, 0.5, 1024], "s": [1.0, 1.0, 1024]}))
    assert read_model(path).scale == "n"
    assert params(read_model(path).file) == params(tasks.yaml_model_load(path))


def test_text_that_yaml_refuses_is_read_as_ultralytics_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(b"# \xff \x07\n" + yaml.safe_dump(small()).encode())
    assert params(read_model(str(path)).file) == params(tasks.yaml_model_load(path))


def test_our_blocks_and_modules_of_torch_may_be_named(tmp_path: Path) -> None:
    document = hook.model_file(load_preset("yolov8n-ghostv2"), nc=3)
    model = read_model(write(tmp_path, document))
    assert model.classes == model.build().model[-1].nc == 3
    model = read_model(write(tmp_path, with_row("nn.Conv2d", [24, 24, "3"])))
    assert isinstance(model.build().model[3], nn.Conv2d)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("", "is empty; give a model YAML"),
        ("just some words", "is no model: it holds text, not nc, backbone and head"),
        ("a: b: c", ":1 is no model: it is not valid YAML (mapping values are not allowed here)"),
        ("- 1", "is no model: it holds a list"),
        ("{a: 1}", "is no model: it lacks nc, backbone, head"),
        ({"path": ".", "train": "a", "val": "b", "names": {0: "x"}}, "describes a data set, not a model"),
        ((LIBRARY / "spaces" / "yolov8n.yaml").read_text(), "is a search space, not a model; search it with nas-yolo"),
        (small(backbone=None), "backbone must be a list of rows"),
        (small(head=[]), "head has no rows"),
        (small(nc="many"), "nc 'many' must be a whole number"),
        (small(scales={"n": [1.0]}), "scales must be like"),
        (small(width_multiple="half"), "width_multiple must be a number"),
        (small(ch=6), "reads images of 6 channels"),
        (small(backbone=[[-1, 1, "Conv"]]), "row 0 [-1, 1, Conv] must be [from, repeats, module, arguments]"),
        (small(backbone=[[3, 1, "Conv", [8]]]), "row 0 [3, 1, Conv, [8]] must be"),
        (with_row("Conv", [[[[[[8]]]]]]), "is no number, word, list or nc"),
        (with_row("NoSuchBlock", [8]), "row 3 [-1, 1, NoSuchBlock, [8]]: unknown module 'NoSuchBlock'"),
        (with_row("C2fGhots", [8]), "did you mean 'C2fGhost'? To add a block, see docs/add-a-block.md"),
        (with_row("CBAM", [8]), " has that class, but its parse_model takes no row of it"),
        (with_row("nn.NoSuch", []), "nn.NoSuch is none"),
        (small(head=[[[2], 1, "Detect", ["nc", "anchors"]]], anchors=[[1, 2]]), "is a model of the YOLOv5 repository"),
        (small(head=[[[2], 1, "IDetect", ["nc", "anchors"]]], anchors=[[1, 2]]), "is a model of the YOLOv5 repository"),
        (small(head=[[[2], 1, "Segment", ["nc", 32, 256]]]), "is a model for segmentation: it ends in Segment"),
        (small(head=[[-1, 1, "Classify", ["nc"]]]), "is an image classifier: it ends in Classify"),
        (small(head=[[-1, 1, "Conv", [8]]]), "is no detector: it ends in Conv"),
    ],
)  # fmt: skip
def test_what_is_no_detector_is_refused_as_what_it_is(content: object, fragment: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert str(caught.value).startswith(path)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.yaml does not build: TypeError: "):
        read_model(write(tmp_path, with_row("Conv", [8, 3, 1, 0, 1, 1, True, 7, 7]))).build()


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("none.yaml", "model file none.yaml does not exist, and Ultralytics has none of that name"),
        ("yolov8n-gost", "unknown model 'yolov8n-gost'; did you mean 'yolov8n-ghost'?; or give a model YAML"),
        ("yolov8n.pt", "does not exist, and nothing is downloaded; give the path of a checkpoint, or the known design"),
        ("https://example.com/yolov8n.yaml", "is an address, and nothing is downloaded"),
        ("ul://someone/yolov8n.pt", "is an address, and nothing is downloaded"),
        ("coco8.yaml", "describes a data set"),
        (".", "is a folder"),
        (__file__, "is no model YAML (.yaml) and no checkpoint (.pt)"),
    ],
)
def test_what_is_not_there(name: str, fragment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        read_model(name)
    assert fragment in str(caught.value)
    assert not list(tmp_path.iterdir())


# What a file must not do -------------------------------------------------------------------------------------------


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that a malicious model writes when something of it runs."""
    return tmp_path / "mark"


ATTACKS = (
    "__import__('os').system('touch {mark}')",
    "__import__('os').mkdir('{mark}')",
    "nn.ReLU(__import__('os').mkdir('{mark}'))",
)


@pytest.mark.parametrize("attack", [*ATTACKS, "nn.ReLU().__class__(__import__('os').mkdir('{mark}'))"])
def test_an_activation_is_not_evaluated(
    attack: str, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = attack.format(mark=mark)
    path = write(tmp_path, small(activation=text))
    with pytest.raises(ModelError, match=r"activation .* is not of the form nn\.ReLU\(\)"):
        read_model(path)
    assert not mark.exists()
    monkeypatch.setattr(tasks, "SAFE_LOAD", False)  # Ultralytics as it is without us
    with suppress(Exception):
        tasks.DetectionModel(small(activation=text), verbose=False)
    assert mark.exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_arguments_are_not_evaluated(attack: str, tmp_path: Path, mark: Path) -> None:
    path = write(tmp_path, with_row("Conv", [8, attack.format(mark=mark), 1]))
    with pytest.raises(ModelError, match="is no number, word, list or nc"):
        read_model(path)
    assert not mark.exists()


@pytest.mark.parametrize("word", ["ast", "layers", "'ast'", "d"])
def test_arguments_are_no_variables_of_ultralytics(word: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no number, word, list or nc"):
        read_model(write(tmp_path, with_row("Conv", [8, word])))


@pytest.mark.parametrize(
    "module",
    [
        "torch_load",
        "check_file",
        "DetectionModel",
        "os.system",
        "nn.Module.apply",
        "nn.init",
        "torchvision.ops.nms",
    ],
)
def test_rows_name_layers_and_nothing_that_is_called(module: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"row 3 .*: (a row can name|unknown module)"):
        read_model(write(tmp_path, with_row(module, ["x"])))


@pytest.mark.parametrize(
    ("text", "kind", "written"),
    [
        ("nn.ReLU()", nn.ReLU, "torch.nn.ReLU()"),
        ("torch.nn.SiLU()", nn.SiLU, "torch.nn.SiLU()"),
        (" nn.LeakyReLU( 0.1, inplace = True )", nn.LeakyReLU, "torch.nn.LeakyReLU(0.1, inplace=True)"),
        ("nn.Hardtanh(-1, 1)", nn.Hardtanh, "torch.nn.Hardtanh(-1, 1)"),
    ],
)
def test_an_activation_of_torch_is_built(text: str, kind: type[nn.Module], written: str, tmp_path: Path) -> None:
    model = read_model(write(tmp_path, small(activation=text)))
    assert model.file["activation"] == written
    assert isinstance(model.build().model[0].act, kind)
    assert isinstance(Conv(8, 8).act, nn.SiLU)


def test_torchvision_rows_do_not_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, *_, **__: asked.append(url))
    with suppress(TypeError):  # no weights came
        TorchVision("resnet18", "DEFAULT")
    assert asked.pop().endswith(".pth")
    document = {
        "nc": 2,
        "backbone": [[-1, 1, "TorchVision", [512, "resnet18", "DEFAULT", True, 2, True]]],
        "head": [[0, 1, "Index", [512, 8]], [[1], 1, "Detect", ["nc"]]],
    }
    network = read_model(write(tmp_path, document)).build()
    plain = deepcopy(document)
    plain["backbone"][0][3][2] = None
    assert sum(p.numel() for p in network.parameters()) == params(plain)
    assert not asked


def test_reading_a_yaml_loads_no_torch_before_it_must() -> None:
    import subprocess
    import sys

    code = "import sys; from search_spaces import model_file, model_rows, pt_file; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_are_values() -> None:
    model: Model = read_model("yolov8n")
    assert model == read_model("yolov8n")

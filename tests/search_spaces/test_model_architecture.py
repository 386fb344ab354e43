"""A user's model is read as an architecture of a known family, or refused at the first row that is not of one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from ultralytics.nn.tasks import DetectionModel

from search_spaces import hook
from search_spaces.architecture import Architecture, Level, Stage
from search_spaces.model_architecture import architecture_of
from search_spaces.model_file import read_model
from search_spaces.model_rows import ModelError
from search_spaces.presets import load_preset

MODELS = Path(ultralytics.__file__).parent / "cfg" / "models"

Rows = dict[str, Any]
Edit = Callable[[Rows], None]


def own_yolov8() -> Rows:
    content: Rows = yaml.safe_load((MODELS / "v8" / "yolov8.yaml").read_text())
    return content


def own_yolo11() -> Rows:
    content: Rows = yaml.safe_load((MODELS / "11" / "yolo11.yaml").read_text())
    return content


def read(content: Rows, folder: Path, name: str = "yolov8n-mine.yaml") -> Architecture:
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return architecture_of(read_model(str(path)))


@pytest.mark.parametrize(
    "name",
    [
        *("yolov8n", "yolov8s", "yolov9t", "yolov9s", "yolov9c"),
        *("yolo11n", "yolo11s", "yolo11m", "yolo26n", "yolo26s"),
    ],
)
def test_ultralytics_own_files_are_the_stock_designs(name: str) -> None:
    assert architecture_of(read_model(f"{name}.yaml")) == load_preset(name)


@pytest.mark.parametrize(
    "architecture",
    [
        load_preset("yolov8n-convnext"),
        load_preset("yolov9t-focal"),
        replace(load_preset("yolov8n"), attention="C2PSA"),
        replace(load_preset("yolo11n"), attention="none"),
        # Two rows for one stage: the first unit widens.
        replace(
            load_preset("yolov8n"),
            stages=(
                Stage("Conv", "GhostConv", 48, 3, 2),
                Stage("UIB", "RepVGG", 64, 2),
                Stage("ADown", "FasterNet", 96, 3),
                Stage("AConv", "Conv", 160, 1),
            ),
        ),
        replace(
            load_preset("yolov9t"),
            neck=replace(
                load_preset("yolov9t").neck,
                downsample="Conv",
                levels=(Level("ELAN1", 40, 2), Level("RepNCSPELAN4", 104, 2), Level("C2fGhost", 72, 1)),
            ),
        ),
    ],
    ids=lambda architecture: architecture.key,
)
def test_what_an_architecture_writes_is_read_as_it(architecture: Architecture, tmp_path: Path) -> None:
    assert read(hook.model_file(architecture, 3), tmp_path, "mine.yaml") == architecture


def test_own_blocks_widths_and_depths(tmp_path: Path) -> None:
    content = own_yolov8()
    content["backbone"][1] = [-1, 1, "GhostConv", [160, 3, 2]]
    content["backbone"][2] = [-1, 9, "C2f", [160, True]]
    content["backbone"][4] = [-1, 6, "C2fGhost", [256]]
    content["head"][5] = [-1, 3, "C2f", [320]]
    stock = load_preset("yolov8n")
    _, p3, p4, p5 = stock.stages
    levels = (replace(stock.neck.levels[0], width=80), *stock.neck.levels[1:])
    # The neck's downsampling is as wide as what it reads.
    content["head"][6] = [-1, 1, "Conv", [320, 3, 2]]
    assert read(content, tmp_path) == replace(
        stock,
        stages=(Stage("GhostConv", "C2f", 40, 3), replace(p3, block="C2fGhost"), p4, p5),
        neck=replace(stock.neck, levels=levels),
    )


def test_a_checkpoint_of_ultralytics(tmp_path: Path) -> None:
    content = own_yolo11()
    content["backbone"][5] = [-1, 1, "Conv", [640, 3, 2]]
    content["backbone"][6] = [-1, 4, "C3k2", [640, True]]
    content["head"][2] = [-1, 2, "C3k2", [640, False]]
    content["head"][8] = [-1, 2, "C3k2", [640, False]]
    content["head"][9] = [-1, 1, "Conv", [640, 3, 2]]
    network = DetectionModel({**content, "nc": 2, "scale": "n"}, verbose=False)
    torch.save({"ema": None, "model": network.half()}, tmp_path / "best.pt")
    stock = load_preset("yolo11n")
    p2, p3, p4, p5 = stock.stages
    n3, n4, n5 = stock.neck.levels
    assert architecture_of(read_model(str(tmp_path / "best.pt"))) == replace(
        stock,
        stages=(p2, p3, replace(p4, width=160, depth=2), p5),
        neck=replace(stock.neck, levels=(n3, replace(n4, width=160), n5)),
    )


def extra_row(content: Rows) -> None:
    content["backbone"].insert(3, [-1, 1, "Conv", [128, 3, 1]])
    for row in content["head"]:
        if isinstance(row[0], list):
            row[0] = [one + 1 if one > 2 else one for one in row[0]]


def unknown_head(content: Rows) -> None:
    content["head"][-1][2] = "v10Detect"


def missing_level(content: Rows) -> None:
    content["head"] = [*content["head"][:-4], [[15, 18], 1, "Detect", ["nc"]]]


def another_neck(content: Rows) -> None:
    content["head"][1] = [[-1, 5], 1, "Concat", [1]]


def dilated(content: Rows) -> None:
    content["backbone"][0][3] = [64, 3, 2, None, 1, 2]


def shortcut_in_neck(content: Rows) -> None:
    content["head"][5][3] = [256, True]


def two_blocks_at_one_level(content: Rows) -> None:
    content["head"][8] = [-1, 6, "C2f", [512]]


def unknown_block(content: Rows) -> None:
    content["backbone"][6] = [-1, 6, "C3Ghost", [512]]


def another_activation(content: Rows) -> None:
    content["activation"] = "nn.ReLU()"


def another_pooling(content: Rows) -> None:
    content["backbone"][9][3] = [1024, 7]


def too_deep(content: Rows) -> None:
    content["backbone"][2][1] = 39


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            extra_row,
            "row 3 [-1, 1, Conv, [128, 3, 1]] is not understood; yolov8 has P3.downsample there, such as [-1, ",
        ),
        (unknown_head, "row 22 [[15, 18, 21], 1, v10Detect, [nc]] is not understood; yolov8 has detect there, such as"),
        (missing_level, "row 19 [[15, 18], 1, Detect, [nc]] is not understood; yolov8 has neck.P5.downsample there, "),
        (
            dilated,
            "row 0 [-1, 1, Conv, [64, 3, 2, null, 1, 2]] is not understood; yolov8 has P1.downsample there, such",
        ),
        (shortcut_in_neck, "row 15 [-1, 3, C2f, [256, true]] is not understood; yolov8 has neck.P3.block there, such"),
        (
            two_blocks_at_one_level,
            "row 18 [-1, 6, C2f, [512]] is not understood; yolov8 has neck.P4.block there, such as "
            "[-1, 1, C2f, [128, false]], its numbers as scaled",
        ),
        (
            unknown_block,
            "row 6 [-1, 6, C3Ghost, [512]] is not understood; yolov8 has P4.block there, such as "
            "[-1, 1, C2f, [128, true]], its numbers as scaled",
        ),
        (another_activation, "activation torch.nn.ReLU() is not understood; the known families have torch.nn.SiLU()"),
        (another_pooling, "row 9 [-1, 1, SPPF, [1024, 7]] is not understood; yolov8 has pooling there, such as [-1, "),
        (too_deep, "row 2 [-1, 39, C2f, [128, true]] is not understood; as P2.block, depth 13 must be from 1 to 12"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_first_row_that_is_not_understood(edit: Edit, said: str, tmp_path: Path) -> None:
    content = deepcopy(own_yolov8())
    edit(content)
    with pytest.raises(ModelError) as caught:
        read(content, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'yolov8n-mine.yaml'}: {said}")
    assert "\n" not in str(caught.value)


def test_a_map_from_elsewhere_is_not_understood(tmp_path: Path) -> None:
    content = hook.model_file(load_preset("yolov8n"), 2)
    content["head"][10] = [[-1, 8], 1, "Concat", [1]]  # before the pooling: as many channels, another map
    with pytest.raises(ModelError, match=r"row 20 \[\[-1, 8\], 1, Concat, \[1\]\] is not understood; .*\[-1, 9\]"):
        read(content, tmp_path, "mine.yaml")

"""A space around a user's own model: the model is in it, and is what a search tries first and compares with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from search_spaces import Architecture, SearchSpace, hook
from search_spaces.architecture import MAX_DEPTH
from search_spaces.families import get_family
from search_spaces.image_size import ImageSize
from search_spaces.presets import known_designs, load_preset
from search_spaces.space import values_of
from search_spaces.space_file import load_space
from search_spaces.space_reader import LIBRARY


def space_of(architecture: Architecture, folder: Path, name: str = "mine.yaml") -> SearchSpace:
    path = folder / name
    path.write_text(yaml.safe_dump(hook.model_file(architecture, 2), sort_keys=False))
    return load_space(str(path))


@pytest.mark.parametrize("name", ["yolov8n-ghost", "yolov9t", "yolo11n", "yolo26s"])
def test_the_model_is_in_its_space_and_first(name: str, tmp_path: Path) -> None:
    own = load_preset(name)
    space = space_of(own, tmp_path)
    assert space.model == own
    assert space.choices_of(own) is not None
    assert space.baseline == "model:mine.yaml"
    assert next(iter(known_designs(space, space.baseline, ImageSize(640, 640)).items())) == ("model:mine.yaml", own)
    assert SearchSpace.from_document(space.document()) == space


@pytest.mark.parametrize("name", ["yolov8n-ghost", "yolov9t", "yolo11n", "yolo26s"])
def test_the_choices_are_around_the_model(name: str, tmp_path: Path) -> None:
    own = load_preset(name)
    space, family = space_of(own, tmp_path), get_family(own.family)
    library = load_space(family.baseline)
    for choice, value in values_of(own).items():
        kind = choice.rpartition(".")[2]
        if choice not in space.choices:
            assert kind in ("width", "activation")  # of a neck as wide as its backbone; that of the blocks
            continue
        values = space.choices[choice]
        assert value in values
        if kind == "width":
            widen = max(space.choices.get(choice.replace("width", "widen"), (1,)))
            step = 8 * int(widen)
            assert all(int(width) % step == 0 for width in values)
            assert int(value) / 2 - step < int(values[0]) <= int(value) / 2 + step
            assert int(value) * 1.5 - step < int(values[-1]) < int(value) * 1.5 + step
            assert 2 <= len(values) <= 4
        elif kind == "depth":
            assert values == tuple(n for n in range(int(value) - 1, int(value) + 2) if 1 <= n <= MAX_DEPTH)
        elif kind != "widen":
            assert values[0] == value
            assert set(values) == {value, *library.choices[choice]}
            assert not any(family.refusal(choice, str(word)) for word in values if word != "none")
    assert "neck.P3.width" not in space.choices


def test_a_neck_of_other_widths_has_choices_of_its_own(tmp_path: Path) -> None:
    space = load_space("yolov8n")
    wide = SearchSpace(space.name, space.family, {**space.choices, "neck.P4.width": (104,)})
    stock = load_preset("yolov8n")
    own = wide.architecture({**values_of(stock), "neck.P4.width": 104, "P2.width": 40})
    found = space_of(own, tmp_path)
    assert found.choices["neck.P4.width"] == (48, 80, 104, 160)
    assert "neck.P5.width" not in found.choices
    assert found.choices_of(own) is not None


def test_a_width_that_cannot_be_divided_is_not_widened(tmp_path: Path) -> None:
    stock = load_preset("yolo11n")
    own = load_space("yolo11n").architecture({**values_of(stock), "P3.width": 72, "P3.widen": 1})
    space = space_of(own, tmp_path)
    assert space.choices["P3.widen"] == (1,)
    assert space.choices["P2.widen"] == (1, 2)
    assert space.choices_of(own) is not None


def test_a_space_of_stock_blocks_still_compares_with_the_model(tmp_path: Path) -> None:
    space = space_of(load_preset("yolov8n-convnext"), tmp_path).restricted_to_stock()
    assert space.model == load_preset("yolov8n-convnext")
    assert "ConvNeXt" not in space.choices["P2.block"]


def test_what_a_file_is_its_content_says_not_its_name(tmp_path: Path) -> None:
    (tmp_path / "yolov8n.yaml").write_text((LIBRARY / "spaces" / "yolov8n.yaml").read_text())
    assert load_space(str(tmp_path / "yolov8n.yaml")).model is None
    assert space_of(load_preset("yolov8n"), tmp_path, "space.yml").model == load_preset("yolov8n")


def test_the_scale_that_was_taken_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = hook.model_file(load_preset("yolov8n"), 2)
    content["scales"] = {"m": [1.0, 1.0, 1024], "s": [1.0, 0.5, 1024]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    load_space(str(tmp_path / "mine.yaml"))
    assert "scale m, the first of m, s, since the name says none" in caplog.text

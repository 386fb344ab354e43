from __future__ import annotations

from dataclasses import replace

import pytest

from search_spaces.kinds import Kind, can_have_library, kinds_of, nearest_choices
from search_spaces.presets import load_preset
from search_spaces.space import SearchSpace, values_of
from search_spaces.space_file import load_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("yolov8n")


def only(space: SearchSpace, **values: tuple[str | int, ...]) -> SearchSpace:
    """The space with other values of some choices; `P4_width` is for `P4.width`."""
    return replace(space, choices={**space.choices, **{name.replace("_", "."): one for name, one in values.items()}})


def test_a_design_of_the_space_is_its_own_nearest_point(space: SearchSpace) -> None:
    stock = load_preset("yolov8n")
    assert space.architecture(nearest_choices(space, stock)) == stock


def test_a_width_that_there_is_not_becomes_the_nearest(space: SearchSpace) -> None:
    stock = load_preset("yolov8n")  # 128 at P4
    assert nearest_choices(only(space, P4_width=(32, 112, 160)), stock)["P4.width"] == 112
    assert nearest_choices(only(space, P4_width=(32, 160)), stock)["P4.width"] == 160


def test_a_block_that_there_is_not_becomes_the_first(space: SearchSpace) -> None:
    stock = load_preset("yolov8n")
    assert nearest_choices(only(space, P3_block=("Conv", "GhostConv")), stock)["P3.block"] == "Conv"
    assert nearest_choices(only(space, P3_block=("Conv", "C2f")), stock)["P3.block"] == "C2f"


def test_the_nearest_point_has_all_choices_of_the_space_and_no_others(space: SearchSpace) -> None:
    other = load_preset("yolov8n-ghost")
    found = nearest_choices(space, other)
    assert found.keys() == space.choices.keys()
    assert found == {name: values_of(other)[name] for name in space.choices}


def test_a_kind_is_read_as_it_was_written() -> None:
    for kind in (Kind("neck.P4.up.block", "C2f"), Kind("pooling", "-"), Kind("P3.block", "Conv", 2)):
        assert Kind.parse(kind.text) == kind


def test_each_kind_is_what_a_design_with_its_choices_has(space: SearchSpace) -> None:
    start = nearest_choices(space, load_preset("yolov8n"))
    kinds = kinds_of(space, start)
    assert len(set(kinds)) == len(kinds) > 100
    for kind in kinds:
        assert Kind.of(kind.place, space.architecture({**start, **kind.choices})) == kind


def test_a_space_that_chooses_the_size_of_images_has_no_library(space: SearchSpace) -> None:
    sizes = only(space, imgsz=(320, 416))
    assert can_have_library(space)
    assert not can_have_library(sizes)
    assert can_have_library(only(space, imgsz=(320,)))
    with pytest.raises(ValueError, match="chooses among several"):
        kinds_of(sizes, nearest_choices(space, load_preset("yolov8n")))


def test_a_space_with_another_activation_than_the_stock_models_has_no_library(space: SearchSpace) -> None:
    assert can_have_library(only(space, activation=("SiLU",)))
    assert not can_have_library(only(space, activation=("ReLU",)))
    assert not can_have_library(only(space, activation=("SiLU", "ReLU")))
    own = replace(space.architecture({**nearest_choices(space, load_preset("yolov8n")), "activation": "ReLU"}))
    assert can_have_library(replace(only(space, activation=("ReLU",)), model=own))

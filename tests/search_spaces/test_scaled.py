from __future__ import annotations

from dataclasses import replace

import pytest

from search_spaces.presets import load_preset, presets
from search_spaces.scaled import scaled_designs
from search_spaces.space import SearchSpace, values_of
from search_spaces.space_file import list_spaces, load_space


def scaled_in(space: SearchSpace) -> dict[str, object]:
    return dict(scaled_designs(space, load_preset(space.baseline)))


@pytest.mark.parametrize("name", list_spaces())
def test_every_shipped_space_holds_four_sizes_of_its_stock_model_or_more(name: str) -> None:
    space = load_space(name)
    stock = load_preset(space.baseline)
    scaled = scaled_designs(space, stock)
    assert len(scaled) >= 4
    assert len({stock, *scaled.values()}) == len(scaled) + 1
    same = [choice for choice in values_of(stock) if choice.rpartition(".")[2] not in ("width", "depth")]
    for design in scaled.values():
        assert space.choices_of(design) is not None
        assert all(values_of(design)[choice] == values_of(stock)[choice] for choice in same)


@pytest.mark.parametrize("name", list_spaces())
def test_a_name_is_a_presets_only_where_the_design_is(name: str) -> None:
    space = load_space(name)
    for given, design in scaled_designs(space, load_preset(space.baseline)).items():
        assert given not in presets() or design == load_preset(given)
        assert design not in [preset.architecture for other, preset in presets().items() if other != given]


def test_widths_and_depths_are_the_nearest_that_the_space_offers() -> None:
    scaled = scaled_designs(load_space("yolov8n"), load_preset("yolov8n"))
    assert list(scaled)[:5] == [
        *("yolov8n-w0.50", "yolov8n-w0.78", "yolov8n-w0.50-d0.82"),
        *("yolov8n-w1.50", "yolov8n-w1.50-d1.84"),
    ]
    half, deeper = scaled["yolov8n-w0.50"], scaled["yolov8n-w1.50-d1.84"]
    assert [half.stem.width, *(stage.width for stage in half.stages)] == [8, 16, 32, 64, 128]
    assert [stage.depth for stage in half.stages] == [1, 2, 2, 1]
    assert [stage.depth for stage in deeper.stages] == [2, 3, 3, 2]  # three for four: there is no more
    assert [stage.width for stage in scaled["yolov8n-w0.78"].stages] == [24, 48, 96, 192]


def test_a_space_that_leaves_no_choice_or_has_other_blocks_has_none() -> None:
    space = load_space("yolov8n")
    stock = space.choices_of(load_preset("yolov8n"))
    assert stock is not None
    fixed = {name: (stock[name],) if name.endswith(("width", "depth")) else v for name, v in space.choices.items()}
    assert scaled_in(replace(space, choices=fixed)) == {}
    assert scaled_in(replace(space, choices={**space.choices, "P4.block": ("ConvNeXt",)})) == {}
    one = {name: (stock[name],) if name.endswith("depth") else v for name, v in space.choices.items()}
    assert set(scaled_in(replace(space, choices=one))) == {
        *("yolov8n-w0.50", "yolov8n-w1.50", "yolov8n-w0.78", "yolov8n-w0.47"),
    }


def test_the_image_size_stays_and_an_activation_that_is_not_offered_is_the_first() -> None:
    space = load_space("yolov8n")
    chosen = replace(space, choices={**space.choices, "imgsz": (64, 96), "activation": ("ReLU", "Hardswish")})
    scaled = scaled_designs(chosen, replace(load_preset("yolov8n"), imgsz=96))
    assert {(design.imgsz, design.activation) for design in scaled.values()} == {(96, "ReLU")}
    silu = replace(space, choices={**space.choices, "activation": ("ReLU", "SiLU")})
    assert {design.activation for design in scaled_designs(silu, load_preset("yolov8n")).values()} == {None}


def test_ones_own_model_is_scaled_under_its_name() -> None:
    space = replace(load_space("yolov8n"), model=load_preset("yolov8n-ghost"))
    scaled = scaled_designs(space, load_preset("yolov8n-ghost"))
    assert all(name.startswith("model:yolov8n-") for name in scaled)
    assert {stage.block for design in scaled.values() for stage in design.stages} == {"C2fGhost"}

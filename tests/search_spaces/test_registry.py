from __future__ import annotations

import subprocess
import sys

import pytest
from torch import nn
from ultralytics.nn import tasks

from search_spaces import registry
from search_spaces.errors import UserError
from search_spaces.registry import (
    UnknownNameError,
    get_block,
    get_family,
    list_blocks,
    list_families,
    register_block,
    unknown,
)


def test_names_are_sorted() -> None:
    assert list(list_blocks()) == sorted(list_blocks())
    assert {"Conv", "GhostConv", "C2f", "C2fGhost", "ShuffleV2", "ConvNeXt", "GhostV2", "FocalModulation"} <= set(
        list_blocks()
    )
    assert list(list_families()) == sorted(list_families())
    assert "yolov8" in list_families()


@pytest.mark.parametrize("name", list_blocks())
def test_every_block_says_where_it_comes_from(name: str) -> None:
    block = get_block(name)
    assert block.name == name
    assert "arXiv:" in block.paper
    assert block.licence
    assert issubclass(block.module, nn.Module)


@pytest.mark.parametrize("name", list_blocks())
def test_a_block_is_stock_where_ultralytics_knows_the_name(name: str) -> None:
    block = get_block(name)
    assert getattr(tasks, name, None) is (block.module if block.stock else None)


@pytest.mark.parametrize("name", [name for name in list_blocks() if not get_block(name).stock])
def test_our_classes_are_called_what_their_block_is(name: str) -> None:
    assert get_block(name).module.__name__ == name


def test_a_second_class_of_the_same_name_is_refused() -> None:
    before = get_block("C2fGhost")
    register = register_block("C2fGhost", paper="another", licence="another")
    with pytest.raises(ValueError, match="block 'C2fGhost' is registered twice"):
        register(nn.Identity)
    assert get_block("C2fGhost") is before


def test_the_same_class_may_be_registered_again() -> None:
    block = get_block("C2fGhost")
    register = register_block("C2fGhost", paper=block.paper, licence=block.licence, arguments=block.arguments)
    assert register(block.module) is block.module
    assert get_block("C2fGhost") == block


def test_a_registered_class_can_be_had_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_blocks", dict(registry._blocks))

    @register_block("Doubled", paper="none", licence="MIT", arguments=(3,), takes_depth=False)
    class Doubled(nn.Conv2d):
        pass

    assert "Doubled" in list_blocks()
    built = get_block("Doubled").build(4, 8, depth=3)
    assert [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in built] == [
        (4, 8, (3, 3)),
        (8, 8, (3, 3)),
        (8, 8, (3, 3)),
    ]


def test_a_block_with_a_depth_of_its_own_gets_it() -> None:
    built = get_block("C2f").build(16, 24, depth=3)
    assert type(built) is get_block("C2f").module
    assert len(built.m) == 3
    assert all(unit.add for unit in built.m)  # `shortcut`, the first of `arguments`


@pytest.mark.parametrize("name", ["C2fGhots", "c2fghost", "C2FGHOST"])
def test_an_unknown_block_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown block '{name}'; did you mean 'C2fGhost'"):
        get_block(name)


@pytest.mark.parametrize("name", ["yolo8", "YOLOv8", "yolov8n"])
def test_an_unknown_family_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown family '{name}'; did you mean 'yolov8'"):
        get_family(name)


def test_an_unknown_name_is_a_user_error_of_one_line() -> None:
    with pytest.raises(UserError) as caught:
        get_block("nothing like it\nat all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("widht", ["depth", "width"], "unknown key 'widht'; did you mean 'width'?"),
        ("WIDTH", ["depth", "Width"], "unknown key 'WIDTH'; did you mean 'Width'?"),
        ("zzz", ["width", "depth"], "unknown key 'zzz'; known: depth, width"),
        (7, ["width"], "unknown key 7; known: width"),
    ],
)
def test_unknown_names_the_nearest_word_or_all(name: object, known: list[str], message: str) -> None:
    assert unknown("key", name, iter(known)) == message


def test_listing_families_loads_neither_torch_nor_ultralytics() -> None:
    code = (
        "import sys; from search_spaces.registry import get_family, list_families; get_family(list_families()[0]);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ultralytics')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from search_spaces.errors import UserError
from search_spaces.image_size import ImageSize, chosen_size
from search_spaces.presets import load_preset

SIDES = [int(side) * 32 for side in np.random.default_rng(0).integers(1, 130, 20)]


@pytest.mark.parametrize(("width", "height"), [*zip(SIDES[:10], SIDES[10:], strict=True), (640, 640), (32, 32)])
def test_a_size_is_read_back_from_each_of_its_forms(width: int, height: int) -> None:
    size = ImageSize(width, height)
    assert size == ImageSize.parse(size.plain) == ImageSize.parse(str(size))
    assert size == ImageSize.parse(json.loads(json.dumps(size.plain)))
    assert size == ImageSize.from_argument(size.argument)
    assert size == ImageSize.parse(f"{width}x{height}")
    assert size.shape == (height, width)
    assert size.is_square == (width == height)


def test_a_square_is_the_number_that_it_always_was_and_any_other_size_is_text() -> None:
    assert (ImageSize.parse("640").plain, ImageSize.parse("640x640").plain, ImageSize.parse(640).argument) == (640,) * 3
    wide = ImageSize.parse("640x384")
    assert (wide.width, wide.height, wide.longer) == (640, 384, 640)
    assert (wide.plain, str(wide), f"{wide} px") == ("640x384", "640x384", "640x384 px")
    assert wide.argument == [384, 640]  # Ultralytics has the height first
    assert ImageSize(384, 640) != wide
    assert len({wide, ImageSize(640, 384), ImageSize(384, 640)}) == 2


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        *[("100", "96"), ("33", "32"), ("0", "32"), ("16", "32"), ("650x380", "640x384"), ("640x0", "640x32")],
        *[(given, "640x384") for given in ("", "x", "640x", "x384", "640x384x3", "640,384", "640*384", "-64", "6.4e2")],
        *[(given, "640x384") for given in ("640 x 384", "[384, 640]", "９６", "1e9", "99999999", "big", "640X384")],
    ],
)
def test_what_no_network_takes_is_refused_with_a_size_that_one_does(given: str, nearest: str) -> None:
    with pytest.raises(UserError) as caught:
        ImageSize.parse(given, "--imgsz")
    assert str(caught.value) == f"--imgsz {given} must be a multiple of 32, or WIDTHxHEIGHT of two, e.g. {nearest}"
    assert ImageSize.parse(nearest)


@pytest.mark.parametrize("sides", [(64, 33), (0, 64), (-64, 64), (64.0, 64)])
def test_there_is_no_other_size(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be a multiple of 32"):
        ImageSize(*sides)


@pytest.mark.parametrize("own", [None, 96])
def test_an_architecture_s_own_size_goes_before_the_search_s(own: int | None) -> None:
    architecture = replace(load_preset("yolov8n"), imgsz=own)
    expected = ImageSize(96, 96) if own else ImageSize(640, 384)
    assert chosen_size(architecture, ImageSize(640, 384)) == expected

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from search_spaces import Architecture, Neck, Stage, Stem
from search_spaces.architecture import MAX_DEPTH, MAX_WIDTH, Level
from search_spaces.presets import load_preset


def some_architecture() -> Architecture:
    return Architecture(
        family="yolov8",
        stem=Stem("Conv", 16),
        stages=(
            Stage("Conv", "C2f", 32, 1, widen=2),
            Stage("GhostConv", "C2fGhost", 64, 2),
            Stage("Conv", "ShuffleV2", 128, 2),
            Stage("Conv", "C2f", 256, 1),
        ),
        neck=Neck("ADown", (Level("C2f", 64, 1), Level("UIB", 128, 2), Level("C2f", 192, 1))),
        attention="C2PSA",
    )


def test_document_is_canonical() -> None:
    architecture = some_architecture()
    document = json.loads(architecture.document)
    assert architecture.document == json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert document["stages"][1] == {
        **{"downsample": "GhostConv", "block": "C2fGhost", "width": 64, "depth": 2},
        "widen": 1,
    }
    assert document["neck"]["levels"][1] == {"block": "UIB", "width": 128, "depth": 2}
    assert (document["attention"], document["imgsz"]) == ("C2PSA", None)


def test_key_never_changes() -> None:
    # Databases hold keys: another value makes every recorded architecture a stranger.
    assert some_architecture().key == "aa9155f26ada3194"
    assert load_preset("yolov8n").key == "9646ddf332e9c45a"
    assert load_preset("yolov8n-convnext").key == "51fdb2391734227e"
    assert '"activation"' not in some_architecture().document


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize(("imgsz", "activation"), [(None, None), (320, None), (None, "ReLU"), (320, "LeakyReLU")])
def test_document_round_trip(as_text: bool, imgsz: int | None, activation: str | None) -> None:
    architecture = replace(some_architecture(), imgsz=imgsz, activation=activation)
    document = architecture.document
    other = Architecture.from_document(document if as_text else json.loads(document))
    assert other == architecture
    assert hash(other) == hash(architecture)
    assert (other.key, other.document) == (architecture.key, document)


def test_order_and_spaces_of_a_document_do_not_matter() -> None:
    document = json.loads(some_architecture().document)
    shuffled = json.dumps(dict(reversed(document.items())), indent=2)
    assert Architecture.from_document(shuffled).key == some_architecture().key


def test_every_part_counts() -> None:
    one = some_architecture()
    p2, *others = one.stages
    n3, n4, n5 = one.neck.levels
    stages = ({"downsample": "GhostConv"}, {"block": "Conv"}, {"width": 48}, {"depth": 2}, {"widen": 1})
    levels: tuple[dict[str, Any], ...] = ({"block": "C2fGhost"}, {"width": 72}, {"depth": 2})
    different = [
        replace(one, family="other"),
        replace(one, stem=replace(one.stem, downsample="GhostConv")),
        replace(one, stem=replace(one.stem, width=24)),
        *(replace(one, stages=(replace(p2, **change), *others)) for change in stages),
        replace(one, stages=(others[0], p2, *others[1:])),
        replace(one, neck=replace(one.neck, downsample="Conv")),
        *(replace(one, neck=replace(one.neck, levels=(replace(n3, **change), n4, n5))) for change in levels),
        replace(one, neck=replace(one.neck, levels=(n3, n5, n4))),
        replace(one, attention="none"),
        replace(one, imgsz=640),
        replace(one, imgsz=320),
        replace(one, activation="SiLU"),
        replace(one, activation="ReLU"),
    ]
    everything = [one, *different]
    assert len({architecture.key for architecture in everything}) == len(everything)
    assert len(set(everything)) == len(everything)


def test_places_are_named_in_order_of_appearance() -> None:
    assert list(some_architecture().places.items()) == [
        ("P1.downsample", "Conv"),
        ("P2.downsample", "Conv"),
        ("P2.block", "C2f"),
        ("P3.downsample", "GhostConv"),
        ("P3.block", "C2fGhost"),
        ("P4.downsample", "Conv"),
        ("P4.block", "ShuffleV2"),
        ("P5.downsample", "Conv"),
        ("P5.block", "C2f"),
        ("attention", "C2PSA"),
        ("neck.downsample", "ADown"),
        ("neck.P3.block", "C2f"),
        ("neck.P4.block", "UIB"),
        ("neck.P5.block", "C2f"),
    ]
    assert "attention" not in replace(some_architecture(), attention="none").places


def test_blocks_are_named_once_in_order_of_appearance() -> None:
    architecture = some_architecture()
    assert architecture.blocks == ("Conv", "C2f", "GhostConv", "C2fGhost", "ShuffleV2", "C2PSA", "ADown", "UIB")
    assert "none" not in replace(architecture, attention="none").blocks


def test_the_downsampling_of_a_widened_stage_is_half_as_wide() -> None:
    assert Stage("Conv", "C2f", 96, 1).downsample_width == 96
    assert Stage("Conv", "C2f", 96, 1, widen=2).downsample_width == 48


@pytest.mark.parametrize("width", [0, -8, 4, 12, 17, MAX_WIDTH + 8])
def test_a_width_is_a_multiple_of_8(width: int) -> None:
    message = rf"width {width} must be a multiple of 8 up to {MAX_WIDTH}"
    for make in (lambda: Stem("Conv", width), lambda: Stage("Conv", "C2f", width, 1), lambda: Level("C2f", width, 1)):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("width", [8, 24, 40, MAX_WIDTH + 16])
def test_the_width_of_a_widened_stage_is_a_multiple_of_16(width: int) -> None:
    with pytest.raises(ValueError, match=f"width {width} must be a multiple of 16"):
        Stage("Conv", "C2f", width, 1, widen=2)


def test_widths_and_depths_at_the_edge_are_taken() -> None:
    for width in (8, 24, MAX_WIDTH):
        assert Stem("Conv", width).width == Stage("Conv", "C2f", width, 1).width == Level("C2f", width, 1).width
    assert Stage("Conv", "C2f", 16, MAX_DEPTH, widen=2).downsample_width == 8
    assert Level("C2f", 8, MAX_DEPTH).depth == 12


@pytest.mark.parametrize("depth", [0, -1, MAX_DEPTH + 1])
def test_a_depth_is_from_1_to_12(depth: int) -> None:
    for make in (lambda: Stage("Conv", "C2f", 16, depth), lambda: Level("C2f", 16, depth)):
        with pytest.raises(ValueError, match=f"depth {depth} must be from 1 to 12"):
            make()


@pytest.mark.parametrize("widen", [0, 3, -1])
def test_widen_is_1_or_2(widen: int) -> None:
    with pytest.raises(ValueError, match=f"widen {widen} must be 1 or 2"):
        Stage("Conv", "C2f", 96, 1, widen)


@pytest.mark.parametrize("imgsz", [0, 16, 33, 100, -32])
def test_an_image_size_is_a_multiple_of_32(imgsz: int) -> None:
    with pytest.raises(ValueError, match=f"image size {imgsz} must be a multiple of 32"):
        replace(some_architecture(), imgsz=imgsz)


@pytest.mark.parametrize("imgsz", [None, 32, 96, 640, 1280])
def test_image_sizes_that_are_taken(imgsz: int | None) -> None:
    assert replace(some_architecture(), imgsz=imgsz).imgsz == imgsz


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("relu", "unknown activation 'relu'; did you mean 'ReLU'?"),
        ("torch.nn.ReLU()", "unknown activation 'torch.nn.ReLU()'; "),
        ("", "unknown activation ''; known: GELU, "),
    ],
)
def test_an_unknown_activation_is_refused_with_the_nearest(activation: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(some_architecture(), activation=activation)
    document = json.loads(some_architecture().document) | {"activation": activation}
    with pytest.raises(ValueError, match=re.escape(message)):
        Architecture.from_document(document)


@pytest.mark.parametrize("text", ["", "yolov8n", "{", "[]", "{}", "5", "null", '"text"', '{"family":"yolov8"}'])
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an architecture|Expect"):
        Architecture.from_document(text)


def changed_document(path: str, value: Any) -> dict[str, Any]:
    """The document with one part set, or removed where the value is None."""
    document: dict[str, Any] = json.loads(some_architecture().document)
    *parents, last = re.split(r"\.", path)
    place: Any = document
    for parent in parents:
        place = place[int(parent) if parent.isdecimal() else parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize(
    "path",
    [
        *("family", "stem", "stages", "neck", "stem.width", "stages.2.depth"),
        *("neck.levels", "neck.downsample", "neck.levels.0.width", "neck.levels.2.block"),
    ],
)
def test_a_missing_part_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not an architecture"):
        Architecture.from_document(changed_document(path, None))


@pytest.mark.parametrize("path", ["stem.colour", "stages.0.colour", "colour", "neck.colour", "neck.levels.1.colour"])
def test_an_unknown_part_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not an architecture"):
        Architecture.from_document(changed_document(path, "red"))


@pytest.mark.parametrize(
    ("path", "value"), [("stages", []), ("stages", [{}] * 5), ("neck.levels", []), ("neck.levels", [{}] * 2)]
)
def test_a_wrong_number_of_stages_or_levels_is_refused(path: str, value: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"unpack|not an architecture"):
        Architecture.from_document(changed_document(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("stem.width", 12), ("stages.0.width", 40), ("stages.1.depth", 13), ("stages.1.widen", 3)],
        *[("neck.levels.0.width", 4), ("neck.levels.0.depth", 0), ("imgsz", 100)],
    ],
)
def test_a_number_out_of_range_is_refused(path: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{value} must be"):
        Architecture.from_document(changed_document(path, value))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        *[("stem.width", "width {!r} must be a multiple of 8"), ("stages.0.width", "width {!r} must be a multiple of")],
        *[("neck.levels.2.width", "width {!r} must be a multiple of 8"), ("stages.1.widen", "widen {!r} must be 1 or")],
        *[("stages.1.depth", "depth {!r} must be from 1 to 12"), ("neck.levels.1.depth", "depth {!r} must be from 1")],
        ("imgsz", "image size {} must be a multiple of 32"),
    ],
)
@pytest.mark.parametrize("value", ["64", 64.0, 1.0, 1.5, True, [64]])
def test_what_is_no_whole_number_is_refused(path: str, message: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message.format(value))}"):
        Architecture.from_document(changed_document(path, value))


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (Stem, ("Conv", "64"), "width '64' must be a multiple of 8 up to 2048"),
        (Stem, ("Conv", True), "width True must be a multiple of 8 up to 2048"),
        (Stage, ("Conv", "C2f", 64, 1.5), "depth 1.5 must be from 1 to 12"),
        (Stage, ("Conv", "C2f", 64, True), "depth True must be from 1 to 12"),
        (Stage, ("Conv", "C2f", 64, 1, True), "widen True must be 1 or 2"),
        (Level, ("C2f", 64.0, 1), "width 64.0 must be a multiple of 8 up to 2048"),
    ],
)
def test_a_part_takes_whole_numbers_only(part: type[Any], values: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        part(*values)

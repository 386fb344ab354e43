from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search_spaces import SearchSpace, SpaceError
from search_spaces.blocks import list_blocks
from search_spaces.families import get_family, list_families
from search_spaces.image_size import ImageSize
from search_spaces.presets import known_designs, load_preset, presets
from search_spaces.space_file import load_space
from search_spaces.space_reader import LIBRARY, list_spaces

SMALL = """\
version: 1
family: yolov8
stem: {downsample: Conv, width: [8, 16]}
stages:
  P2: {downsample: Conv, block: [C2f, C2fGhost], width: 32, depth: 1}
  P3: {downsample: Conv, block: C2f, width: 64, depth: [1, 2, 3]}
  P4: {downsample: [Conv, GhostConv], block: C2f, width: 128, depth: 2}
  P5: {downsample: Conv, block: C2f, width: [256, 96], depth: 1}
neck:
  downsample: Conv
  P3: {block: C2f, depth: 1}
  P4: {block: UIB, depth: 1}
  P5: {block: C2f, depth: 1}
"""
ELEVEN = SMALL.replace("yolov8", "yolo11").replace("P5: {block: C2f, d", "P5: {block: C3k2, d")
CONTROL = {"SMALL": SMALL, "ELEVEN": ELEVEN}


def load_text(text: str, folder: Path) -> SearchSpace:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return load_space(str(path))


# The library


def test_library_space() -> None:
    space = load_space("yolov8n")
    assert (space.name, space.family) == ("yolov8n", "yolov8")
    # P1 4·3, P2 11·17·4·2, P3 and P4 11·17·4·3, P5 11·17·5·2, attention 3, neck 3·(7·2)³.
    assert space.size == 12 * 1496 * 2244 * 2244 * 1870 * 3 * 3 * 14**3
    assert list(space.choices)[:4] == ["P1.downsample", "P1.width", "P2.downsample", "P2.block"]
    assert space.choices["P5.width"] == (96, 128, 192, 256, 384)
    assert space.choices["P5.widen"] == (1,)


SCALES = {
    **{"yolov8": [f"yolov8{scale}" for scale in "nsmlx"], "yolov9": [f"yolov9{scale}" for scale in "tsc"]},
    **{family: [f"{family}{scale}" for scale in "nsmlx"] for family in ("yolo11", "yolo26")},
    **{name: [name] for name in ("yolov8n", "yolov9t", "yolo11n", "yolo26n")},
}


def test_every_space_of_the_library_is_tested_for_what_it_holds() -> None:
    assert set(SCALES) == set(list_spaces())


@pytest.mark.parametrize(("name", "preset"), [(space, preset) for space in SCALES for preset in SCALES[space]])
def test_a_library_space_holds_its_stock_models(name: str, preset: str) -> None:
    space, stock = load_space(name), load_preset(preset)
    choices = space.choices_of(stock)
    assert choices is not None
    assert space.architecture(choices) == stock


@pytest.mark.parametrize("name", list_spaces())
def test_a_library_space_says_what_it_holds_and_builds(name: str) -> None:
    from search_spaces import hook

    space, rng = load_space(name), np.random.default_rng(0)
    first = (LIBRARY / "spaces" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# Detectors")
    assert space.choices_of(load_preset(get_family(space.family).baseline)) is not None
    for _ in range(20):  # each of its words may stand where it is
        hook.model_file(space.architecture(space.sample(rng)), nc=3)
    first_values = {choice: values[0] for choice, values in space.choices.items()}
    for neighbour in space.neighbours(first_values):
        hook.model_file(space.architecture(neighbour), nc=3)


@pytest.mark.parametrize("name", list_spaces())
def test_a_library_file_says_everything_in_multiples_of_8(name: str, caplog: pytest.LogCaptureFixture) -> None:
    load_space(name)
    assert caplog.records == []


# Known designs

SWAPS = ("ghost", "ghostv2", "shufflev2", "convnext", "focal")


def test_presets_of_the_library() -> None:
    expected = [f"yolov8{scale}{suffix}" for scale in "nsmlx" for suffix in ("", *(f"-{swap}" for swap in SWAPS))]
    expected += [f"yolov9{scale}{suffix}" for scale in "tsc" for suffix in ("", "-focal")]
    expected += [f"{family}{scale}" for family in ("yolo11", "yolo26") for scale in "nsmlx"]
    assert sorted(presets()) == sorted(expected)
    assert len({preset.architecture.key for preset in presets().values()}) == len(expected)
    assert presets()["yolov8s-ghost"].description == "YOLOv8 with ghost convolutions in the whole backbone."
    assert all(name == preset.name for name, preset in presets().items())


@pytest.mark.parametrize("name", list_families())
def test_every_family_has_its_baseline_among_the_presets(name: str) -> None:
    assert load_preset(get_family(name).baseline).family == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolov8n-gost", "unknown model 'yolov8n-gost'; did you mean 'yolov8n-ghost'?"),
        ("YOLO11N", "did you mean 'yolo11n'?"),
        ("", "unknown model ''; known: yolo11l, "),
    ],
)
def test_an_unknown_preset_is_refused(name: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        load_preset(name)
    assert message in str(caught.value)


def test_known_designs_are_the_baseline_and_its_own_swaps() -> None:
    designs = known_designs(load_space("yolov8n"), "yolov8n", ImageSize(640, 640))
    assert next(iter(designs)) == "yolov8n"
    assert set(designs) == {"yolov8n", *(f"yolov8n-{swap}" for swap in SWAPS)}
    assert designs == {name: load_preset(name) for name in designs}
    assert list(known_designs(load_space("yolov9t"), "yolov9t", ImageSize(640, 640))) == ["yolov9t", "yolov9t-focal"]
    assert list(known_designs(load_space("yolo26n"), "yolo26n", ImageSize(640, 640))) == ["yolo26n"]


@pytest.mark.parametrize(
    ("space", "baseline"),
    [("yolov8", "yolov8s"), ("yolov9", "yolov9t"), ("yolov9", "yolov9c"), ("yolo11", "yolo11n"), ("yolo26", "yolo26x")],
)
def test_known_designs_are_the_baseline_then_the_other_stock_models_then_its_swaps(space: str, baseline: str) -> None:
    designs = known_designs(load_space(space), baseline, ImageSize(640, 640))
    stock, swaps = [name for name in designs if "-" not in name], [name for name in designs if "-" in name]
    assert list(designs) == [*stock, *swaps]
    assert stock[0] == baseline
    assert sorted(stock) == sorted(SCALES[space])
    own = {"yolov8": SWAPS, "yolov9": ("focal",)}.get(space, ())
    assert set(swaps) == {f"{baseline}-{swap}" for swap in own}
    assert designs == {name: load_preset(name) for name in designs}


def test_known_designs_are_of_the_space_s_family_only() -> None:
    for name in list_spaces():
        space = load_space(name)
        designs = known_designs(space, get_family(space.family).baseline, ImageSize(640, 640))
        assert {design.family for design in designs.values()} == {space.family}
        assert len({design.key for design in designs.values()}) == len(designs)


def test_known_designs_outside_the_space_are_left_out_but_the_baseline_is_not(tmp_path: Path) -> None:
    stock = load_space("yolov8n").restricted_to_stock()
    assert list(known_designs(stock, "yolov8n", ImageSize(640, 640))) == ["yolov8n", "yolov8n-ghost"]
    outside = load_text(SMALL, tmp_path)
    assert outside.choices_of(load_preset("yolov8n")) is None
    assert known_designs(outside, "yolov8n", ImageSize(640, 640)) == {"yolov8n": load_preset("yolov8n")}


@pytest.mark.parametrize(("sizes", "imgsz", "expected"), [((320, 640), 640, 640), ((320, 640), 480, None)])
def test_known_designs_have_the_image_size_where_the_space_chooses_it(
    sizes: tuple[int, ...], imgsz: int, expected: int | None
) -> None:
    plain = load_space("yolov8n")
    space = replace(plain, choices={**plain.choices, "imgsz": sizes})
    designs = known_designs(space, "yolov8n", ImageSize(imgsz, imgsz))
    assert designs["yolov8n"] == replace(load_preset("yolov8n"), imgsz=expected)
    assert {design.imgsz for design in designs.values()} == {expected}
    assert len(designs) == (1 + len(SWAPS) if expected else 1)  # without a size of the space, no swap lies inside


@pytest.mark.parametrize(
    ("activations", "expected"),
    [
        (("SiLU", "ReLU"), {"ghost": None, "ghostv2": None, "shufflev2": None, "convnext": "SiLU", "focal": "SiLU"}),
        (("ReLU", "SiLU"), {"ghost": None, "ghostv2": None, "shufflev2": None, "convnext": "ReLU", "focal": "ReLU"}),
        (("ReLU",), {"": "ReLU", **dict.fromkeys(SWAPS, "ReLU")}),
    ],
)
def test_known_designs_have_an_activation_of_the_space(
    activations: tuple[str, ...], expected: dict[str, str | None]
) -> None:
    plain = load_space("yolov8n")
    space = replace(plain, choices={**plain.choices, "activation": activations})
    designs = known_designs(space, "yolov8n", ImageSize(640, 640))
    named = {}
    for swap, activation in expected.items():
        preset = f"yolov8n-{swap}".rstrip("-")
        design = replace(load_preset(preset), activation=activation)
        named[preset if activation is None else f"{preset}-{activation.lower()}"] = design
    # The stock model to beat is the first and as it is, whether or not the space has it.
    assert next(iter(designs)) == "yolov8n"
    assert designs == {"yolov8n": load_preset("yolov8n")} | named
    assert all(space.choices_of(design) for name, design in designs.items() if name != "yolov8n")
    assert len({design.key for design in designs.values()}) == len(designs)


# Reading


def test_a_single_value_stands_for_a_list(tmp_path: Path) -> None:
    space = load_text(SMALL, tmp_path)
    assert space.name == str(tmp_path / "space.yaml")
    assert space.choices["P2.width"] == (32,)
    assert space.choices["P2.block"] == ("C2f", "C2fGhost")
    assert space.choices["P5.width"] == (96, 256)  # numbers are sorted
    assert space.size == 2 * 2 * 3 * 2 * 2


def test_what_may_be_left_out(tmp_path: Path) -> None:
    space = load_text(SMALL.replace("version: 1\n", ""), tmp_path)
    assert space.choices["attention"] == ("none",)
    assert {space.choices[f"{level}.widen"] for level in ("P2", "P3", "P4", "P5")} == {(1,)}
    assert not {"imgsz", "activation", "neck.P3.width", "neck.P4.width", "neck.P5.width"} & space.choices.keys()
    assert space == load_text(SMALL, tmp_path)


def test_what_may_be_added(tmp_path: Path) -> None:
    text = SMALL.replace("width: 64, depth: [1, 2, 3]", "width: 64, depth: 1, widen: [2, 1]")
    text = text.replace("P5: {block: C2f, depth: 1}", "P5: {block: C2f, depth: 1, width: [64, 32]}")
    more = "attention: [none, FocalModulation]\nimgsz: [640, 320]\nactivation: [SiLU, ReLU]\n"
    space = load_text(text + more, tmp_path)
    assert space.choices["P3.widen"] == (1, 2)
    assert space.choices["neck.P5.width"] == (32, 64)
    assert space.choices["attention"] == ("none", "FocalModulation")
    assert space.choices["imgsz"] == (320, 640)
    assert space.choices["activation"] == ("SiLU", "ReLU")
    assert space.size == 2 * 2 * 2 * 2 * 2 * 2 * 2 * 2 * 2


def test_a_yaml_anchor_names_a_list(tmp_path: Path) -> None:
    text = SMALL.replace("block: [C2f, C2fGhost]", "block: &block [C2f, C2fGhost]").replace(
        "P3: {downsample: Conv, block: C2f", "P3: {downsample: Conv, block: *block"
    )
    space = load_text(text, tmp_path)
    assert space.choices["P2.block"] == space.choices["P3.block"] == ("C2f", "C2fGhost")
    assert load_text(ELEVEN, tmp_path).choices["neck.P5.block"] == ("C3k2",)


REFUSALS = {
    "unknown key": (SMALL, "neck:", "nek:", 9, "unknown key in a space: 'nek'; did you mean 'neck'?"),
    "unknown key in stem": (SMALL, "stem: {downsample", "stem: {downsmaple", 3, "did you mean 'downsample'?"),
    "unknown key in a stage": (SMALL, "32, depth", "32, dept", 5, "unknown key in P2: 'dept'; did you mean 'depth'?"),
    "misspelt optional key": (SMALL, "32, depth: 1", "32, depth: 1, widden: 2", 5, "did you mean 'widen'?"),
    "unknown stage": (SMALL, "P3:", "P6:", 6, "unknown key in stages: 'P6'; did you mean 'P"),
    "unknown level": (SMALL, "  P4: {block", "  P2: {block", 12, "unknown key in neck: 'P2'; did you mean 'P"),
    "unknown key in a level": (
        SMALL,
        "{block: UIB",
        "{blocks: UIB",
        12,
        "key in neck P4: 'blocks'; did you mean 'block'",
    ),
    "stem with a depth": (SMALL, "[8, 16]}", "[8, 16], depth: 1}", 3, "unknown key in stem: 'depth'"),
    "misspelt block": (SMALL, "C2fGhost", "C2fGhots", 5, "unknown block 'C2fGhots'; did you mean 'C2fGhost'?"),
    "block in another case": (SMALL, "C2fGhost", "c2fghost", 5, "did you mean 'C2fGhost'?"),
    "misspelt downsample": (SMALL, "[Conv, GhostConv]", "[Conv, GhosConv]", 7, "did you mean 'GhostConv'?"),
    "misspelt neck block": (SMALL, "block: UIB", "block: UIBB", 12, "unknown block 'UIBB'; did you mean 'UIB'?"),
    "misspelt attention": (
        SMALL,
        "neck:",
        "attention: C2PS\nneck:",
        9,
        "unknown attention 'C2PS'; did you mean 'C2PSA'?",
    ),
    "misspelt family": (SMALL, "yolov8", "yolo8", 2, "unknown family 'yolo8'; did you mean 'yolov8'?"),
    "two families": (SMALL, "yolov8", "[yolov8, yolov9]", 2, "family must be a single value"),
    "a list of one family": (SMALL, "yolov8", "[yolov8]", 2, "family must be a single value"),
    "mapping for a family": (SMALL, "yolov8", "{name: yolov8}", 2, "family must be a single value"),
    "family of another kind": (SMALL, "yolov8", "yolov10", 2, "unknown family 'yolov10'"),
    "list of versions": (SMALL, "version: 1", "version: [1]", 1, "version must be a single value"),
    "mapping for a version": (SMALL, "version: 1", "version: {one: 1}", 1, "version must be a single value"),
    "far from any word": (
        SMALL,
        "C2fGhost",
        "Xyz",
        5,
        f"unknown block 'Xyz'; known: {', '.join(list_blocks('stage'))}",
    ),
    "downsampling as a block": (SMALL, "C2fGhost", "ADown", 5, "unknown block 'ADown'"),
    "block as a downsampling": (SMALL, "[Conv, GhostConv]", "[Conv, C2f]", 7, "unknown downsample 'C2f'"),
    "attention as a block": (SMALL, "C2fGhost", "C2PSA", 5, "unknown block 'C2PSA'"),
    "none as a block": (SMALL, "C2fGhost", "none", 5, "unknown block 'none'"),
    "ADown as the stem": (
        SMALL,
        "stem: {downsample: Conv",
        "stem: {downsample: ADown",
        3,
        "'ADown' halves the channels",
    ),
    "block of another family": (SMALL, "C2fGhost", "C3k2", 5, "block 'C3k2' is not for this family"),
    "neck block of another family": (SMALL, "block: UIB", "block: A2C2f", 12, "block 'A2C2f' is not for this family"),
    "P5 that changes the head": (ELEVEN, "block: C3k2", "block: C2f", 13, "block 'C2f' cannot stand here"),
    "one of several in P5": (ELEVEN, "block: C3k2", "block: [C3k2, UIB]", 13, "one of A2C2f, C3k2, C3k2-C3k, C3k2-PSA"),
    "width 0": (SMALL, "width: 32", "width: 0", 5, "width '0' must be a whole number from 1 to 2048"),
    "negative width": (SMALL, "width: 32", "width: -8", 5, "width '-8' must be"),
    "fractional width": (SMALL, "width: 32", "width: 8.0", 5, "width '8.0' must be"),
    "width too large": (SMALL, "width: 32", "width: 2049", 5, "width '2049' must be"),
    "word for a width": (SMALL, "width: 32", "width: wide", 5, "width 'wide' must be"),
    "octal width": (SMALL, "[8, 16]", "[8, 16, 016]", 3, "width '016' must be"),
    "digits of another script": (SMALL, "width: 32", "width: ٣٢", 5, "width '٣٢' must be"),
    "depth 0": (SMALL, "[1, 2, 3]", "[0, 1]", 6, "depth '0' must be a whole number from 1 to 12"),
    "depth too large": (SMALL, "[1, 2, 3]", "13", 6, "depth '13' must be"),
    "widen 3": (SMALL, "32, depth: 1", "32, depth: 1, widen: 3", 5, "widen '3' must be a whole number from 1 to 2"),
    "image size": (
        SMALL,
        "neck:",
        "imgsz: [320, 500]\nneck:",
        9,
        "imgsz '500' must be a multiple of 32 from 32 to 4096",
    ),
    "misspelt activation": (
        SMALL,
        "neck:",
        "activation: [SiLU, Relu]\nneck:",
        9,
        "unknown activation 'Relu'; did you mean 'ReLU'?",
    ),
    "gate": (SMALL, "neck:", "activation: Softmax\nneck:", 9, "unknown activation 'Softmax'; "),
    "activation as Ultralytics has it": (
        SMALL,
        "neck:",
        "activation: torch.nn.ReLU()\nneck:",
        9,
        "unknown activation 'torch.nn.ReLU()'; ",
    ),
    "activation twice": (SMALL, "neck:", "activation: [ReLU, ReLU]\nneck:", 9, "activation 'ReLU' is given twice"),
    "no activation": (SMALL, "neck:", "activation: []\nneck:", 9, "activation has no values to choose from"),
    "empty list": (SMALL, "[8, 16]", "[]", 3, "width has no values to choose from"),
    "empty value": (SMALL, "[8, 16]", "", 3, "width '' must be"),
    "duplicate number": (SMALL, "[8, 16]", "[8, 16, 8]", 3, "width '8' is given twice"),
    "duplicate word": (SMALL, "[C2f, C2fGhost]", "[C2f, C2f]", 5, "block 'C2f' is given twice"),
    "duplicate key": (SMALL, "neck:", "family: yolov8\nneck:", 9, "'family' is given twice in a space"),
    "duplicate stage": (SMALL, "  P3: {downsample", "  P2: {downsample", 6, "'P2' is given twice in stages"),
    "missing section": (SMALL, "stem: {downsample: Conv, width: [8, 16]}\n", "", 1, "a space lacks stem"),
    "missing key": (SMALL, ", depth: [1, 2, 3]", "", 6, "P3 lacks depth"),
    "missing keys in a level": (SMALL, "{block: UIB, depth: 1}", "{}", 12, "neck P4 lacks block, depth"),
    "missing downsample in the neck": (SMALL, "  downsample: Conv\n", "", 10, "neck lacks downsample"),
    "list for a section": (
        SMALL,
        "{block: UIB, depth: 1}",
        "[UIB, 1]",
        12,
        "neck P4 must be a mapping with the keys block",
    ),
    "nested list": (SMALL, "[8, 16]", "[[8, 16]]", 3, "width must be a value or a list of values"),
    "mapping for a value": (SMALL, "[8, 16]", "{low: 8}", 3, "width must be a value or a list of values"),
    "not YAML": (SMALL, "[8, 16]", "[8, 16", 3, "not valid YAML"),
    "two documents": (SMALL, "neck:", "---\nneck:", 9, "not valid YAML"),
    "newer version": (SMALL, "version: 1", "version: 2", 1, "format version '2', and this nas-yolo reads version 1; "),
    "no version": (SMALL, "version: 1", "version: one", 1, "format version 'one'"),
    "preset": (SMALL, "neck:", "presets: {yolov8n: [0.33, 0.25, 1024]}\nneck:", 9, "unknown key in a space: 'presets'"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_names_file_line_and_the_nearest_word(case: str, tmp_path: Path) -> None:
    text, old, new, line, message = REFUSALS[case]
    assert old in text
    with pytest.raises(SpaceError) as caught:
        load_text(text.replace(old, new, 1), tmp_path)
    place, _, rest = str(caught.value).partition(": ")
    assert place == f"{tmp_path / 'space.yaml'}:{line}"
    assert message in rest
    assert "\n" not in rest


@pytest.mark.parametrize("name", CONTROL)
def test_what_the_refused_files_were_made_from_is_read(name: str, tmp_path: Path) -> None:
    assert load_text(CONTROL[name], tmp_path).size == 48


def test_a_newer_version_is_refused_by_name_whatever_else_it_has(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"space\.yaml:3: .*version 1; install a newer nas-yolo"):
        load_text("family: yolo30\nbody: {}\nversion: 2\n", tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"# nothing but a comment\n", b"yolov8n", b"- family\n", b"\xff\xfe\x00", b"family: \x00", b"1: 2\n"],
)
def test_a_file_that_is_no_space_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with pytest.raises(SpaceError) as caught:
        load_space(str(path))
    assert str(caught.value).startswith(f"{path}:1: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "? [family, stem]\n: yolov8\n",
        "? {family: stem}\n: yolov8\n",
        SMALL.replace("version: 1", "version: [1]"),
        SMALL.replace("version: 1", "version: {number: 1}"),
        SMALL.replace("P3: {downsample: Conv, ", "[P3]: 1\n  P3: {downsample: Conv, "),
        SMALL.replace("yolov8", "[]"),
        SMALL.replace("yolov8", "{name: yolov8}"),
        "<<: {family: yolov8}\n",
    ],
)
def test_a_strange_shape_is_refused_like_any_other_mistake(text: str, tmp_path: Path) -> None:
    with pytest.raises(SpaceError) as caught:
        load_text(text, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'space.yaml'}:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("widen", ["", ", widen: 1", ", widen: 2", ", widen: [1, 2]"])
def test_a_width_is_rounded_up_and_said_so(widen: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    step = 16 if "2" in widen else 8
    with caplog.at_level(logging.WARNING, "search_spaces.space_reader"):
        space = load_text(SMALL.replace("width: 32, depth: 1", f"width: [17, 33, 64], depth: 1{widen}"), tmp_path)
    rounded = (17 + -17 % step, 33 + -33 % step)
    assert space.choices["P2.width"] == (*rounded, 64)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'space.yaml'}:5: width {width} is rounded up to {up}, a multiple of {step}"
        for width, up in zip((17, 33), rounded, strict=True)
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_widths_of_the_stem_and_the_neck_are_rounded_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = SMALL.replace("[8, 16]", "[1, 12]").replace("UIB, depth: 1", "UIB, depth: 1, width: 2047")
    space = load_text(text, tmp_path)
    assert space.choices["P1.width"] == (8, 16)
    assert space.choices["neck.P4.width"] == (2048,)
    assert len(caplog.records) == 3


def test_widths_that_are_rounded_to_the_same_are_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    space = load_text(SMALL.replace("[8, 16]", "[9, 12, 16]"), tmp_path)
    assert space.choices["P1.width"] == (16,)
    assert [record.args[2:] for record in caplog.records if isinstance(record.args, tuple)] == [
        ("9", 16, 8),
        ("12", 16, 8),
    ]


def test_every_architecture_of_a_file_that_is_read_is_valid(tmp_path: Path) -> None:
    space = load_text(SMALL.replace("32, depth: 1", "[20, 40], depth: 1, widen: [1, 2]"), tmp_path)
    for values in itertools.product(*space.choices.values()):
        space.architecture(dict(zip(space.choices, values, strict=True)))


@pytest.mark.parametrize(
    ("name", "hint"), [("yolov8nn", "did you mean 'yolov8n'?"), ("my-space.yaml", "known: yolo11, "), ("", "known")]
)
def test_an_unknown_space_is_refused(name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpaceError) as caught:
        load_space(name)
    assert f"unknown space {name!r}; " in str(caught.value)
    assert hint in str(caught.value)
    assert "YAML file" in str(caught.value)

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search_spaces import SearchSpace, SpaceError
from search_spaces.registry import get_block, get_family, list_blocks, list_families
from search_spaces.space import DOWNSAMPLES, LIBRARY, list_presets, list_spaces, load_preset

SMALL = """\
family: yolov8
stem: {downsample: Conv, width: [8, 16]}
stages:
  P2: {downsample: Conv, block: [C2f, C2fGhost], width: 32, depth: 1}
  P3: {downsample: Conv, block: C2f, width: 64, depth: [1, 2, 3]}
  P4: {downsample: [Conv, GhostConv], block: C2f, width: 128, depth: 2}
  P5: {downsample: Conv, block: C2f, width: [256, 96], depth: 1}
neck: {block: C2f, depth: 1}
"""
# Upper 0.001 quantiles of the chi-square distribution, by degrees of freedom.
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 7: 24.32, 63: 103.4}


def load_text(text: str, folder: Path) -> SearchSpace:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return SearchSpace.load(str(path))


def test_library_space() -> None:
    space = SearchSpace.load("yolov8n")
    assert (space.name, space.family) == ("yolov8n", "yolov8")
    # P1 2·3, P2 2·8·4·2, P3 2·8·4·3, P4 2·8·4·3, P5 2·8·5·2, neck 2·2.
    assert space.size == 6 * 128 * 192 * 192 * 160 * 4
    assert list(space.choices)[:4] == ["P1.downsample", "P1.width", "P2.downsample", "P2.block"]
    assert space.choices["P5.width"] == (96, 128, 192, 256, 384)


@pytest.mark.parametrize("name", list_spaces())
def test_every_space_of_the_library_holds_its_family_s_baseline(name: str) -> None:
    space = SearchSpace.load(name)
    assert space.choices_of(load_preset(get_family(space.family).baseline)) is not None


def test_a_single_value_stands_for_a_list(tmp_path: Path) -> None:
    space = load_text(SMALL, tmp_path)
    assert space.name == str(tmp_path / "space.yaml")
    assert space.choices["P2.width"] == (32,)
    assert space.choices["P2.block"] == ("C2f", "C2fGhost")
    assert space.choices["P5.width"] == (96, 256)  # numbers are sorted
    assert space.size == 2 * 2 * 3 * 2 * 2


def test_every_architecture_of_a_space_is_another(tmp_path: Path) -> None:
    space = load_text(SMALL, tmp_path)
    rng = np.random.default_rng(0)
    seen = {space.architecture(space.sample(rng)) for _ in range(1000)}
    assert len(seen) == space.size
    assert len({architecture.key for architecture in seen}) == space.size


def test_sampling_is_uniform_and_independent() -> None:
    space, rng = SearchSpace.load("yolov8n"), np.random.default_rng(7)
    drawn = [space.sample(rng) for _ in range(6400)]
    for name, values in space.choices.items():
        counts = [sum(choices[name] == value for choices in drawn) for value in values]
        assert chi_square(counts) < CHI_SQUARE[len(values) - 1], name
    blocks = [(first, second) for first in space.choices["P2.block"] for second in space.choices["P3.block"]]
    pairs = [(choices["P2.block"], choices["P3.block"]) for choices in drawn]
    assert chi_square([pairs.count(pair) for pair in blocks]) < CHI_SQUARE[len(blocks) - 1]


def chi_square(counts: list[int]) -> float:
    """Distance of the counts from equal ones."""
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_sampling_repeats_with_the_seed() -> None:
    space = SearchSpace.load("yolov8n")
    first, second = (np.random.default_rng(3) for _ in range(2))
    assert [space.sample(first) for _ in range(20)] == [space.sample(second) for _ in range(20)]


def test_choices_round_trip() -> None:
    space, rng = SearchSpace.load("yolov8n"), np.random.default_rng(0)
    for _ in range(50):
        choices = space.sample(rng)
        assert list(choices) == list(space.choices)
        found = space.choices_of(space.architecture(choices))
        assert found == choices
        assert list(found) == list(choices)


def test_the_neck_is_as_wide_as_the_backbone() -> None:
    space, rng = SearchSpace.load("yolov8n"), np.random.default_rng(0)
    architecture = space.architecture(space.sample(rng))
    assert architecture.neck.widths == tuple(stage.width for stage in architecture.stages[1:])


def test_an_architecture_outside_has_no_choices() -> None:
    space, inside = SearchSpace.load("yolov8n"), load_preset("yolov8n")
    p2, *others = inside.stages
    assert space.choices_of(inside) is not None
    for outside in [
        replace(inside, family="other"),
        replace(inside, stem=replace(inside.stem, width=32)),
        replace(inside, stages=(replace(p2, depth=3), *others)),
        replace(inside, stages=(replace(p2, block="C3"), *others)),
        replace(inside, neck=replace(inside.neck, block="Conv")),
        replace(inside, neck=replace(inside.neck, widths=(64, 128, 192))),
    ]:
        assert space.choices_of(outside) is None


def test_a_missing_choice_is_an_error() -> None:
    space = SearchSpace.load("yolov8n")
    choices = space.sample(np.random.default_rng(0))
    del choices["P4.depth"]
    with pytest.raises(KeyError, match=r"P4\.depth"):
        space.architecture(choices)


def test_document_round_trip() -> None:
    space = SearchSpace.load("yolov8n")
    document = json.loads(json.dumps(space.document()))
    assert SearchSpace.from_document(document) == space


REFUSALS = {
    "unknown key": ("neck:", "nek:", 8, "unknown key in a space: 'nek'; did you mean 'neck'?"),
    "unknown key in stem": ("stem: {downsample", "stem: {downsmaple", 2, "did you mean 'downsample'?"),
    "unknown key in a stage": ("32, depth", "32, dept", 4, "unknown key in P2: 'dept'; did you mean 'depth'?"),
    "unknown stage": ("P3:", "P6:", 5, "unknown key in stages: 'P6'; did you mean 'P"),
    "unknown key in neck": ("neck: {block", "neck: {blocks", 8, "did you mean 'block'?"),
    "misspelt block": ("C2fGhost", "C2fGhots", 4, "unknown block 'C2fGhots'; did you mean 'C2fGhost'?"),
    "block in another case": ("C2fGhost", "c2fghost", 4, "did you mean 'C2fGhost'?"),
    "misspelt downsample": ("[Conv, GhostConv]", "[Conv, GhosConv]", 6, "did you mean 'GhostConv'?"),
    "misspelt neck block": ("neck: {block: C2f", "neck: {block: C2", 8, "unknown neck block 'C2'; did you mean 'C2f'?"),
    "misspelt family": ("yolov8", "yolo8", 1, "unknown family 'yolo8'; did you mean 'yolov8'?"),
    "far from any word": ("C2fGhost", "Xyz", 4, f"unknown block 'Xyz'; known: {', '.join(list_blocks())}"),
    "no multiple of 8": ("[8, 16]", "[8, 20]", 2, "width '20' must be a multiple of 8 from 8 to 2048"),
    "width 0": ("width: 32", "width: 0", 4, "width '0' must be"),
    "negative width": ("width: 32", "width: -8", 4, "width '-8' must be"),
    "fractional width": ("width: 32", "width: 8.0", 4, "width '8.0' must be"),
    "width too large": ("width: 32", "width: 2056", 4, "width '2056' must be"),
    "word for a width": ("width: 32", "width: wide", 4, "width 'wide' must be"),
    "depth 0": ("[1, 2, 3]", "[0, 1]", 5, "depth '0' must be a whole number from 1 to 12"),
    "depth too large": ("[1, 2, 3]", "13", 5, "depth '13' must be"),
    "empty list": ("[8, 16]", "[]", 2, "width has no values to choose from"),
    "empty value": ("[8, 16]", "", 2, "width '' must be"),
    "duplicate number": ("[8, 16]", "[8, 16, 8]", 2, "width '8' is given twice"),
    "duplicate word": ("[C2f, C2fGhost]", "[C2f, C2f]", 4, "block 'C2f' is given twice"),
    "duplicate key": ("neck:", "family: yolov8\nneck:", 8, "'family' is given twice in a space"),
    "missing section": ("neck: {block: C2f, depth: 1}", "", 1, "a space lacks neck"),
    "missing key": ("depth: [1, 2, 3]", "", 5, "P3 lacks depth"),
    "list for a section": ("{block: C2f, depth: 1}\n", "[C2f, 1]\n", 8, "neck must be a mapping with the keys block"),
    "nested list": ("[8, 16]", "[[8, 16]]", 2, "width must be a value or a list of values"),
    "mapping for a value": ("[8, 16]", "{low: 8}", 2, "width must be a value or a list of values"),
    "not YAML": ("[8, 16]", "[8, 16", 2, "not valid YAML"),
    "two documents": ("neck:", "---\nneck:", 8, "not valid YAML"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_names_file_line_and_the_nearest_word(case: str, tmp_path: Path) -> None:
    old, new, line, message = REFUSALS[case]
    assert old in SMALL
    with pytest.raises(SpaceError) as caught:
        load_text(SMALL.replace(old, new, 1), tmp_path)
    place, _, rest = str(caught.value).partition(": ")
    assert place == f"{tmp_path / 'space.yaml'}:{line}"
    assert message in rest
    assert "\n" not in rest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# nothing but a comment\n",
        b"yolov8n",
        b"- family\n",
        b"\xff\xfe\x00",
        b"family: \x00",
    ],
)
def test_a_file_that_is_no_space_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with pytest.raises(SpaceError) as caught:
        SearchSpace.load(str(path))
    assert str(caught.value).startswith(f"{path}:1: ")
    assert "\n" not in str(caught.value)


def test_the_same_number_written_otherwise_is_a_duplicate(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="width '016' must be a multiple of 8"):
        load_text(SMALL.replace("[8, 16]", "[8, 16, 016]"), tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"), [("yolov8nn", "did you mean 'yolov8n'?"), ("my-space.yaml", "known: yolov8n"), ("", "known")]
)
def test_an_unknown_space_is_refused(name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpaceError) as caught:
        SearchSpace.load(name)
    assert f"unknown space {name!r}; " in str(caught.value)
    assert hint in str(caught.value)
    assert "YAML file" in str(caught.value)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(SpaceError, match="unknown model 'yolov8n-gost'; did you mean 'yolov8n-ghost'"):
        load_preset("yolov8n-gost")


def test_every_preset_is_a_space_of_one_architecture() -> None:
    for name in list_presets():
        assert SearchSpace.load(str(LIBRARY / "presets" / f"{name}.yaml")).size == 1


def test_what_a_space_may_name_exists() -> None:
    assert set(DOWNSAMPLES) <= set(list_blocks())
    for name in list_families():
        assert all(get_block(block).takes_depth for block in get_family(name).neck_blocks)

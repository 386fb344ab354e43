from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from search_spaces import SearchSpace, SpaceError
from search_spaces.blocks import list_blocks
from search_spaces.presets import load_preset
from search_spaces.space import Choices
from search_spaces.space_file import load_space
from search_spaces.space_reader import list_spaces

over_library = pytest.mark.parametrize("name", list_spaces())


def tiny_space(**changed: tuple[str | int, ...]) -> SearchSpace:
    """A space of 2·2·3·2·2 architectures; underscores in the names of choices stand for dots."""
    choices: dict[str, tuple[str | int, ...]] = {"P1.downsample": ("Conv",), "P1.width": (8, 16)}
    for level, width in (("P2", 32), ("P3", 64), ("P4", 128), ("P5", 256)):
        choices |= {f"{level}.downsample": ("Conv",), f"{level}.block": ("C2f",), f"{level}.width": (width,)}
        choices |= {f"{level}.depth": (1,), f"{level}.widen": (1,)}
    choices |= {"attention": ("none",), "neck.downsample": ("Conv",)}
    for level in ("P3", "P4", "P5"):
        choices |= {f"neck.{level}.block": ("C2f",), f"neck.{level}.depth": (1,)}
    choices |= {"P2.block": ("C2f", "C2fGhost"), "P3.depth": (1, 2, 3), "P4.downsample": ("Conv", "GhostConv")}
    choices |= {"P5.width": (96, 256)}
    return SearchSpace("tiny", "yolov8", choices | {name.replace("_", "."): values for name, values in changed.items()})


def single_space() -> SearchSpace:
    space = tiny_space()
    return replace(space, choices={name: values[:1] for name, values in space.choices.items()})


def part_of(name: str) -> str:
    """The stage or level of the neck that a choice belongs to."""
    return name.rpartition(".")[0] or name


def free_parts(space: SearchSpace) -> dict[str, list[str]]:
    """The choices of each part that has something to choose."""
    parts: dict[str, list[str]] = {}
    for name in space.choices:
        parts.setdefault(part_of(name), []).append(name)
    return {part: names for part, names in parts.items() if any(len(space.choices[name]) > 1 for name in names)}


def assert_uniform(drawn: Iterable[object], outcomes: Iterable[object]) -> None:
    """Every outcome, and nothing else, as often as the others."""
    counts, outcomes = Counter(drawn), list(outcomes)
    assert counts.keys() <= set(outcomes)
    if len(outcomes) > 1:
        assert chisquare([counts[outcome] for outcome in outcomes]).pvalue > 1e-4, counts


def changed_names(one: Choices, other: Choices) -> set[str]:
    assert list(one) == list(other)
    return {name for name in one if one[name] != other[name]}


# Moves


@over_library
def test_every_choice_is_drawn_uniformly(name: str) -> None:
    space, rng = load_space(name), np.random.default_rng(7)
    drawn = [space.sample(rng) for _ in range(3000)]
    for choice, values in space.choices.items():
        assert_uniform((choices[choice] for choices in drawn), values)


def test_choices_are_drawn_independently() -> None:
    space, rng = load_space("yolov8n"), np.random.default_rng(7)
    drawn = [space.sample(rng) for _ in range(20_000)]
    for one, other in itertools.pairwise(["P1.downsample", "P2.block", "P3.block", "P3.width", "P5.width"]):
        pairs = itertools.product(space.choices[one], space.choices[other])
        assert_uniform(((choices[one], choices[other]) for choices in drawn), pairs)


def test_every_architecture_is_drawn_as_often_as_the_others() -> None:
    space, rng = tiny_space(), np.random.default_rng(3)
    assert space.size == 48
    everything = [
        space.architecture(dict(zip(space.choices, values, strict=True)))
        for values in itertools.product(*space.choices.values())
    ]
    assert len({architecture.key for architecture in everything}) == 48
    assert_uniform((space.architecture(space.sample(rng)) for _ in range(4800)), everything)


@over_library
def test_a_mutation_changes_exactly_one_part(name: str) -> None:
    space, rng = load_space(name), np.random.default_rng(1)
    choices = space.sample(rng)
    for _ in range(500):
        mutated = space.mutate(choices, rng)
        assert len({part_of(changed) for changed in changed_names(choices, mutated)}) == 1
        space.validate(mutated)
        choices = mutated


@over_library
def test_the_mutated_part_is_drawn_uniformly(name: str) -> None:
    space, rng = load_space(name), np.random.default_rng(2)
    choices = space.sample(rng)
    mutations = [changed_names(choices, space.mutate(choices, rng)) for _ in range(3000)]
    assert_uniform((part_of(min(changed)) for changed in mutations), free_parts(space))


def test_the_mutated_part_s_values_are_drawn_uniformly_from_all_others() -> None:
    space = tiny_space(P3_block=("C2f", "Conv", "UIB"), P3_width=(32, 64), imgsz=(320, 480, 640))
    rng = np.random.default_rng(4)
    choices = space.sample(rng)
    before = dict(choices)
    mutations = [space.mutate(choices, rng) for _ in range(12_000)]
    assert choices == before
    for part, names in free_parts(space).items():
        drawn = [tuple(m[name] for name in names) for m in mutations if any(m[n] != choices[n] for n in names)]
        others = set(itertools.product(*(space.choices[name] for name in names)))
        others.remove(tuple(choices[name] for name in names))
        assert len(others) == {"P1": 1, "P2": 1, "P3": 17, "P4": 1, "P5": 1, "imgsz": 2}[part]
        assert_uniform(drawn, sorted(others))


def test_nothing_can_be_mutated_in_a_space_of_one_architecture() -> None:
    space, rng = single_space(), np.random.default_rng(0)
    choices = space.sample(rng)
    with pytest.raises(SpaceError, match="space tiny holds a single architecture"):
        space.mutate(choices, rng)
    assert list(space.neighbours(choices)) == []
    assert space.crossover(choices, choices, rng) == choices


@over_library
def test_a_child_has_every_part_whole_from_a_parent(name: str) -> None:
    space, rng = load_space(name), np.random.default_rng(5)
    for _ in range(200):
        one, other = space.sample(rng), space.sample(rng)
        parents = dict(one), dict(other)
        child = space.crossover(one, other, rng)
        assert (one, other) == parents
        assert list(child) == list(space.choices)
        for names in free_parts(space).values():
            part = {choice: child[choice] for choice in names}
            assert part in ({choice: parent[choice] for choice in names} for parent in (one, other))
        space.validate(child)


def test_each_part_of_a_child_comes_from_either_parent_with_equal_probability_and_independently() -> None:
    space, rng = tiny_space(), np.random.default_rng(6)
    one, other = ({name: values[end] for name, values in space.choices.items()} for end in (0, -1))
    children = [space.crossover(one, other, rng) for _ in range(6400)]
    parts = free_parts(space)
    assert list(parts) == ["P1", "P2", "P3", "P4", "P5"]
    from_other = [
        tuple(all(child[name] == other[name] for name in names) for names in parts.values()) for child in children
    ]
    assert_uniform(from_other, itertools.product((False, True), repeat=5))


@over_library
def test_neighbours_differ_in_one_choice_and_all_are_found(name: str) -> None:
    space = load_space(name)
    choices = space.sample(np.random.default_rng(0))
    before = dict(choices)
    neighbours = list(space.neighbours(choices))
    assert choices == before
    assert len(neighbours) == sum(len(values) - 1 for values in space.choices.values())
    changes = [changed_names(choices, neighbour) for neighbour in neighbours]
    assert all(len(changed) == 1 for changed in changes)
    expected = [(choice, v) for choice, values in space.choices.items() for v in values if v != choices[choice]]
    assert [(min(changed), n[min(changed)]) for changed, n in zip(changes, neighbours, strict=True)] == expected


def test_moves_repeat_with_the_seed() -> None:
    space = load_space("yolo26n")

    def walk(seed: int) -> list[Choices]:
        rng = np.random.default_rng(seed)
        seen = [space.sample(rng), space.sample(rng)]
        for _ in range(30):
            seen.append(space.mutate(seen[-1], rng))
            seen.append(space.crossover(seen[-1], seen[-2], rng))
        return seen

    assert walk(3) == walk(3)
    assert walk(3) != walk(4)


# Views


@over_library
def test_features_are_between_0_and_1_and_tell_neighbours_apart(name: str) -> None:
    space, rng = load_space(name), np.random.default_rng(0)
    choices = space.sample(rng)
    points = [choices, *space.neighbours(choices)]
    features = space.encode(points)
    assert features.dtype == np.float64
    assert features.shape == (len(points), len(space.feature_names))
    assert features.min() == 0.0
    assert features.max() == 1.0
    assert len(np.unique(features, axis=0)) == len(points)
    assert len(set(space.feature_names)) == len(space.feature_names)


def test_what_the_features_mean() -> None:
    space = tiny_space()
    names = ("P1.width", "P2.block=C2f", "P2.block=C2fGhost", "P3.depth", *(f"P4.downsample={n}" for n in ("Conv",)))
    assert space.feature_names == (*names, "P4.downsample=GhostConv", "P5.width")
    first = {name: values[0] for name, values in space.choices.items()}
    last = {name: values[-1] for name, values in space.choices.items()}
    middle = {**first, "P3.depth": 2}
    expected = [[0, 1, 0, 0, 1, 0, 0], [1, 0, 1, 1, 0, 1, 1], [0, 1, 0, np.log(2) / np.log(3), 1, 0, 0]]
    np.testing.assert_allclose(space.encode([first, last, middle]), expected)


def test_features_of_nothing_and_of_a_single_architecture() -> None:
    assert tiny_space().encode([]).shape == (0, 7)
    space = single_space()
    assert space.feature_names == ()
    assert space.encode([space.sample(np.random.default_rng(0))] * 3).shape == (3, 0)


def test_validate_takes_every_point_of_the_space() -> None:
    space, rng = load_space("yolo11"), np.random.default_rng(0)
    for _ in range(50):
        space.validate(space.sample(rng))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"P3.dept": 1}, "space tiny: unknown choice 'P3.dept'; did you mean 'P3.depth'?"),
        ({"P3.depth": None}, "space tiny: choice 'P3.depth' is missing"),
        ({"P3.depth": 4}, "space tiny: P3.depth is 4, not one of 1, 2, 3"),
        ({"P2.block": "ConvNeXt"}, "space tiny: P2.block is 'ConvNeXt', not one of C2f, C2fGhost"),
        ({"imgsz": 640}, "space tiny: unknown choice 'imgsz'"),
    ],
)
def test_validate_says_what_is_wrong(change: dict[str, str | int | None], message: str) -> None:
    space = tiny_space()
    changed = {**space.sample(np.random.default_rng(0)), **change}
    with pytest.raises(SpaceError) as caught:
        space.validate({name: value for name, value in changed.items() if value is not None})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@over_library
def test_what_stock_ultralytics_knows_is_kept(name: str) -> None:
    space = load_space(name)
    stock = space.restricted_to_stock()
    assert (stock.name, stock.family, list(stock.choices)) == (space.name, space.family, list(space.choices))
    assert 1 < stock.size < space.size
    kept = {value for values in stock.choices.values() for value in values}
    gone = {value for values in space.choices.values() for value in values} - kept
    # C2fGhost has a form in Ultralytics' own rows; the others exist in nas-yolo alone.
    assert {"C2f", "C2fGhost", "GhostConv", "Conv", "none"} <= kept
    assert gone == {"ConvNeXt", "ConvNeXtDown", "ConvNeXtStem", "FasterNet", "FocalModulation", "GhostV2"} | {
        *("MBConv3", "MBConv5", "MBConv7", "RepVGG", "ShuffleV2", "StarNet", "UIB")
    }
    for choice, values in stock.choices.items():
        assert [value for value in space.choices[choice] if value in values] == list(values)
        if not isinstance(values[0], str):
            assert values == space.choices[choice]


def test_a_space_without_a_stock_block_somewhere_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"space tiny: P4\.block has no block that stock Ultralytics knows"):
        tiny_space(P4_block=("ConvNeXt", "UIB")).restricted_to_stock()


@pytest.mark.parametrize("activations", [("SiLU",), ("SiLU", "ReLU"), ("ReLU",)])
def test_a_block_that_ultralytics_cannot_give_the_activation_is_not_stock_with_it(activations: tuple[str, ...]) -> None:
    space = tiny_space(P4_block=("C2f", "RepNCSPELAN4", "ConvNeXt"), activation=activations)
    stock = space.restricted_to_stock()
    assert stock.choices["activation"] == activations
    reached = activations == ("SiLU",)  # RepConv has it by itself
    assert stock.choices["P4.block"] == (("C2f", "RepNCSPELAN4") if reached else ("C2f",))
    if not reached:
        with pytest.raises(SpaceError, match=r"P4\.block has no block .* with every activation of the space; add one"):
            tiny_space(P4_block=("RepNCSPELAN4",), activation=activations).restricted_to_stock()


@over_library
def test_choices_round_trip(name: str) -> None:
    space, rng = load_space(name), np.random.default_rng(0)
    for _ in range(200):
        choices = space.sample(rng)
        assert list(choices) == list(space.choices)
        architecture = space.architecture(choices)
        assert architecture.family == space.family
        assert architecture.imgsz is None
        found = space.choices_of(architecture)
        assert found == choices
        assert list(found) == list(choices)


def test_the_neck_is_as_wide_as_the_backbone_s_downsampling() -> None:
    space, rng = tiny_space(P3_widen=(1, 2), P4_widen=(2,)), np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        architecture = space.architecture(space.sample(rng))
        widths = [level.width for level in architecture.neck.levels]
        _, p3, p4, p5 = architecture.stages
        assert widths == [p3.width // p3.widen, 64, p5.width]
        assert (p4.width, p4.widen) == (128, 2)
        seen.add(widths[0])
    assert seen == {32, 64}


def test_the_neck_may_choose_its_own_widths() -> None:
    space, rng = tiny_space(neck_P4_width=(40, 48)), np.random.default_rng(0)
    assert space.size == 96
    drawn = [space.architecture(space.sample(rng)) for _ in range(50)]
    assert {architecture.neck.levels[1].width for architecture in drawn} == {40, 48}
    assert {architecture.neck.levels[0].width for architecture in drawn} == {64}
    for architecture in drawn:
        choices = space.choices_of(architecture)
        assert choices is not None
        assert choices["neck.P4.width"] == architecture.neck.levels[1].width
        assert tiny_space().choices_of(architecture) is None  # there it is as wide as P4, 128


def test_the_image_size_may_be_a_choice() -> None:
    space, rng = tiny_space(imgsz=(320, 640)), np.random.default_rng(0)
    assert space.size == 96
    drawn = [space.architecture(space.sample(rng)) for _ in range(50)]
    assert {architecture.imgsz for architecture in drawn} == {320, 640}
    for architecture in drawn:
        choices = space.choices_of(architecture)
        assert choices is not None
        assert choices["imgsz"] == architecture.imgsz
        assert space.choices_of(replace(architecture, imgsz=None)) is None
        assert tiny_space().choices_of(architecture) is None
        assert tiny_space().choices_of(replace(architecture, imgsz=None)) is not None
    assert "imgsz" in space.feature_names


def test_the_activation_may_be_a_choice() -> None:
    space, rng = tiny_space(P4_block=("C2f", "ConvNeXt"), activation=("SiLU", "ReLU", "Mish")), np.random.default_rng(0)
    everything = [
        dict(zip(space.choices, values, strict=True)) for values in itertools.product(*space.choices.values())
    ]
    assert len({space.architecture(choices).key for choices in everything}) == space.size == 48 * 6
    for choices in everything:
        architecture = space.architecture(choices)
        assert space.choices_of(architecture) == choices
        # SiLU is what all blocks but ConvNeXt have by themselves: that is the design of spaces without the choice.
        own = choices["activation"] == "SiLU" and choices["P4.block"] == "C2f"
        assert architecture.activation == (None if own else choices["activation"])
    assert {space.sample(rng)["activation"] for _ in range(50)} == {"SiLU", "ReLU", "Mish"}
    mutated = [space.mutate(everything[0], rng)["activation"] for _ in range(200)]
    assert {"ReLU", "Mish"} < set(mutated)
    crossed = [space.crossover(everything[0], everything[1], rng)["activation"] for _ in range(50)]
    assert set(crossed) == {"SiLU", "ReLU"}
    assert sum(one["activation"] != "SiLU" for one in space.neighbours(everything[0])) == 2
    columns = [space.feature_names.index(f"activation={name}") for name in ("SiLU", "ReLU", "Mish")]
    assert (space.encode(everything[:3])[:, columns] == np.eye(3)).all()


def test_designs_of_spaces_without_the_activation_lie_in_one_with_it_where_they_are_the_same_network() -> None:
    space = tiny_space(P4_block=("C2f", "ConvNeXt"), activation=("SiLU", "ReLU"))
    plain = tiny_space(P4_block=("C2f", "ConvNeXt"))
    for values in itertools.product(*plain.choices.values()):
        choices = dict(zip(plain.choices, values, strict=True))
        design = plain.architecture(choices)
        known = None if choices["P4.block"] == "ConvNeXt" else {**choices, "activation": "SiLU"}
        assert space.choices_of(design) == known
        assert plain.choices_of(replace(design, activation="ReLU")) is None
        assert tiny_space(P4_block=("C2f", "ConvNeXt"), activation=("ReLU",)).choices_of(design) is None


def test_an_architecture_outside_has_no_choices() -> None:
    space, inside = load_space("yolov8n"), load_preset("yolov8n")
    p2, *others = inside.stages
    n3, n4, n5 = inside.neck.levels
    assert space.choices_of(inside) is not None
    for outside in [
        replace(inside, family="yolov9"),
        replace(inside, stem=replace(inside.stem, width=32)),
        replace(inside, stages=(replace(p2, depth=3), *others)),
        replace(inside, stages=(replace(p2, widen=2), *others)),
        replace(inside, stages=(replace(p2, block="C3"), *others)),
        replace(inside, attention="StarNet"),
        replace(inside, neck=replace(inside.neck, downsample="AConv")),
        replace(inside, neck=replace(inside.neck, levels=(replace(n3, block="Conv"), n4, n5))),
        replace(inside, neck=replace(inside.neck, levels=(n3, n4, replace(n5, width=192)))),
        replace(inside, imgsz=640),
    ]:
        assert space.choices_of(outside) is None


def test_a_missing_choice_is_an_error() -> None:
    space = load_space("yolov8n")
    choices = space.sample(np.random.default_rng(0))
    del choices["P4.depth"]
    with pytest.raises(KeyError, match=r"P4\.depth"):
        space.architecture(choices)


@over_library
def test_document_round_trip(name: str) -> None:
    space = load_space(name)
    document = json.loads(json.dumps(space.document()))
    assert SearchSpace.from_document(document) == space
    assert list(SearchSpace.from_document(document).choices) == list(space.choices)


@over_library
def test_what_a_library_space_names_stands_where_it_may(name: str) -> None:
    for choice, values in load_space(name).choices.items():
        if choice.endswith(".block"):
            assert set(values) <= set(list_blocks("stage"))
        elif choice.endswith(".downsample"):
            assert set(values) <= set(list_blocks("downsample"))
    assert set(load_space(name).choices["attention"]) <= {"none", *list_blocks("attention")}

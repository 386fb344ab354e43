from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import C2f, Conv
from ultralytics.utils.torch_utils import initialize_weights

from search_spaces import registry
from search_spaces.block import BlockError, Place, Row
from search_spaces.blocks import ENTRY_POINTS, get_block, list_blocks, our_modules
from search_spaces.contract import ContractError
from search_spaces.errors import UserError
from search_spaces.families import get_family, list_families
from search_spaces.names import UnknownNameError, unknown
from search_spaces.registry import register_block


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
def test_a_block_is_stock_where_ultralytics_knows_the_class(name: str) -> None:
    block = get_block(name)
    known = getattr(tasks, block.module.__name__, None)
    assert known is (block.module if block.stock else None)
    assert block.loads_in_stock == (block.stock or name == "C2fGhost")


def test_our_modules_are_one_block_of_each_class_that_ultralytics_does_not_know() -> None:
    ours = our_modules()
    classes = {get_block(name).module for name in list_blocks() if not get_block(name).stock}
    assert {block.module for block in ours.values()} == classes
    assert all(name == block.module.__name__ for name, block in ours.items())
    assert {"C2fGhost", "ConvNeXt", "UIB"} <= ours.keys()
    assert not {"Conv", "C3k2"} & ours.keys()


def test_blocks_are_listed_by_role() -> None:
    stage, downsample, attention = (set(list_blocks(role)) for role in ("stage", "downsample", "attention"))
    assert stage | downsample | attention == set(list_blocks())
    for role, names in (("stage", stage), ("downsample", downsample)):
        assert names == {name for name in list_blocks() if role in get_block(name).roles}
    assert stage < attention  # a stage block may also stand there
    assert attention - stage == {name for name in list_blocks() if get_block(name).roles == {"attention"}} == {"C2PSA"}
    assert {"Conv", "GhostConv", "ShuffleV2", "GhostV2", "RepVGG", "MBConv3", "UIB"} <= stage & downsample
    assert {"C2f", "C3k2", "ConvNeXt", "RepNCSPELAN4"} <= stage - downsample
    assert {"AConv", "ADown", "ConvNeXtDown", "ConvNeXtStem"} <= downsample - stage
    for role in ("stage", "downsample", "attention"):
        assert list(list_blocks(role)) == sorted(list_blocks(role))


@pytest.mark.parametrize(
    ("name", "place", "rows"),
    [
        ("Conv", Place(3, 16, stride=2), [[-1, 1, "Conv", [16, 3, 2]]]),
        ("Conv", Place(16, 16, 3), [[-1, 3, "Conv", [16, 3, 1]]]),
        # Ultralytics gives every repeat the first one's input width: where it changes, the first stands alone.
        ("Conv", Place(16, 24, 3), [[-1, 1, "Conv", [24, 3, 1]], [-1, 2, "Conv", [24, 3, 1]]]),
        ("GhostConv", Place(16, 24, 2), [[-1, 1, "GhostConv", [24, 3, 1]], [-1, 1, "GhostConv", [24, 3, 1]]]),
        ("Conv", Place(16, 24, 1), [[-1, 1, "Conv", [24, 3, 1]]]),
        # Stacked units of a widened stage: the first widens, the others are as wide inside as any.
        ("ELAN1", Place(16, 32, 3, widen=2), [[-1, 1, "ELAN1", [32, 16, 8]], [-1, 2, "ELAN1", [32, 32, 16]]]),
        ("ADown", Place(16, 24, stride=2), [[-1, 1, "ADown", [24]]]),
        ("C2f", Place(16, 24, 3), [[-1, 3, "C2f", [24, True]]]),
        ("C2f", Place(16, 24, 3, in_neck=True), [[-1, 3, "C2f", [24, False]]]),
        ("C2f", Place(16, 32, 2, widen=2), [[-1, 2, "C2f", [32, True, 1, 0.25]]]),
        ("C3k2", Place(16, 32, 2, widen=2), [[-1, 2, "C3k2", [32, False, 0.25]]]),
        ("C3k2-C3k", Place(16, 32, 2), [[-1, 2, "C3k2", [32, True, 0.5]]]),
        # Its depth is an argument of its own, and a repeat would be a second block.
        ("RepNCSPELAN4", Place(16, 32, 3), [[-1, 1, "RepNCSPELAN4", [32, 32, 16, 3]]]),
        ("RepNCSPELAN4", Place(16, 32, 2, widen=2), [[-1, 1, "RepNCSPELAN4", [32, 16, 8, 2]]]),
        ("ShuffleV2", Place(16, 32, stride=2), [[-1, 1, "ShuffleV2", [32, 2]]]),
        ("ShuffleV2", Place(16, 32, 4), [[-1, 4, "ShuffleV2", [32]]]),
    ],
)
def test_rows_of_a_block(name: str, place: Place, rows: list[Row]) -> None:
    assert get_block(name).rows(place) == rows


@pytest.mark.parametrize("name", list_blocks("stage"))
@pytest.mark.parametrize(("in_chs", "width", "depth"), [(16, 24, 1), (24, 24, 3), (16, 24, 3), (32, 16, 2)])
def test_rows_build_what_build_does(name: str, in_chs: int, width: int, depth: int) -> None:
    from search_spaces import hook

    hook.install()
    block = get_block(name)
    rows = [[-1, 1, "Conv", [in_chs, 3, 2]], *block.rows(Place(in_chs, width, depth))]
    layers, _ = tasks.parse_model({"nc": 1, "backbone": rows, "head": []}, ch=3, verbose=False)
    built = block.build(in_chs, width, depth)
    assert [p.shape for p in layers[1:].parameters()] == [p.shape for p in built.parameters()]
    units = [type(module) for module in layers[1:].modules() if type(module) is not nn.Sequential]
    assert units == [type(module) for module in built.modules() if type(module) is not nn.Sequential]


def test_a_second_class_of_the_same_name_is_refused() -> None:
    before = get_block("C2fGhost")
    register = register_block("C2fGhost", paper="another", licence="another")
    with pytest.raises(BlockError, match="block 'C2fGhost' is registered twice"):
        register(nn.Identity)
    assert get_block("C2fGhost") is before


def test_a_second_class_that_model_files_would_call_the_same_is_refused() -> None:
    before = list_blocks()

    class C2fGhost(C2f):  # type: ignore[misc]
        pass

    register = register_block("Another", paper="another", licence="another")
    with pytest.raises(BlockError, match="block 'Another': model files already know another class 'C2fGhost'"):
        register(C2fGhost)
    assert list_blocks() == before


def test_one_class_may_be_several_blocks() -> None:
    assert get_block("C3k2").module is get_block("C3k2-C3k").module
    assert get_block("MBConv3").paper == get_block("MBConv5").paper


def test_the_same_class_may_be_registered_again() -> None:
    block = get_block("C2fGhost")
    register = register_block(
        "C2fGhost", paper=block.paper, licence=block.licence, arguments=block.arguments, stock_form=block.stock_form
    )
    assert register(block.module) is block.module
    assert get_block("C2fGhost") == block


def test_a_registered_class_can_be_had_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_blocks", dict(registry._blocks))

    @register_block("Doubled", paper="none", licence="MIT", arguments=lambda place: (3, 1, 1), depth="stacked")
    class Doubled(nn.Conv2d):
        pass

    assert "Doubled" in list_blocks("stage")
    assert "Doubled" not in list_blocks("downsample")
    built = get_block("Doubled").build(4, 8, depth=3)
    assert [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in built] == [
        (4, 8, (3, 3)),
        (8, 8, (3, 3)),
        (8, 8, (3, 3)),
    ]


def test_a_class_from_outside_that_breaks_the_contract_is_refused() -> None:
    before = list_blocks()
    register = register_block("TooSimple", paper="none", licence="MIT")
    with pytest.raises(ContractError, match=r"^block 'TooSimple' breaks the contract, check 'shape'"):
        register(type("TooSimple", (nn.Identity,), {}))
    assert list_blocks() == before


@pytest.mark.parametrize("name", ["SPPF", "C3x", "Detect", "Concat"])
def test_a_class_with_the_name_of_one_of_ultralytics_is_refused(name: str) -> None:
    before = list_blocks()
    register = register_block("Mine", paper="none", licence="MIT")
    with pytest.raises(BlockError, match=f"^block 'Mine': Ultralytics has a class '{name}' of its own; rename yours$"):
        register(type(name, (C2f,), {}))
    assert list_blocks() == before


def test_a_class_that_is_not_ultralytics_own_is_not_stock() -> None:
    before = list_blocks()
    register = register_block("Mine", paper="none", licence="MIT", stock=True)
    with pytest.raises(BlockError, match=r"^block 'Mine': stock means a class of Ultralytics, not of ") as caught:
        register(type("Mine", (C2f,), {}))
    assert str(caught.value).endswith(__name__)
    assert list_blocks() == before


class StackedOutside(Conv):  # type: ignore[misc]
    """One unit; the row's repeats make more of them."""


class ArgumentOutside(nn.Sequential):
    """Its depth is its third argument, and comes from the row's."""

    def __init__(self, in_chs: int, out_chs: int, kernel_size: int, units: int):
        super().__init__(*(Conv(out_chs if i else in_chs, out_chs, kernel_size) for i in range(units)))


class InsertedOutside(nn.Sequential):
    """Its depth is its third argument, and comes from the row's repeats."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, kernel_size: int = 1):
        super().__init__(*(Conv(out_chs if i else in_chs, out_chs, kernel_size) for i in range(depth)))


@pytest.fixture
def from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block for each way to become deep, of a package that is not ours."""
    list_blocks()
    monkeypatch.setattr(registry, "_blocks", dict(registry._blocks))
    known: dict[str, str] = {"paper": "none", "licence": "MIT"}
    register_block("StackedOutside", arguments=lambda place: (3,), depth="stacked", **known)(StackedOutside)
    register_block("ArgumentOutside", arguments=lambda place: (3, place.depth), depth="argument", **known)(
        ArgumentOutside
    )
    register_block("InsertedOutside", arguments=lambda place: (3,), **known)(InsertedOutside)


OUTSIDE = ("StackedOutside", "ArgumentOutside", "InsertedOutside")


@pytest.mark.usefixtures("from_outside")
@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(("in_chs", "depth"), [(16, 1), (24, 1), (16, 2), (16, 3), (24, 3)])
def test_a_block_from_outside_is_built_through_the_hook_as_by_itself(name: str, in_chs: int, depth: int) -> None:
    from search_spaces import hook

    block = get_block(name)
    rows = [[-1, 1, "Conv", [in_chs, 3, 2]], *block.rows(Place(in_chs, 24, depth))]
    network = hook.build({"nc": 2, "backbone": rows, "head": [[[len(rows) - 1], 1, "Detect", ["nc"]]]}).eval()
    built, expected = network.model[1:-1], block.build(in_chs, 24, depth).eval()

    def convolutions(module: nn.Module) -> list[tuple[int, int, tuple[int, ...]]]:
        found = (part for part in module.modules() if isinstance(part, nn.Conv2d))
        return [(part.in_channels, part.out_channels, part.kernel_size) for part in found]

    assert convolutions(built) == convolutions(expected)
    assert convolutions(built) == [(in_chs, 24, (3, 3)), *[(24, 24, (3, 3))] * (depth - 1)]
    for layer in built:
        assert layer.type == f"{__name__}.{name}"
    initialize_weights(expected)  # not weights: what Ultralytics sets of normalisations in every model
    expected.load_state_dict(dict(zip(expected.state_dict(), built.state_dict().values(), strict=True)))
    image = torch.randn(2, in_chs, 9, 7)
    with torch.no_grad():
        assert torch.equal(built(image), expected(image))


@pytest.mark.usefixtures("from_outside")
@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("preset", ["yolov8n", "yolo26n"])
def test_a_block_from_outside_stands_in_a_detector(name: str, preset: str) -> None:
    from search_spaces import hook
    from search_spaces.presets import load_preset

    p2, p3, *others = load_preset(preset).stages
    architecture = replace(load_preset(preset), stages=(p2, replace(p3, block=name, width=64, depth=3), *others))
    model = hook.model_file(architecture, nc=2)
    network = hook.build(model)
    rows = [index for index, row in enumerate(model["backbone"]) if row[2] == name]
    units = [part.in_channels for i in rows for part in network.model[i].modules() if isinstance(part, nn.Conv2d)]
    assert units == [p3.downsample_width if preset == "yolov8n" else 64 // p3.widen, 64, 64]
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 3, 64, 64))[0].shape == ((1, 6, 84) if preset == "yolov8n" else (1, 84, 6))


def test_a_block_with_a_depth_of_its_own_gets_it() -> None:
    built = get_block("C2f").build(16, 24, depth=3)
    assert type(built) is get_block("C2f").module
    assert len(built.m) == 3
    assert all(unit.add for unit in built.m)  # `shortcut`, the first of its arguments


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
        "import sys; from search_spaces.families import get_family, list_families; get_family(list_families()[0]);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ultralytics')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Plug-ins: real distributions, in a process of their own.

GOOD = """
from torch import nn
from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block


@register_block("Twofold", paper="Nothing, arXiv:0000.00000", licence="MIT", roles=("stage", "downsample"))
class Twofold(nn.Sequential):
    def __init__(self, in_chs, out_chs, depth=1, stride=1):
        super().__init__(Conv(in_chs, out_chs, 3, stride), *(Conv(out_chs, out_chs, 1) for _ in range(depth - 1)))
"""
USE = """
import sys
from dataclasses import replace
from pathlib import Path

import torch

from evaluators.export import export_onnx
from search_spaces import hook
from search_spaces.image_size import ImageSize
from search_spaces.blocks import get_block, list_blocks
from search_spaces.presets import load_preset

assert "Twofold" in list_blocks("stage") and "Twofold" in list_blocks("downsample"), list_blocks()
preset = load_preset("yolov8n")
p2, p3, *others = preset.stages
p3 = replace(p3, downsample="Twofold", block="Twofold", depth=3)
network = hook.build(hook.model_file(replace(preset, stages=(p2, p3, *others)), nc=2))
print(type(network.model[3]).__name__, len(network.model[3]), type(network.model[4]).__name__, len(network.model[4]))
export_onnx(network, ImageSize(64, 64), Path(sys.argv[1]))
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Installs a distribution with one module, first on the path, and runs a program beside it."""

    def install_and_run(module: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        site = tmp_path / "site"
        site.mkdir()
        (site / "twofold_block.py").write_text(module)
        info = site / "twofold-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twofold\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntwofold = twofold_block\n")
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
        )

    return install_and_run


def test_a_block_of_another_package_is_listed_built_and_exported(
    plugin: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    import numpy as np
    import onnxruntime

    done = plugin(GOOD, USE, tmp_path / "plugin.onnx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Twofold", "1", "Twofold", "3"]
    session = onnxruntime.InferenceSession(str(tmp_path / "plugin.onnx"), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": np.zeros((1, 3, 64, 64), np.float32)})
    assert output.shape == (1, 4 + 2, 8 * 8 + 4 * 4 + 2 * 2)


# The same with another way to become deep: the row's repeats, or an argument of the row.
STACKED = GOOD.replace("depth=1, stride=1", "stride=1, depth=1").replace(
    'licence="MIT"', 'licence="MIT", depth="stacked", arguments=lambda place: (place.stride,)'
)
ARGUMENT = GOOD.replace(
    'licence="MIT"', 'licence="MIT", depth="argument", arguments=lambda place: (place.depth, place.stride)'
)
BUILD = """
from dataclasses import replace

from torch import nn

from search_spaces import hook
from search_spaces.presets import load_preset

preset = load_preset("yolov8n")
p2, p3, *others = preset.stages
p3 = replace(p3, downsample="Twofold", block="Twofold", width=128, widen=2, depth=3)
network = hook.build(hook.model_file(replace(preset, stages=(p2, p3, *others)), nc=2))
units = [module for module in network.modules() if type(module).__name__ == "Twofold"]
print(*(part.in_channels for unit in units for part in unit.modules() if isinstance(part, nn.Conv2d)))
"""


@pytest.mark.parametrize("module", [GOOD, STACKED, ARGUMENT], ids=["inserted", "stacked", "argument"])
def test_a_block_of_another_package_may_become_deep_in_each_way(
    module: str, plugin: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = plugin(module, BUILD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["32", "64", "128", "128"]


LIST = """
from search_spaces.errors import UserError
from search_spaces.blocks import list_blocks

try:
    list_blocks()
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "Conv(in_chs, out_chs, 3, stride)",
            "Conv(in_chs, out_chs, 3)",
            "block 'Twofold' breaks the contract, check 'shape': stride 2, 16 to 24 channels at 12x8: gives 12x8",
        ),
        ('"Twofold", paper', '"twofold", paper', "breaks the contract, check 'name': 'twofold' must begin with"),
        ('"Twofold", paper', '"Conv", paper', "block 'Conv' is registered twice"),
        ("from torch import nn", "import no_such_module\nfrom torch import nn", "No module named 'no_such_module'"),
        ("from torch import nn", "from torch import nn\n\n1 / 0", "division by zero"),
        ("from torch import nn", "from torch import nn\n\nraise SystemError('two\\nlines')", "two lines"),
        ("from torch import nn", "from torch import nn\n\nraise ImportError('a\\r\\n\\n  b\\n')", ": a b; mend"),
        ("from torch import nn", "from torch import nn\n\nraise Nonsense", "name 'Nonsense' is not defined"),
        ("from torch import nn", "from torch import nn\n\nraise ValueError", "does not load: ValueError; mend"),
        ("from torch import nn", "from torch import nn\n\nassert False, '\\n'", "does not load: AssertionError; mend"),
        ("from torch import nn", "from torch import nn)", "unmatched ')'"),
        (
            "        super().__init__(",
            "        raise TypeError('not\\nthis\\nway')\n        super().__init__(",
            "block 'Twofold' breaks the contract, check 'shape': not this way; mend",
        ),
        ("class Twofold", "class SPPF", "block 'Twofold': Ultralytics has a class 'SPPF' of its own; rename yours"),
        (
            'licence="MIT"',
            'licence="MIT", stock=True',
            "block 'Twofold': stock means a class of Ultralytics, not of twofold_block",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named_in_one_line(
    old: str, new: str, message: str, plugin: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert old in GOOD
    done = plugin(GOOD.replace(old, new), LIST)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("block plugin 'twofold' of package 'twofold' does not load: ")
    assert message in line
    assert line.endswith("; mend or uninstall it")

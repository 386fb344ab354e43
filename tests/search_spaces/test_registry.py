from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import C2f

from search_spaces import registry
from search_spaces.contract import ContractError
from search_spaces.errors import UserError
from search_spaces.registry import (
    BlockError,
    Place,
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
def test_a_block_is_stock_where_ultralytics_knows_the_class(name: str) -> None:
    block = get_block(name)
    known = getattr(tasks, block.module.__name__, None)
    assert known is (block.module if block.stock else None)
    assert block.loads_in_stock == (block.stock or name == "C2fGhost")


def test_our_modules_are_one_block_of_each_class_that_ultralytics_does_not_know() -> None:
    ours = registry.our_modules()
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
def test_rows_of_a_block(name: str, place: Place, rows: list[registry.Row]) -> None:
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
        "import sys; from search_spaces.registry import get_family, list_families; get_family(list_families()[0]);"
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
from search_spaces.registry import get_block, list_blocks
from search_spaces.space_file import load_preset

assert "Twofold" in list_blocks("stage") and "Twofold" in list_blocks("downsample"), list_blocks()
preset = load_preset("yolov8n")
p2, p3, *others = preset.stages
p3 = replace(p3, downsample="Twofold", block="Twofold", depth=3)
network = hook.build(hook.model_file(replace(preset, stages=(p2, p3, *others)), nc=2))
print(type(network.model[3]).__name__, len(network.model[3]), type(network.model[4]).__name__, len(network.model[4]))
export_onnx(network, 64, Path(sys.argv[1]))
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
        (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\ntwofold = twofold_block\n")
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


LIST = """
from search_spaces.errors import UserError
from search_spaces.registry import list_blocks

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

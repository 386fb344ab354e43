from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import C2f, C3x, Conv, Detect, GhostBottleneck

from search_spaces import hook
from search_spaces.block import Place, Row
from search_spaces.blocks import get_block, list_blocks, our_modules
from search_spaces.families import ModelFile
from search_spaces.names import UnknownNameError
from search_spaces.presets import load_preset

OURS = [name for name in list_blocks() if not get_block(name).stock]


def stock_parse_model() -> FunctionType:
    """Ultralytics' own, also after `install`."""
    original: FunctionType = tasks.parse_model
    while getattr(original, "knows_nas_yolo_blocks", False):
        original = inspect.getclosurevars(original).nonlocals["original"]
    return original


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> FunctionType:
    original = stock_parse_model()
    monkeypatch.setattr(tasks, "parse_model", original)
    return original


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Threads interrupt one another a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def rows_of(name: str, in_chs: int) -> list[Row]:
    """Two units of a block, or one that downsamples if it can nothing else, 24 channels wide."""
    if name not in list_blocks():
        return [[-1, 2, name, [24]]]
    if get_block(name).roles == {"downsample"}:
        return get_block(name).rows(Place(in_chs, 24, stride=2))
    return get_block(name).rows(Place(in_chs, 24, 2))


def small_model(*names: str) -> ModelFile:
    """A stem, each of the blocks or of Ultralytics' modules, a head."""
    backbone: list[Row] = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    for index, name in enumerate(names):
        backbone += rows_of(name, 24 if index else 16)
    return {"nc": 2, "backbone": backbone, "head": [[[len(backbone) - 1], 1, "Detect", ["nc"]]]}


def layer_types(network: nn.Module) -> list[type[nn.Module]]:
    return [type(layer) for layer in network.model]


def test_install_is_idempotent(not_installed: FunctionType) -> None:
    hook.install()
    installed = tasks.parse_model
    assert installed is not not_installed
    hook.install()
    assert tasks.parse_model is installed


@pytest.mark.usefixtures("busy_switching")
def test_install_from_several_threads_wraps_once(not_installed: FunctionType) -> None:
    start = threading.Barrier(6)

    def install() -> Any:
        start.wait()
        hook.install()
        return tasks.parse_model

    with ThreadPoolExecutor(6) as pool:
        seen = {future.result() for future in [pool.submit(install) for _ in range(6)]}
    assert seen == {tasks.parse_model}
    assert inspect.getclosurevars(tasks.parse_model).nonlocals["original"] is not_installed


@pytest.mark.usefixtures("busy_switching")
def test_threads_that_build_ours_and_stock_models_get_exactly_theirs() -> None:
    hook.install()
    start = threading.Barrier(6)

    def build(names: list[str]) -> list[list[type[nn.Module]]]:
        start.wait()
        return [layer_types(hook.build(small_model(name))) for name in names]

    rounds = 2
    work = [OURS * rounds, ["C3x"] * 5 * rounds] * 3
    with ThreadPoolExecutor(6) as pool:
        built = [future.result() for future in [pool.submit(build, names) for names in work]]
    expected = {name: [Conv, Conv, get_block(name).module, Detect] for name in OURS}
    expected["C3x"] = [Conv, Conv, C3x, Detect]
    assert built == [[expected[name] for name in names] for names in work]
    assert tasks.C3x is C3x
    assert not any(hasattr(tasks, name) for name in OURS)


@pytest.mark.usefixtures("busy_switching")
def test_threads_that_build_with_and_without_an_activation_get_exactly_theirs() -> None:
    hook.install()
    start = threading.Barrier(3)

    def build(activation: str | None) -> list[set[str]]:
        start.wait()
        document = {**small_model("C2f", "C2fGhost"), "activation": activation}
        networks = [hook.build(document) for _ in range(10)]
        return [{type(m).__name__ for m in network.modules()} & {"SiLU", "ReLU", "Mish"} for network in networks]

    with ThreadPoolExecutor(3) as pool:
        built = list(pool.map(build, [None, "torch.nn.ReLU()", "Mish"]))
    assert built == [[{"SiLU"}] * 10, [{"ReLU"}] * 10, [{"Mish"}] * 10]


def test_all_our_blocks_fit_into_one_model() -> None:
    assert len(OURS) > len(hook.SLOTS)
    network = hook.build(small_model(*OURS))
    assert layer_types(network) == [Conv, Conv, *(get_block(name).module for name in OURS), Detect]
    for layer, name, in_chs in zip(network.model[2:], OURS, [16] + [24] * len(OURS), strict=False):
        stride = 2 if get_block(name).roles == {"downsample"} else 1
        expected = get_block(name).build(in_chs, 24, 2 // stride, stride)
        assert [p.shape for p in layer.parameters()] == [p.shape for p in expected.parameters()]


def test_layers_are_called_what_they_are() -> None:
    network = hook.build(small_model("C2f", "C2fGhost", "MBConv5"))
    assert [layer.type for layer in network.model[3:5]] == [
        "search_spaces.blocks.ghostnet.C2fGhost",
        f"search_spaces.blocks.mobilenet_v2.{get_block('MBConv5').module.__name__}",
    ]
    stock = [layer.type for layer in tasks.DetectionModel(small_model("C2f"), verbose=False).model]
    assert [layer.type for layer in network.model[:3]] == stock[:3]
    assert network.model[-1].type == stock[-1]


def test_a_model_file_is_left_as_it_is() -> None:
    document = small_model("C2fGhost", "C2f", "UIB")
    before = deepcopy(document)
    hook.build(document)
    assert {key: document[key] for key in before} == before  # Ultralytics itself adds the image's channels


@pytest.mark.parametrize("count", range(1, len(hook.SLOTS)))
def test_slots_that_the_model_itself_names_stay_what_they_are(count: int) -> None:
    named = hook.SLOTS[:count]
    network = hook.build(small_model(*named, "C2fGhost", "UIB", "C2f"))
    own = [getattr(tasks, name) for name in named]
    ours = [get_block(name).module for name in ("C2fGhost", "UIB")]
    assert layer_types(network)[2:-1] == [*own, *ours, C2f]


def test_a_model_that_names_all_slots_has_no_room_for_ours() -> None:
    assert layer_types(hook.build(small_model(*hook.SLOTS)))[2] is C3x  # without ours it may
    with pytest.raises(ValueError, match=r"may not name C3x, .*, RepC3 all together with nas-yolo blocks"):
        hook.build(small_model(*hook.SLOTS, "C2fGhost"))


@pytest.mark.parametrize(
    ("name", "nearest"), [("C2fGhots", "C2fGhost"), ("convnext", "ConvNeXt"), ("C3k22", "C3k2"), ("Detct", "Detect")]
)
@pytest.mark.parametrize("beside", [(), ("C2fGhost",)])
def test_an_unknown_module_is_refused_with_the_nearest(name: str, nearest: str, beside: tuple[str, ...]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        hook.build(small_model(*beside, name))
    assert str(caught.value).startswith(f"unknown module {name!r}: no layer that Ultralytics ")
    assert f"; did you mean {nearest!r}? To add a block, see docs/add-a-block.md" in str(caught.value)


def test_a_block_that_is_no_class_s_name_is_refused_in_a_model_file() -> None:
    # A space says MBConv5, a model file says the class and its arguments.
    (row,) = get_block("C3k2-C3k").rows(Place(16, 24, 2))
    assert row[2] == "C3k2"
    document = small_model("C2f")
    document["backbone"][2][2] = "C3k2-C3k"
    with pytest.raises(UnknownNameError, match=r"unknown module 'C3k2-C3k': .* did you mean 'C3k2'"):
        hook.build(document)


def test_modules_of_torch_may_be_named() -> None:
    document = small_model("C2fGhost")
    document["backbone"].insert(1, [-1, 1, "nn.Identity", []])
    document["head"][0][0] = [3]
    assert layer_types(hook.build(document))[1] is nn.Identity


def test_suggested_names_are_layers_that_a_row_can_name() -> None:
    """Neither functions and classes that Ultralytics' code imports, nor layers that it takes in no row."""
    with pytest.raises(UnknownNameError) as caught:
        hook.build(small_model("CBAM"))
    assert "has that class, but its parse_model takes no row of it, and nas-yolo has no such block" in str(caught.value)
    assert "did you mean" not in str(caught.value)
    named = hook.row_modules()
    assert {"Conv", "C2f", "Detect", *(get_block(name).module.__name__ for name in OURS)} <= named
    assert not named & {"YAML", "CBAM", "DetectionModel", "Path", "IterableSimpleNamespace"}


def test_a_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="detector"):
        hook.build({"nc": 2, "backbone": [[-1, 1, "Conv", [16, 3, 2]]], "head": [[-1, 1, "Classify", ["nc"]]]})


def ours_replaced(d: ModelFile, ch: int, verbose: bool = True) -> Any:
    """A fault: another class than the row names."""
    rows = {part: [[f, n, "C2f" if m in OURS else m, a] for f, n, m, a in d[part]] for part in ("backbone", "head")}
    return stock_parse_model()({**d, **rows}, ch, verbose)


def depth_ignored(d: ModelFile, ch: int, verbose: bool = True) -> Any:
    """A fault: one unit, whatever the row says."""
    rows = {part: [[f, 1, m, a] for f, _, m, a in d[part]] for part in ("backbone", "head")}
    return hook._wrap(stock_parse_model())({**d, **rows}, ch, verbose)


def width_ignored(d: ModelFile, ch: int, verbose: bool = True) -> Any:
    """A fault: channels that are not the row's."""
    backbone = [[f, n, m, [32, *a[1:]] if m in OURS else a] for f, n, m, a in d["backbone"]]
    return hook._wrap(stock_parse_model())({**d, "backbone": backbone}, ch, verbose)


def arguments_ignored(d: ModelFile, ch: int, verbose: bool = True) -> Any:
    """A fault: nothing but the width reaches the class."""
    backbone = [[f, n, m, a[:1] if m in our_modules() else a] for f, n, m, a in d["backbone"]]
    return hook._wrap(stock_parse_model())({**d, "backbone": backbone}, ch, verbose)


def test_self_test_passes_with_this_ultralytics() -> None:
    hook._self_test(hook._wrap(stock_parse_model()))


@pytest.mark.parametrize("fault", [ours_replaced, depth_ignored, width_ignored, arguments_ignored])
def test_self_test_refuses_an_ultralytics_that_builds_something_else(fault: Any) -> None:
    with pytest.raises(RuntimeError, match=r"builds block '\w+' wrongly; install a version"):
        hook._self_test(fault)


def test_install_changes_nothing_if_the_self_test_fails(
    not_installed: FunctionType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "_wrap", lambda original: ours_replaced)
    with pytest.raises(RuntimeError, match="wrongly"):
        hook.install()
    assert tasks.parse_model is not_installed


@pytest.fixture
def nothing_is_safe() -> Iterator[None]:
    """No class may be unpickled, until somebody says so."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.add_safe_globals(before)


@pytest.mark.usefixtures("not_installed", "nothing_is_safe")
def test_install_allows_our_classes_in_checkpoints(tmp_path: Path) -> None:
    hook.install()
    assert {get_block(name).module for name in OURS} <= set(torch.serialization.get_safe_globals())
    # A whole network also holds Ultralytics' and torch's classes, which Ultralytics' restricted loading allows.
    network = hook.build(small_model("C2fGhost"))
    torch.save({"model": network}, tmp_path / "network.pt")
    checkpoint, _ = tasks.torch_safe_load(str(tmp_path / "network.pt"), safe_only=True)
    assert layer_types(checkpoint["model"]) == layer_types(network)


@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolov8n-convnext"])
def test_ultralytics_alone_refuses_the_activation_of_our_files(name: str, not_installed: FunctionType) -> None:
    """It would build another yolov9t from one, since it leaves RepConv its SiLU, and say nothing."""
    document = hook.model_file(replace(load_preset(name), activation="ReLU"), nc=3)
    with pytest.raises((NameError, TypeError), match="'ReLU'"):  # the second where it loads nothing unknown
        tasks.DetectionModel(document, verbose=False)


class UnitElsewhere(GhostBottleneck):  # type: ignore[misc]  # Ultralytics has no types
    """A unit in another file than the block that it is part of."""


@pytest.mark.usefixtures("nothing_is_safe")
def test_units_from_other_files_than_the_block_s_may_be_in_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_spaces.blocks.ghostnet.GhostBottleneck", UnitElsewhere)
    network = hook.build(small_model("C2fGhost"))
    assert UnitElsewhere in map(type, network.modules())
    torch.save({"model": network}, tmp_path / "network.pt")
    checkpoint, _ = tasks.torch_safe_load(str(tmp_path / "network.pt"), safe_only=True)
    assert layer_types(checkpoint["model"]) == layer_types(network)


def test_build_leaves_ultralytics_own_models_alone() -> None:
    torch.manual_seed(0)
    ours = hook.build(tasks.yaml_model_load("yolov8n.yaml") | {"nc": 2})
    torch.manual_seed(0)
    stock = tasks.DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    assert layer_types(ours) == layer_types(stock)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), stock.parameters(), strict=True))

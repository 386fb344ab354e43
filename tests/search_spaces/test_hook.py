from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import C2f, C3x, Conv, Detect

from search_spaces import hook
from search_spaces.families import ModelFile
from search_spaces.registry import get_block, list_blocks
from search_spaces.space import load_preset

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


def small_model(*blocks: str) -> ModelFile:
    """A stem, two units of each block, a head."""
    backbone: list[list[Any]] = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    for name in blocks:
        arguments = get_block(name).arguments if name in list_blocks() else ()
        backbone.append([-1, 2, name, [24, *arguments]])
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


def test_all_our_blocks_fit_into_one_model() -> None:
    network = hook.build(small_model(*OURS))
    assert layer_types(network) == [Conv, Conv, *(get_block(name).module for name in OURS), Detect]
    widths = [16] + [24] * len(OURS)
    for layer, name, in_chs in zip(network.model[2:], OURS, widths, strict=False):
        expected = get_block(name).build(in_chs, 24, 2)
        assert [p.shape for p in layer.parameters()] == [p.shape for p in expected.parameters()]


def test_a_slot_that_the_model_itself_names_stays_what_it_is() -> None:
    assert hook.SLOTS[0] == "C3x"
    network = hook.build(small_model("C3x", "C2fGhost", "C2f"))
    assert layer_types(network) == [Conv, Conv, C3x, get_block("C2fGhost").module, C2f, Detect]


def test_a_model_that_names_all_slots_has_no_room_for_ours() -> None:
    with pytest.raises(ValueError, match="at most 0 kinds of nas-yolo blocks, not 1"):
        hook.build(small_model(*hook.SLOTS, "C2fGhost"))


def test_a_model_file_on_disk_may_name_our_blocks(tmp_path: Path) -> None:
    document = hook.model_file(load_preset("yolov8n-ghostv2"), nc=3)
    path = tmp_path / "detector.yaml"
    path.write_text(yaml.safe_dump(document))
    network = hook.build(path)
    assert layer_types(network) == layer_types(hook.build(document))
    assert network.model[-1].nc == 3
    assert hook.build(str(path), nc=5).model[-1].nc == 5


def test_a_missing_model_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hook.build(tmp_path / "missing.yaml")


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
    head = [[f, n, m, [32, *a[1:]] if m in OURS else a] for f, n, m, a in d["head"]]
    return hook._wrap(stock_parse_model())({**d, "head": head}, ch, verbose)


def test_self_test_passes_with_this_ultralytics() -> None:
    hook._self_test(hook._wrap(stock_parse_model()))


@pytest.mark.parametrize("fault", [ours_replaced, depth_ignored, width_ignored])
def test_self_test_refuses_an_ultralytics_that_builds_something_else(fault: Any) -> None:
    with pytest.raises(RuntimeError, match=f"builds block '{OURS[0]}' wrongly; install a version"):
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


def test_build_leaves_ultralytics_own_models_alone() -> None:
    torch.manual_seed(0)
    ours = hook.build("yolov8n.yaml", nc=2)
    torch.manual_seed(0)
    stock = tasks.DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    assert layer_types(ours) == layer_types(stock)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), stock.parameters(), strict=True))

"""Designs in Ultralytics' own rows: the same net, and it loads where nas-yolo is not installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, guess_model_scale

from nas_yolo.design_files import Design, write_folder, write_yaml
from search_spaces import Architecture, Neck, Stage, Stem, hook
from search_spaces.architecture import MAX_WIDTH, Level
from search_spaces.blocks import list_blocks, our_modules
from search_spaces.contract import randomise
from search_spaces.errors import UserError
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset, presets
from search_spaces.stock import needs_nas_yolo, stock_file, stock_network

IMAGE = (1, 3, 96, 64)


def ghost_net(family: str) -> Architecture:
    """C2fGhost wherever the family lets it stand, in several depths, widened, and 24 and 40 channels wide."""
    light = family in ("yolo11", "yolo26")
    return Architecture(
        family=family,
        stem=Stem("GhostConv", 16),
        stages=(
            Stage("Conv", "C2fGhost", 48, 2, widen=2),
            Stage("GhostConv", "C2fGhost", 40, 3),
            Stage("Conv", "C2fGhost", 80, 1, widen=2),
            Stage("Conv", "C2fGhost", 72, 4),
        ),
        neck=Neck(
            "Conv",
            (Level("C2fGhost", 24, 2), Level("C2fGhost", 56, 1), Level("C3k2" if light else "C2fGhost", 64, 3)),
        ),
    )


def by_32(net: Architecture) -> Architecture:
    """With every half of 16 or 32 channels."""
    p2, p3, p4, p5 = (replace(stage, width=32 * stage.widen) for stage in net.stages)
    n3, n4, n5 = (replace(level, width=64) for level in net.neck.levels)
    return replace(net, stages=(p2, p3, p4, p5), neck=replace(net.neck, levels=(n3, n4, n5)))


NETS = {
    "yolov8": ghost_net("yolov8"),
    "yolov9": ghost_net("yolov9"),
    "yolo11": ghost_net("yolo11"),
    "yolo26": ghost_net("yolo26"),
    "attention of stock": replace(ghost_net("yolov8"), attention="C2PSA"),
    "attention of ours": replace(ghost_net("yolo11"), attention="C2fGhost"),
    "attention first": replace(ghost_net("yolov9"), attention="C2fGhost"),
    "backbone only": load_preset("yolov8n-ghost"),
    "yolov8 by 32": by_32(ghost_net("yolov8")),
    "neck only": replace(load_preset("yolov9t"), neck=ghost_net("yolov9").neck),
    "yolov8 ReLU": replace(ghost_net("yolov8"), activation="ReLU"),
    "yolo11 with attention, Hardswish": replace(ghost_net("yolo11"), attention="C2PSA", activation="Hardswish"),
    "yolo26 LeakyReLU": replace(ghost_net("yolo26"), activation="LeakyReLU"),
}


def trained(model: dict[str, Any]) -> DetectionModel:
    """A network with weights and statistics as after training, so that what it sees reaches the output."""
    torch.manual_seed(0)
    network: DetectionModel = randomise(hook.build(model))
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(2, *IMAGE[1:]))
    return network.eval()


@cache
def trained_net(name: str) -> tuple[dict[str, Any], DetectionModel, DetectionModel]:
    """One of `NETS`: its rows, the network and its stock form, made once and not to be changed."""
    model = hook.model_file(NETS[name], nc=3)
    network = trained(model)
    return model, network, stock_network(network, model)


def output(network: nn.Module, image: Tensor, nms_free: bool | None = None) -> Tensor:
    """What it computes, by one thread, in the image's precision; with that half of its head, if given."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    network = deepcopy(network)
    if nms_free is not None:
        network.end2end = nms_free
    try:
        with torch.no_grad():
            found: Tensor = network.to(image.dtype).eval()(image)[0]
    finally:
        torch.set_num_threads(threads)
    return found


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETS)
def test_the_stock_form_is_the_same_net(name: str) -> None:
    model, network, stock = trained_net(name)
    assert any(row[2] == "C2fGhost" for row in model["backbone"] + model["head"])
    one, other = torch.rand(2, *IMAGE, dtype=torch.float64)
    expected = output(network, one)
    assert (output(network, other) - expected).abs().max() > 1  # pixel
    assert torch.equal(output(stock, one), expected)
    assert network.end2end == stock.end2end == (NETS[name].family == "yolo26")
    assert torch.equal(output(stock, one, nms_free=False), output(network, one, nms_free=False))
    assert count(stock) == count(network)
    assert not {type(module).__name__ for module in stock.modules()} & our_modules().keys()
    assert stock.stride.tolist() == network.stride.tolist() == [8, 16, 32]


@pytest.mark.parametrize("name", NETS)
def test_in_single_precision_it_differs_by_rounding_at_most(name: str) -> None:
    """By nothing where a half has a multiple of 16 channels; else the CPU's kernels sum up in another order."""
    _, network, stock = trained_net(name)
    torch.manual_seed(1)
    image = torch.rand(IMAGE)
    expected, found = output(network, image), output(stock, image)
    assert (found - expected).abs().max() < 1e-2  # pixel
    if name in ("backbone only", "yolov8 by 32"):
        assert torch.equal(found, expected)


SPELLED = {
    **{"ReLU": "torch.nn.ReLU()", "LeakyReLU": "torch.nn.LeakyReLU(0.1)", "Hardswish": "torch.nn.Hardswish()"},
    None: None,
}


@pytest.mark.parametrize("name", NETS)
def test_the_stock_file_names_no_block_of_ours(name: str) -> None:
    model = hook.model_file(NETS[name], nc=3)
    stock = stock_file(model)
    assert stock is not None
    assert not {row[2] for part in ("backbone", "head") for row in stock[part]} & our_modules().keys()
    assert stock.get("activation") == SPELLED.get(model.get("activation"))
    rest = ("backbone", "head", "activation")
    assert {key: value for key, value in stock.items() if key not in rest} == {
        key: value for key, value in model.items() if key not in rest
    }
    assert hook.model_file(NETS[name], nc=3) == model  # which was left as it was


def test_the_stock_form_is_trained_or_not_as_the_network_is() -> None:
    model = hook.model_file(NETS["yolov8"], nc=3)
    network = hook.build(model)
    assert stock_network(network.train(), model).training
    assert not stock_network(network.eval(), model).training


def test_the_stock_form_shares_no_weight_with_the_network() -> None:
    model = hook.model_file(NETS["backbone only"], nc=3)
    network = trained(model)
    stock, image = stock_network(network, model), torch.rand(IMAGE)
    expected = output(network, image)
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.zero_()
    assert torch.equal(output(network, image), expected)


def test_the_stock_form_learns_the_same() -> None:
    """In training mode too: the halves' statistics are those of the whole, and so are the gradients."""
    model = hook.model_file(NETS["yolov8"], nc=3)
    network, image = trained(model).double(), torch.rand(4, 3, 64, 64, dtype=torch.float64)
    stock = stock_network(network, model).double()
    losses = []
    for one in (network, stock):
        raw = one.train()(image)
        loss = raw["boxes"].square().mean() + raw["scores"].square().mean()
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    norms = [
        sum(float(p.grad.square().sum()) for p in one.parameters() if p.grad is not None) for one in (network, stock)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-9)


@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolo11n", "yolo26n"])
def test_a_file_that_is_stock_already_comes_back_equal(name: str) -> None:
    model = hook.model_file(load_preset(name), nc=80)
    assert stock_file(model) == model
    network, image = trained(model), torch.rand(IMAGE)
    stock = stock_network(network, model)
    assert torch.equal(output(stock, image), output(network, image))
    assert torch.equal(output(stock, image, nms_free=False), output(network, image, nms_free=False))


@pytest.mark.parametrize("block", ["ConvNeXt", "FocalModulation", "UIB", "ShuffleV2"])
def test_a_net_with_a_block_of_no_stock_form_has_none(block: str) -> None:
    p2, *others = NETS["yolov8"].stages
    model = hook.model_file(replace(NETS["yolov8"], stages=(replace(p2, block=block), *others)), nc=3)
    assert stock_file(model) is None
    with pytest.raises(ValueError, match="no form in Ultralytics' own rows"):
        stock_network(hook.build(model), model)


@pytest.mark.parametrize(
    ("name", "activation", "needs"),
    [
        ("yolov8n-ghost", "ReLU", ()),
        ("yolo26n", "Mish", ()),
        ("yolov9t", "SiLU", ()),
        ("yolov9t", "ReLU", ("RepNCSPELAN4 with ReLU",)),
        ("yolov9t-focal", "ReLU", ("FocalModulation", "RepNCSPELAN4 with ReLU")),
        ("yolov8n-convnext", "GELU", ("ConvNeXtStem", "ConvNeXtDown", "ConvNeXt")),
    ],
)
def test_which_designs_are_stock_with_an_activation(name: str, activation: str, needs: tuple[str, ...]) -> None:
    architecture = replace(load_preset(name), activation=activation)
    model = hook.model_file(architecture, nc=3)
    assert needs_nas_yolo(architecture) == needs
    assert (stock_file(model) is None) == bool(needs)
    if not needs:
        image, network = torch.rand(IMAGE), trained(model)
        assert torch.equal(output(stock_network(network, model), image), output(network, image))


def test_which_designs_are_stock() -> None:
    stock = {name for name in presets() if stock_file(hook.model_file(load_preset(name), nc=80)) is not None}
    plain = {name for name in presets() if "-" not in name}
    assert stock == plain | {f"yolov8{scale}-ghost" for scale in "nsmlx"}
    for name in presets():
        assert (Design(load_preset(name), ("a",), ImageSize(640, 640), "").needs == ()) == (name in stock)


@pytest.mark.parametrize("name", NETS)
def test_the_written_file_builds_the_same_net_without_our_hook(name: str, tmp_path: Path) -> None:
    write_yaml(Design(NETS[name], ("one", "two", "three"), ImageSize(96, 96), "a test"), tmp_path / "best.yaml")
    _, network, stock = trained_net(name)
    loaded = DetectionModel(str(tmp_path / "best.yaml"), verbose=False)
    loaded.load_state_dict(stock.state_dict())
    image = torch.rand(IMAGE, dtype=torch.float64)
    # Ultralytics leaves the half of YOLO26's head that needs no NMS unused unless it is told.
    assert torch.equal(output(loaded, image, nms_free=network.end2end), output(network, image))
    assert torch.equal(output(loaded, image), output(network, image, nms_free=False))
    assert "stock, for plain Ultralytics" in (tmp_path / "best.yaml").read_text()


# Ultralytics reads a scale out of the file's name, and builds other C3k2 for m, l and x.
WITH_SCALE = ("yolo11m-best.yaml", "yolov8x.yaml", "my-yolo26n.yaml", "yoloe-11l.yaml", "yolo5x6.yaml")
WITHOUT_SCALE = ("best.yaml", "yolo11.yaml", "yolov8-best.yaml", "mine.yaml", "yolo-n.yaml", "YOLO11M.yaml")


@pytest.mark.parametrize("preset", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize("name", WITH_SCALE)
def test_a_name_with_a_scale_is_refused_where_it_would_change_the_net(preset: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"scale from the name {re.escape(name)} and build another net; choose"):
        write_yaml(Design(load_preset(preset), ("one",), ImageSize(96, 96), "a test"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*WITH_SCALE, *WITHOUT_SCALE])
def test_the_names_with_a_scale_are_those_that_ultralytics_reads_one_from(name: str) -> None:
    assert bool(guess_model_scale(name)) == (name in WITH_SCALE)


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        *[(preset, name) for preset in ("yolov8n", "yolov9t") for name in (WITH_SCALE[0], WITH_SCALE[1], "best.yaml")],
        *[("yolo11n", name) for name in WITHOUT_SCALE],
        ("yolo26n", "best.yaml"),
    ],
)
def test_the_name_of_the_file_does_not_change_the_net(preset: str, name: str, tmp_path: Path) -> None:
    write_yaml(Design(load_preset(preset), ("one",), ImageSize(96, 96), "a test"), tmp_path / name)
    expected = hook.build(hook.model_file(load_preset(preset), nc=1))
    built = DetectionModel(str(tmp_path / name), verbose=False)
    assert [(key, value.shape) for key, value in built.state_dict().items()] == [
        (key, value.shape) for key, value in expected.state_dict().items()
    ]


@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolo11n", "yolo26n"])
def test_a_model_file_with_yolo11_s_head_has_a_scale_of_one(name: str) -> None:
    model = hook.model_file(load_preset(name), nc=3)
    if name in ("yolo11n", "yolo26n"):
        assert (model["scales"], model["scale"]) == ({"n": [1.0, 1.0, MAX_WIDTH]}, "n")
    else:
        assert not {"scale", "scales"} & model.keys()


# Elsewhere: an environment without nas-yolo, and other versions of Ultralytics

# Importing torch and Ultralytics takes longer than all the rest: one process for many folders.
USE = """
import importlib, os, sys, traceback
from pathlib import Path
import torch
torch.set_num_threads(1)
import ultralytics

ours = []
for name in ("search_spaces", "nas_yolo", "evaluators", "storage"):
    try:
        importlib.import_module(name)
        ours.append(name)
    except ImportError:
        pass


def use():
    names = {}
    exec(Path("snippet.py").read_text(), names)
    model = names["model"]
    with torch.no_grad():
        image = torch.load("image.pt")
        single = model.model.eval()(image.float())[0]
        output = model.model.double()(image)[0]
        nms_free = None
        if hasattr(model.model.model[-1], "one2one_cv2"):
            model.model.end2end = True
            nms_free = model.model(image)[0]
    found = {"ours": ours, "names": model.names, "output": output, "single": single, "nms_free": nms_free}
    torch.save({**found, "version": ultralytics.__version__}, "output.pt")


for folder in sys.argv[1:]:
    os.chdir(folder)
    try:
        use()
    except Exception:
        Path("errors.txt").write_text(traceback.format_exc())
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with everything that is installed here but our own packages."""

    python: Path
    scratch: Path

    def run(self, code: str, *arguments: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        # Other versions of Ultralytics would rewrite the settings of this one.
        variables = {"XDG_CONFIG_HOME": str(self.scratch), "YOLO_CONFIG_DIR": str(self.scratch)} | variables
        return subprocess.run(
            [self.python, "-c", code, *arguments],
            cwd=self.scratch,
            env=kept | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )


OWN = re.compile(r"_+editable|nas_yolo|search_spaces|evaluators|storage", re.IGNORECASE)


def make_environment(folder: Path, ultralytics: Path | None = None) -> Environment:
    """Linked, not copied, from this one; Ultralytics from another folder if given."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if OWN.match(entry.name) or (ultralytics and entry.name.startswith("ultralytics-8")):
            continue
        if not (ultralytics and entry.name == "ultralytics"):
            (site / entry.name).symlink_to(entry)
    for entry in ultralytics.glob("ultralytics*") if ultralytics else ():
        (site / entry.name).symlink_to(entry)
    (folder / "scratch").mkdir()
    return Environment(folder / "bin" / "python", folder / "scratch")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("plain") / "venv")


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Environments with another Ultralytics, each made, or found impossible, once."""
    made: dict[str, Environment | str] = {}

    def make(version: str) -> Environment:
        if version not in made:
            folder = tmp_path_factory.mktemp(version)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "1"]
            command += ["--disable-pip-version-check", "--target", str(folder / "lib"), f"ultralytics=={version}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                made[version] = f"pip cannot install ultralytics {version}: {done.stderr.strip().splitlines()[-1]}"
            else:
                made[version] = make_environment(folder / "venv", folder / "lib")
        found = made[version]
        if isinstance(found, str):
            pytest.skip(found)
        return found

    return make


@dataclass(frozen=True)
class Exported:
    """A folder that `nas-yolo export` would write, and what the search's own network computes."""

    folder: Path
    design: Design
    network: DetectionModel
    image: Tensor

    def expected(self, nms_free: bool = False) -> Tensor:
        return output(self.network, self.image, nms_free)


def library(name: str) -> Architecture:
    """A preset, and its activation if one is named behind it."""
    preset, _, activation = name.partition(" ")
    return replace(load_preset(preset), activation=activation or None)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """One of `NETS` or of the library, each made once and not to be changed."""

    @cache
    def make(name: str) -> Exported:
        design = Design(
            NETS[name] if name in NETS else library(name), ("one", "two", "three"), ImageSize(96, 96), "a test"
        )
        network = trained_net(name)[1] if name in NETS else trained(hook.model_file(design.architecture, nc=3))
        folder = tmp_path_factory.mktemp("export")
        write_folder(design, network.state_dict(), folder)
        torch.manual_seed(1)
        image = torch.rand(IMAGE, dtype=torch.float64)
        torch.save(image, folder / "image.pt")
        return Exported(folder, design, network, image)

    return make


def run_readmes(exported: Iterable[Exported], environment: Environment, folder: Path, **variables: str) -> list[Path]:
    """Load copies of the folders with their READMEs' own lines, nothing else, and compute."""
    copies = []
    for index, one in enumerate(exported):
        copies.append(shutil.copytree(one.folder, folder / str(index)))
        readme = (copies[-1] / "README.md").read_text()
        load, names = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
        assert (len(load.splitlines()), len(names.splitlines())) == (3, 1)
        (copies[-1] / "snippet.py").write_text(load + names)
    done = environment.run(USE, *copies, **variables)
    assert done.returncode == 0, done.stderr
    return copies


def result_of(exported: Exported, copy: Path) -> dict[str, Any]:
    """What was computed there."""
    errors = copy / "errors.txt"
    assert not errors.exists(), errors.read_text()
    result: dict[str, Any] = torch.load(copy / "output.pt", weights_only=True)
    assert result["names"] == dict(enumerate(exported.design.names))
    return result


STOCK_NETS = ("yolov8", "yolov9", "yolo11", "yolo26", "backbone only", "yolov8 ReLU", "yolo26 LeakyReLU")
OLDER = ("8.3.40", "8.3.200")
OLDER_NETS = ("yolov9", "yolov8", "yolo11", "yolo11n", "yolov8 ReLU")  # YOLO26's head needs 8.4
OUR_NETS = ("yolov9t-focal", "yolov8n-convnext", "yolov9t ReLU")
HERE = str(Path(__file__).parents[2])


@pytest.fixture(scope="session")
def ran(
    plain: Environment,
    older: Callable[[str], Environment],
    export: Callable[[str], Exported],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., dict[str, Any]]:
    """What one of `names` computes in an environment, "plain" or a version; all of them run at once, and once."""

    @cache
    def run(names: tuple[str, ...], where: str, variables: tuple[tuple[str, str], ...]) -> list[Path]:
        environment = plain if where == "plain" else older(where)
        return run_readmes(map(export, names), environment, tmp_path_factory.mktemp("ran"), **dict(variables))

    def result(name: str, names: tuple[str, ...], where: str, **variables: str) -> dict[str, Any]:
        copies = run(names, where, tuple(variables.items()))
        return result_of(export(name), copies[names.index(name)])

    return result


@pytest.mark.parametrize("name", STOCK_NETS)
def test_a_stock_export_runs_where_nas_yolo_is_not_installed(
    name: str, ran: Callable[..., dict[str, Any]], export: Callable[[str], Exported]
) -> None:
    exported, result = export(name), ran(name, STOCK_NETS, "plain")
    assert result["ours"] == []
    assert torch.equal(result["output"], exported.expected())
    if name.startswith("yolo26"):
        assert torch.equal(result["nms_free"], exported.expected(nms_free=True))
    else:
        assert result["nms_free"] is None
    if name == "backbone only":  # yolov8n-ghost: exact in single precision too
        assert torch.equal(result["single"], output(exported.network, exported.image.float()))


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("yolov8n-convnext", ("ConvNeXtStem", "ConvNeXtDown", "ConvNeXt")),
        ("yolov9t ReLU", ("RepNCSPELAN4 with ReLU",)),
    ],
)
def test_an_export_that_needs_nas_yolo_does_not_load_without_it(
    name: str, needs: tuple[str, ...], ran: Callable[..., dict[str, Any]], export: Callable[[str], Exported]
) -> None:
    assert export(name).design.needs == needs
    with pytest.raises(AssertionError, match="No module named 'search_spaces'"):
        ran(name, (name,), "plain")
    assert torch.equal(ran(name, (name,), "plain", PYTHONPATH=HERE)["output"], export(name).expected())


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("name", OLDER_NETS)
def test_a_stock_export_runs_on_an_older_ultralytics(
    version: str, name: str, ran: Callable[..., dict[str, Any]], export: Callable[[str], Exported]
) -> None:
    result = ran(name, OLDER_NETS, version)
    assert (result["version"], result["ours"]) == (version, [])
    assert torch.equal(result["output"], export(name).expected())


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("name", OUR_NETS)
def test_an_export_that_needs_nas_yolo_runs_on_an_older_ultralytics(
    version: str, name: str, ran: Callable[..., dict[str, Any]], export: Callable[[str], Exported]
) -> None:
    result = ran(name, OUR_NETS, version, PYTHONPATH=HERE)
    assert result["version"] == version
    assert "search_spaces" in result["ours"]
    assert torch.equal(result["output"], export(name).expected())


@pytest.mark.parametrize(("version", "known"), [("8.3.40", False), ("8.3.200", True)])
def test_a_block_that_an_older_ultralytics_lacks_is_not_registered(
    version: str, known: bool, older: Callable[[str], Environment]
) -> None:
    code = "from search_spaces.blocks import list_blocks; print(*list_blocks())"
    done = older(version).run(code, PYTHONPATH=HERE)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.splitlines()[-1].split())
    assert found == {name for name in list_blocks() if known or name != "A2C2f"}

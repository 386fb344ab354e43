from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv, RepConv
from ultralytics.nn.tasks import DetectionModel

from search_spaces import hook
from search_spaces.activation import ACTIVATIONS, REPLACED, replace_activations, ultralytics_text
from search_spaces.block_activation import canonical, own_activations, ultralytics_gives
from search_spaces.contract import ACTIVATION_OPERATORS, Operators, randomise
from search_spaces.presets import load_preset

# Blocks and rows with an activation of their own, attention, and a head with copies of one.
PRESETS = ("yolov8n", "yolov8n-convnext", "yolov9t-focal", "yolo11n", "yolo26n")


def build(name: str, activation: str | None) -> DetectionModel:
    hook.install()  # which draws random numbers the first time
    torch.manual_seed(0)
    return hook.build(hook.model_file(replace(load_preset(name), activation=activation), nc=3))


def kinds(network: nn.Module) -> Counter[str]:
    """How often a module of each kind is held by another, shared ones again and again."""
    return Counter(type(child).__name__ for module in network.modules() for child in module._modules.values())


def computed(network: DetectionModel) -> set[str]:
    """The activations that it computes, however they are called: trained, deployed and fused."""
    seen: set[str] = set()
    for one in (network.train(), deepcopy(network).eval(), deepcopy(network).eval().fuse(verbose=False)):
        with torch.no_grad(), Operators() as run:
            one(torch.rand(2, 3, 64, 64))
        seen |= run.names & ACTIVATION_OPERATORS
    return seen


@pytest.mark.parametrize("name", PRESETS)
def test_every_activation_of_a_detector_is_replaced_and_nothing_else(name: str) -> None:
    own, changed = build(name, None), build(name, "ReLU")
    before, after = kinds(own), kinds(changed)
    gone = set(REPLACED) & before.keys()
    assert gone == ({"SiLU"} if name in ("yolov8n", "yolo11n", "yolo26n") else {"SiLU", "GELU"})
    assert after.pop("ReLU") == sum(before.pop(kind) for kind in gone)
    assert after == before
    assert len(list(changed.modules())) == len(list(own.modules()))  # what was shared is shared
    mine, theirs = changed.state_dict(), own.state_dict()  # of the same seed
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert "silu" in computed(own)
    assert computed(changed) == {"relu"}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_can_be_chosen(name: str) -> None:
    network = build("yolov8n-convnext", name)
    assert set(REPLACED) & kinds(network).keys() == {name}
    (operator,) = computed(network)
    assert operator == {"ReLU6": "hardtanh", "LeakyReLU": "leaky_relu"}.get(name, name.lower())
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 3, 64, 64))[0].isfinite().all()


def test_it_leaks_a_tenth() -> None:
    slopes = {
        module.negative_slope for module in build("yolov8n", "LeakyReLU").modules() if hasattr(module, "negative_slope")
    }
    assert slopes == {0.1}


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_where_ultralytics_key_reaches_all_it_builds_the_same_network(name: str) -> None:
    file = hook.model_file(load_preset(name), nc=3)
    torch.manual_seed(0)
    theirs = hook.build({**file, "activation": ultralytics_text("LeakyReLU")})
    ours = build(name, "LeakyReLU")
    assert str(ours) == str(theirs)
    assert len(list(ours.modules())) == len(list(theirs.modules()))
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(image)[0], theirs.eval()(image)[0])


@pytest.mark.parametrize("name", PRESETS)
def test_the_activation_stays_in_a_copy_and_a_checkpoint(name: str, tmp_path: Path) -> None:
    network = randomise(build(name, "ReLU")).eval()
    torch.save({"model": network}, tmp_path / "best.pt")
    loaded, _ = tasks.torch_safe_load(str(tmp_path / "best.pt"), safe_only=True)
    rebuilt = DetectionModel(loaded["model"].yaml, verbose=False)  # as a trainer does
    rebuilt.load_state_dict(network.state_dict())
    rebuilt.end2end = network.end2end
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(image)[0]
        for other in (deepcopy(network), loaded["model"], rebuilt.eval()):
            assert str(other) == str(network)
            assert torch.equal(other(image)[0], expected)


# What Ultralytics does by itself


def test_ultralytics_own_key_means_what_it_means_there() -> None:
    file = {**hook.model_file(load_preset("yolov9t-focal"), nc=3), "activation": "torch.nn.ReLU()"}
    assert set(REPLACED) & kinds(hook.build(file)).keys() == {"ReLU", "SiLU", "GELU"}  # RepConv's and the block's own


@pytest.mark.parametrize("activation", ["ReLU", "torch.nn.ReLU()"])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_of_it_for_the_next_network(activation: str, fails: bool) -> None:
    default, file = Conv.default_act, hook.model_file(load_preset("yolov8n-convnext"), nc=3)
    if fails:
        with pytest.raises(TypeError):
            hook.build({**file, "activation": activation, "head": [[-1, 1, "Conv", [None]]]})
    else:
        hook.build({**file, "activation": activation})
    assert isinstance(RepConv.default_act, nn.SiLU)
    assert Conv.default_act is default
    assert "ReLU" not in kinds(build("yolov8n", None))


@pytest.mark.parametrize("activation", ["relu", "Relu", "ReLU()", "Sigmoid", "nn.ReLu()", 5])
def test_whatever_else_is_left_to_ultralytics(activation: object) -> None:
    with pytest.raises((NameError, AttributeError, TypeError, SyntaxError)):
        hook.build({**hook.model_file(load_preset("yolov8n"), nc=3), "activation": activation})


# Blocks by themselves


class Gated(nn.Module):
    """Activations of many kinds, one of them held twice, and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.again = nn.ReLU6()
        self.inner = nn.Sequential(nn.PReLU(), nn.Sequential(nn.GELU(), nn.Sigmoid()), nn.ModuleList([nn.ELU()]))
        self.gates = nn.ModuleList([nn.Hardsigmoid(), nn.Softmax(dim=1), nn.Tanh(), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x)


def test_gates_stay_and_what_was_held_twice_is_held_twice() -> None:
    module = Gated()
    replace_activations([module], "Mish")
    assert kinds(module) == Counter(
        {"Mish": 5, "Sequential": 2, "ModuleList": 2, "Sigmoid": 1}
        | {"Hardsigmoid": 1, "Softmax": 1, "Tanh": 1, "Identity": 1}
    )
    assert module.one is module.again
    assert sum(isinstance(part, nn.Mish) for part in module.modules()) == 4
    assert list(module.parameters()) == []


def test_a_row_that_names_an_activation_means_it() -> None:
    layers = nn.Sequential(nn.GELU(), Conv(3, 8))
    replace_activations(layers, "ReLU")
    assert kinds(layers) == Counter({"GELU": 1, "Conv": 1, "Conv2d": 1, "BatchNorm2d": 1, "ReLU": 1})


@pytest.mark.parametrize(
    ("block", "own", "given"),
    [
        ("Conv", {"SiLU"}, ("SiLU", "ReLU")),
        ("C2fGhost", {"SiLU"}, ("SiLU", "ReLU")),
        ("StarNet", {"SiLU"}, ("SiLU", "ReLU")),
        ("ConvNeXtStem", set(), ("SiLU", "ReLU")),
        ("ConvNeXt", {"SiLU", "GELU"}, ()),
        ("RepNCSPELAN4", {"SiLU"}, ("SiLU",)),
        ("RepVGG", {"SiLU"}, ("SiLU",)),
    ],
)
def test_what_a_block_has_by_itself_and_what_ultralytics_gives_it(
    block: str, own: set[str], given: tuple[str, ...]
) -> None:
    assert own_activations(block) == own
    assert tuple(name for name in ("SiLU", "ReLU") if ultralytics_gives(block, name)) == given


@pytest.mark.parametrize("name", PRESETS)
def test_one_network_is_one_architecture(name: str) -> None:
    design = load_preset(name)
    silu, relu = replace(design, activation="SiLU"), replace(design, activation="ReLU")
    assert canonical(design) == design
    assert canonical(relu) == relu
    same = str(build(name, "SiLU")) == str(build(name, None))
    assert canonical(silu) == (design if same else silu)
    assert same == (name in ("yolov8n", "yolo11n", "yolo26n"))

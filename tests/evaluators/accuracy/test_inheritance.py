from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves
from ultralytics.nn.tasks import DetectionModel

from evaluators.accuracy.channels import find_channels
from evaluators.accuracy.inheritance import WeightsError, inherit
from evaluators.accuracy.request import Parent, TrainingRequest
from evaluators.accuracy.training import train
from evaluators.dataset import load_dataset
from evaluators.evaluation import Epoch, FirstWeights
from search_spaces import Architecture, hook
from search_spaces.activation import ACTIVATIONS
from search_spaces.contract import randomise
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space

CLASSES = 3


def build(architecture: Architecture, seed: int = 1) -> DetectionModel:
    torch.manual_seed(seed)
    return hook.build(hook.model_file(architecture, CLASSES))


def save(architecture: Architecture, file: Path) -> DetectionModel:
    """A parent with statistics and scales as after a training, and its checkpoint."""
    network = build(architecture, seed=0)
    randomise(network)
    torch.save({"architecture": architecture.document, "ema": network.state_dict()}, file)
    return network


@pytest.fixture(scope="module", params=["yolov8n", "yolo26n", "yolov9t"])
def parent(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Architecture, Parent, DetectionModel]:
    architecture = load_preset(request.param)
    file = tmp_path_factory.mktemp("parent") / f"{request.param}.pt"
    return architecture, Parent(request.param, file), save(architecture, file)


def outputs(network: DetectionModel) -> list[torch.Tensor]:
    """Boxes and scores before they are decoded, as the loss gets them."""
    network.eval()
    network.model[-1].training = True
    with torch.no_grad():
        found = network(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    parts = found.values() if "boxes" not in found else [found]
    return tree_leaves([[part["boxes"], part["scores"]] for part in parts])


def same_outputs(one: DetectionModel, other: DetectionModel, tolerance: float = 1e-4) -> bool:
    pairs = zip(outputs(one), outputs(other), strict=True)
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max())) for a, b in pairs)


def widened(architecture: Architecture, factor: float) -> Architecture:
    def width(chs: int) -> int:
        return max(int(chs * factor) // 16 * 16, 16)

    levels = tuple(replace(level, width=width(level.width)) for level in architecture.neck.levels)
    return replace(
        architecture,
        stages=tuple(replace(stage, width=width(stage.width)) for stage in architecture.stages),
        neck=replace(architecture.neck, levels=levels),
    )


def deepened(architecture: Architecture) -> Architecture:
    levels = tuple(replace(level, depth=level.depth + 1) for level in architecture.neck.levels)
    return replace(
        architecture,
        stages=tuple(replace(stage, depth=stage.depth + 1) for stage in architecture.stages),
        neck=replace(architecture.neck, levels=levels),
    )


def test_the_same_architecture_takes_every_weight(parent: tuple[Architecture, Parent, DetectionModel]) -> None:
    architecture, source, network = parent
    child = build(architecture)
    first = inherit(child, architecture, [source], 0)
    assert first == FirstWeights((source.name,), 1.0)
    expected = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in child.state_dict().items())


@pytest.mark.parametrize("parent", ["yolov8n", "yolo26n"], indirect=True)
def test_a_wider_network_computes_what_its_parent_does(parent: tuple[Architecture, Parent, DetectionModel]) -> None:
    architecture, source, network = parent
    wider = widened(architecture, 1.5)
    assert wider != architecture
    child = build(wider)
    assert inherit(child, wider, [source], 0).share > 0.95
    assert same_outputs(child, network)


def test_channels_that_are_there_twice_do_not_stay_the_same(tmp_path: Path) -> None:
    architecture = load_preset("yolov8n")
    save(architecture, tmp_path / "p.pt")
    wider = replace(architecture, stages=(replace(architecture.stages[0], width=64), *architecture.stages[1:]))
    child = build(wider)
    inherit(child, wider, [Parent("p", tmp_path / "p.pt")], 0)
    reading = dict(child.named_parameters())["model.3.conv.weight"]
    twice = [(i, j) for i in range(64) for j in range(i) if torch.equal(reading[:, i], reading[:, j])]
    assert not twice


@pytest.mark.parametrize("parent", ["yolov8n", "yolo26n"], indirect=True)
def test_a_deeper_network_computes_what_its_parent_does(parent: tuple[Architecture, Parent, DetectionModel]) -> None:
    architecture, source, network = parent
    deeper = deepened(architecture)
    child = build(deeper)
    assert 0.5 < inherit(child, deeper, [source], 0).share < 1
    assert same_outputs(child, network)


def test_the_channels_and_what_is_residual_do_not_depend_on_the_activation() -> None:
    design = load_preset("yolov8n")
    own = find_channels(build(design))
    assert "model.2.m.0.cv2.bn.weight" in own.residual  # an activation follows it
    for activation in ACTIVATIONS:
        found = find_channels(build(replace(design, activation=activation)))
        assert found.residual == own.residual, activation
        assert found.fixed == own.fixed
        assert all((found.of[place] == numbers).all() for place, numbers in own.of.items())


def test_a_network_takes_every_weight_of_one_with_another_activation(tmp_path: Path) -> None:
    network = save(load_preset("yolov8n-convnext"), tmp_path / "p.pt")
    architecture = replace(load_preset("yolov8n-convnext"), activation="ReLU")
    child = build(architecture)
    assert inherit(child, architecture, [Parent("p", tmp_path / "p.pt")], 0) == FirstWeights(("p",), 1.0)
    expected = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in child.state_dict().items())
    assert not same_outputs(child, network)


def test_a_narrower_stage_keeps_the_channels_whose_weights_are_largest(tmp_path: Path) -> None:
    architecture = load_preset("yolov8n")
    network = save(architecture, tmp_path / "p.pt")
    weights = network.state_dict()
    # All that writes and reads odd channels of the stem is made small; the order of the channels is kept.
    for name in ("model.0.conv.weight", "model.0.bn.weight"):
        weights[name][1::2] *= 1e-3
    weights["model.1.conv.weight"][:, 1::2] *= 1e-3
    torch.save({"architecture": architecture.document, "ema": weights}, tmp_path / "q.pt")
    narrow = replace(architecture, stem=replace(architecture.stem, width=8))
    child = build(narrow)
    inherit(child, narrow, [Parent("q", tmp_path / "q.pt")], 0)
    assert torch.equal(child.state_dict()["model.0.conv.weight"], weights["model.0.conv.weight"][::2])
    assert torch.equal(child.state_dict()["model.1.conv.weight"], weights["model.1.conv.weight"][:, ::2])


def test_a_residual_block_that_the_parent_lacks_hands_on_what_it_is_given(tmp_path: Path) -> None:
    architecture = load_preset("yolov8n")
    save(architecture, tmp_path / "p.pt")
    stages = list(architecture.stages)
    for block in ("ConvNeXt", "GhostV2", "MBConv3", "FasterNet"):
        stages[1] = replace(architecture.stages[1], block=block)
        changed = replace(architecture, stages=tuple(stages))
        child = build(changed)
        first = inherit(child, changed, [Parent("p", tmp_path / "p.pt")], 0)
        assert 0.5 < first.share < 1, block
        place, image = child.model[4].eval(), torch.rand(1, 64, 8, 8)
        with torch.no_grad():
            assert torch.allclose(place(image), image, atol=1e-5), block


@pytest.mark.parametrize("space", ["yolov8n", "yolo11n", "yolo26n", "yolov9t"])
def test_any_design_of_a_space_takes_what_it_can_and_still_works(space: str, tmp_path: Path) -> None:
    architecture = load_preset(space)
    save(architecture, tmp_path / "p.pt")
    whole, rng = load_space(space), np.random.default_rng(3)
    for _ in range(3):
        design = whole.architecture(whole.sample(rng))
        child = build(design)
        before = {name: value.clone() for name, value in child.state_dict().items()}
        first = inherit(child, design, [Parent("p", tmp_path / "p.pt")], 0)
        assert 0.02 < first.share < 1
        assert all(value.isfinite().all() for value in outputs(child))
        changed = sum(not torch.equal(value, before[name]) for name, value in child.state_dict().items())
        assert changed > 20


def test_a_second_parent_gives_the_places_that_the_first_lacks(tmp_path: Path) -> None:
    architecture = load_preset("yolov8n")
    save(architecture, tmp_path / "first.pt")
    stages = list(architecture.stages)
    stages[2] = replace(stages[2], block="GhostV2")
    relative = replace(architecture, stages=tuple(stages))
    network = save(relative, tmp_path / "second.pt")
    design = replace(relative, neck=replace(relative.neck, downsample="GhostConv"))
    child = build(design)
    first, second = Parent("yolov8n", tmp_path / "first.pt"), Parent("trial 3", tmp_path / "second.pt")
    alone = inherit(build(design), design, [first], 0)
    assert alone.parents == ("yolov8n",)
    both = inherit(child, design, [first, second], 0)
    assert both.parents == ("yolov8n", "trial 3")
    assert both.share > alone.share
    expected = network.model[6].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in child.model[6].state_dict().items())


def test_an_ultralytics_checkpoint_is_a_parent_whatever_its_number_of_classes(tmp_path: Path) -> None:
    architecture = load_preset("yolov8n")
    torch.manual_seed(0)
    stock = DetectionModel("yolov8n.yaml", nc=80, verbose=False)
    torch.save({"epoch": -1, "model": stock.half(), "train_args": {}}, tmp_path / "yolov8n.pt")
    child = build(architecture)
    first = inherit(child, architecture, [Parent("yolov8n.pt", tmp_path / "yolov8n.pt")], 0)
    assert first.parents == ("yolov8n.pt",)
    assert 0.9 < first.share < 1  # but for the classes
    stem = stock.state_dict()["model.0.conv.weight"].float()
    assert torch.equal(child.state_dict()["model.0.conv.weight"], stem)
    (tmp_path / "yolov8n.pt").touch()  # written anew, as far as can be told: it is read again
    assert inherit(child, architecture, [Parent("yolov8n.pt", tmp_path / "yolov8n.pt")], 0) == first


def test_the_half_of_a_head_that_its_parent_lacks_begins_as_the_other(tmp_path: Path) -> None:
    save(load_preset("yolo11n"), tmp_path / "p.pt")
    architecture = load_preset("yolo26n")
    child = build(architecture)
    inherit(child, architecture, [Parent("yolo11n", tmp_path / "p.pt")], 0)
    head = child.model[-1]
    for half, other in zip(head.one2one_cv3.parameters(), head.cv3.parameters(), strict=True):
        assert torch.equal(half, other)


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2]])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(content: Any, tmp_path: Path) -> None:
    architecture = load_preset("yolov8n")
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"x\.pt") as error:
        inherit(build(architecture), architecture, [Parent("x", tmp_path / "x.pt")], 0)
    assert "\n" not in str(error.value)


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return (Path.touch, (Path("/tmp/never"),))  # type: ignore[return-value]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    architecture = load_preset("yolov8n")
    torch.save({"model": Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(WeightsError, match="cannot be read"):
        inherit(build(architecture), architecture, [Parent("x", tmp_path / "hostile.pt")], 0)


def hashed(network: torch.nn.Module) -> str:
    values = b"".join(value.detach().numpy().tobytes() for _, value in sorted(network.named_parameters()))
    return hashlib.sha256(values).hexdigest()


def test_the_first_step_of_the_optimizer_sees_the_inherited_weights(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators.accuracy import trainer

    architecture = load_preset("yolov8n")
    narrow = widened(architecture, 0.5)
    given, seen = [], []

    def inherit_and_hash(network: DetectionModel, *rest: Any) -> FirstWeights:
        first = inherit(network, *rest)
        given.append(hashed(network))
        return first

    class Watched(trainer.ProxyTrainer):
        def optimizer_step(self) -> None:
            if not seen:
                seen.extend([hashed(self.model), hashed(self.ema.ema)])
            super().optimizer_step()

    monkeypatch.setattr("evaluators.accuracy.inheritance.inherit", inherit_and_hash)
    monkeypatch.setattr(trainer, "ProxyTrainer", Watched)
    dataset = load_dataset(few_digits)
    torch.manual_seed(0)
    network = hook.build(hook.model_file(architecture, len(dataset.names)))
    torch.save({"architecture": architecture.document, "ema": network.state_dict()}, tmp_path / "p.pt")
    request = TrainingRequest(
        architecture=narrow,
        dataset=dataset,
        imgsz=ImageSize(32, 32),
        epochs=2,
        until=1,
        seed=3,
        checkpoint=tmp_path / "checkpoint.pt",
        scratch=tmp_path / "scratch",
        parents=(Parent("yolov8n", tmp_path / "p.pt"),),
        arguments={"batch": 16, "nbs": 16, "optimizer": "AdamW"},
    )
    first, epoch = train(request)
    assert isinstance(first, FirstWeights)
    assert isinstance(epoch, Epoch)
    assert first.share > 0.9
    assert given * 2 == seen

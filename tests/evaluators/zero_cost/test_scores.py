"""Scores of untrained networks: what they leave alone, and their order where it is known."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from evaluators.dataset import load_dataset, spread_images
from evaluators.evaluation import Scores
from evaluators.measurement import MeasurementRequest, measure
from evaluators.zero_cost import compute_scores, get_score, list_scores
from evaluators.zero_cost._inputs import load_images
from evaluators.zero_cost.baseline_features import linear_cka
from search_spaces import hook
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

IMGSZ = ImageSize(64, 64)


@pytest.fixture(scope="module")
def files(few_digits: Path) -> list[str]:
    return [str(file) for file in spread_images(load_dataset(few_digits), 8)]


@pytest.fixture(scope="module")
def images(files: list[str]) -> Tensor:
    return load_images(files, IMGSZ)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def chain(width: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, width, 3, 2), nn.BatchNorm2d(width), activation(), nn.Conv2d(width, width, 3, 2))
    return nn.Sequential(*layers, nn.BatchNorm2d(width), activation(), nn.Conv2d(width, 4, 1))


@pytest.mark.parametrize("name", list_scores())
@pytest.mark.parametrize("training", [True, False])
def test_a_score_is_the_same_again_and_changes_nothing(
    name: str, training: bool, small_detector: DetectionModel, images: Tensor
) -> None:
    network = small_detector.train(training)
    baseline = deepcopy(network).eval()
    before, counted, random = state(network), hooks(network), torch.get_rng_state()
    first = get_score(name)(network, images, IMGSZ, baseline)
    assert math.isfinite(first)
    assert torch.equal(torch.get_rng_state(), random)
    torch.rand(7)
    assert get_score(name)(network, images, IMGSZ, baseline) == first
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training == training for module in network.modules())
    assert hooks(network) == counted
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize("name", ["synflow", "macs"])
def test_what_is_wider_scores_more(name: str, images: Tensor) -> None:
    values = [get_score(name)(chain(width), images, IMGSZ, None) for width in (4, 8, 16)]
    assert values[0] < values[1] < values[2]


def test_macs_are_counted_at_the_image_size_of_the_network(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False))
    size = ImageSize(640, 320)
    assert get_score("macs")(network, images, size, None) == pytest.approx(math.log(3 * 5 * 9 * 640 * 320))


def test_flow_is_the_product_of_the_weights_along_all_paths(images: Tensor) -> None:
    first, second = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.5, -1.0]])[:, :, None, None])
        second.weight.copy_(torch.tensor([[-1.0, 4.0]])[:, :, None, None])
    flow = (1 + 2 + 3) * 1 + (0.5 + 0.5 + 1) * 4  # for each pixel; each of the two layers has it all
    network = nn.Sequential(first, nn.BatchNorm2d(2), nn.SiLU(inplace=True), second)
    assert get_score("synflow")(network, images, IMGSZ, None) == pytest.approx(math.log(2 * flow * 64**2))


def test_images_that_a_net_tells_apart_score_more_than_those_it_takes_for_equal(images: Tensor) -> None:
    alive, dead = chain(8), chain(8)
    with torch.no_grad():
        for norm in (dead[1], dead[4]):
            norm.bias.fill_(-100.0)  # nothing that goes into an activation is ever positive
    nwot = get_score("nwot")
    assert nwot(alive, images, IMGSZ, None) > nwot(dead, images, IMGSZ, None)
    assert nwot(alive, images, IMGSZ, None) > nwot(alive, images[:1].repeat(8, 1, 1, 1), IMGSZ, None)
    assert math.isnan(nwot(alive, images[:1], IMGSZ, None))


def test_the_kernel_counts_units_with_the_same_sign() -> None:
    network = nn.Sequential(nn.Flatten(), nn.ReLU())
    codes = torch.tensor([[1.0, 1.0, -1.0, 1.0], [1.0, -1.0, -1.0, 1.0]])  # three of four in common
    expected = math.log((4 + 1) ** 2 - 3**2)
    assert get_score("nwot")(network, codes[:, None, None], IMGSZ, None) == pytest.approx(expected)


def test_alignment_does_not_see_rotation_and_scale_but_tells_noise() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 6, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    assert linear_cka(features, 3 * features @ rotation + 1) == pytest.approx(1.0)
    assert linear_cka(features, torch.randn(200, 6, dtype=torch.float64)) < 0.1


def test_a_net_is_most_like_the_trained_one_if_it_is_that_one(small_detector: DetectionModel, images: Tensor) -> None:
    like = get_score("baseline_features")
    trained = hook.build(small_detector.yaml)
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        trained.train()(images)  # its statistics are those of the images
    other = like(small_detector, images, IMGSZ, trained.eval())
    assert like(trained, images, IMGSZ, trained) > 0.99
    assert 0 < other < 0.99
    assert math.isnan(like(small_detector, images, IMGSZ, None))


def test_what_cannot_be_computed_is_left_out(small_detector: DetectionModel, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    scores = compute_scores(small_detector, [str(tmp_path / "broken.jpg"), *files], 2, IMGSZ)
    assert set(scores.values) == {"macs", "nwot", "synflow"}  # there is no trained baseline
    without = compute_scores(small_detector, [str(tmp_path / "gone.jpg")], 2, IMGSZ)
    assert without.values == {name: scores.values[name] for name in ("macs", "synflow")}


def test_a_trained_baseline_is_read_from_its_checkpoint(files: list[str], tmp_path: Path) -> None:
    from search_spaces.presets import load_preset

    architecture = load_preset("yolov8n")
    trained = hook.build(hook.model_file(architecture, 2))
    torch.save({"ema": trained.state_dict()}, tmp_path / "last.pt")
    network = hook.build(hook.model_file(architecture, 2))
    found = compute_scores(network, files, 2, IMGSZ, (architecture, tmp_path / "last.pt")).values
    images = load_images(files, IMGSZ)
    assert found["baseline_features"] == get_score("baseline_features")(network, images, IMGSZ, trained.eval())
    gone = compute_scores(network, files, 2, IMGSZ, (architecture, tmp_path / "gone.pt")).values
    assert set(found) - set(gone) == {"baseline_features"}


def test_the_same_architecture_is_measured_with_the_same_scores(files: list[str], tmp_path: Path) -> None:
    from search_spaces.presets import load_preset

    threads = torch.get_num_threads()
    request = MeasurementRequest(load_preset("yolov8n"), 2, IMGSZ, (), tmp_path, images=tuple(files))
    first, _ = measure(request)
    again, _ = measure(request)
    torch.set_num_threads(threads)
    assert isinstance(first, Scores)
    assert isinstance(again, Scores)
    assert first.values == again.values
    assert list(measure(replace(request, sized=True))) == []

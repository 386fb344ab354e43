from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import DetectionModel

from evaluators.export import export_onnx
from search_spaces import Architecture, Neck, Stage, Stem, hook
from search_spaces.registry import get_block, list_blocks

over_blocks = pytest.mark.parametrize("name", list_blocks())
IMAGE_SIZE = 96


def build_block(name: str, in_chs: int, out_chs: int, depth: int) -> nn.Module:
    torch.manual_seed(0)
    block = get_block(name).build(in_chs, out_chs, depth)
    randomise_batch_norm(block)
    return block


def randomise_batch_norm(module: nn.Module) -> None:
    """Statistics and weights as after training: with the initial ones, normalising is the identity."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.5)


def run_onnx(path: Path, image: Tensor) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    return output


@over_blocks
@pytest.mark.parametrize(("in_chs", "out_chs", "depth"), [(8, 8, 1), (8, 64, 2), (64, 8, 1), (16, 16, 3), (40, 24, 2)])
def test_keeps_the_map_and_sets_the_width(name: str, in_chs: int, out_chs: int, depth: int) -> None:
    block = build_block(name, in_chs, out_chs, depth).eval()
    for height, width in [(13, 9), (7, 7), (6, 8), (1, 5), (1, 1)]:
        with torch.no_grad():
            output = block(torch.randn(2, in_chs, height, width))
        assert output.shape == (2, out_chs, height, width)
        assert output.isfinite().all()


@over_blocks
def test_every_further_unit_adds_the_same_weights(name: str) -> None:
    one, two, three = (sum(p.numel() for p in build_block(name, 16, 16, depth).parameters()) for depth in (1, 2, 3))
    assert two > one
    assert three - two == two - one


@over_blocks
@pytest.mark.parametrize(("in_chs", "out_chs"), [(16, 24), (16, 16)])
def test_a_gradient_reaches_every_parameter(name: str, in_chs: int, out_chs: int) -> None:
    # With fixed statistics: while they follow the batch, a shift before a normalisation has no effect, by design.
    block = build_block(name, in_chs, out_chs, 2).eval()
    output = block(torch.randn(4, in_chs, 13, 9))
    (output * torch.randn_like(output)).sum().backward()
    unreached = [key for key, p in block.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-3]
    assert unreached == []


@over_blocks
def test_state_dict_round_trip_gives_the_same_output(name: str, tmp_path: Path) -> None:
    block, image = build_block(name, 16, 24, 2).eval(), torch.randn(1, 16, 13, 9)
    torch.save(block.state_dict(), tmp_path / "block.pt")
    torch.manual_seed(1)
    other = get_block(name).build(16, 24, 2).eval()
    with torch.no_grad():
        assert not torch.equal(other(image), block(image))
        other.load_state_dict(torch.load(tmp_path / "block.pt", weights_only=True))
        assert torch.equal(other(image), block(image))


@over_blocks
@pytest.mark.parametrize(
    ("in_chs", "out_chs", "depth", "size"), [(16, 24, 2, (13, 9)), (24, 24, 1, (7, 1)), (8, 16, 1, (1, 1))]
)
def test_onnx_computes_the_same(
    name: str, in_chs: int, out_chs: int, depth: int, size: tuple[int, int], tmp_path: Path
) -> None:
    block, image = build_block(name, in_chs, out_chs, depth).eval(), torch.randn(1, in_chs, *size)
    path = tmp_path / "block.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in evaluators/export.py
        torch.onnx.export(block, (image,), str(path), opset_version=17, dynamo=False)
    other_image = torch.randn(1, in_chs, *size)  # what tracing saw must not have become a constant
    with torch.no_grad():
        expected = block(other_image)
    np.testing.assert_allclose(run_onnx(path, other_image), expected.numpy(), rtol=1e-4, atol=1e-4)


@over_blocks
def test_fusing_folds_every_normalisation_and_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    block = get_block(name)
    depth = 2 if block.takes_depth else 1  # Ultralytics stacks only what keeps the width
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, depth, name, [24, *block.arguments]]]
    network = hook.build({"nc": 2, "backbone": rows, "head": [[[1], 1, "Detect", ["nc"]]]}).eval()
    randomise_batch_norm(network)
    layers, image = network.model[:2], torch.rand(1, 3, 26, 18)
    assert normalised_convolutions(layers[1]) != []
    with torch.no_grad():
        expected = layers(image)
        network.fuse(verbose=False)
        assert normalised_convolutions(network) == []
        torch.testing.assert_close(layers(image), expected, rtol=1e-4, atol=1e-4)


def normalised_convolutions(module: nn.Module) -> list[Conv]:
    convolutions = [m for m in module.modules() if isinstance(m, Conv)]
    return [m for m in convolutions if any(isinstance(part, nn.BatchNorm2d) for part in m.modules())]


def build_detector(name: str) -> DetectionModel:
    """With `name` in every stage, and statistics that keep the activations of all layers near 1."""
    p2, p3, p4, p5 = (Stage("Conv", name, width, depth) for width, depth in ((16, 1), (24, 2), (32, 1), (48, 1)))
    architecture = Architecture("yolov8", Stem("Conv", 8), (p2, p3, p4, p5), Neck("C2f", 1, (24, 32, 48)))
    torch.manual_seed(0)
    network = hook.build(hook.model_file(architecture, nc=3))
    randomise_batch_norm(network)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0  # the statistics of the next batch, whatever they were
    with torch.no_grad():
        network.train()(torch.rand(4, 3, IMAGE_SIZE, IMAGE_SIZE))
    return network.eval()


@over_blocks
def test_a_whole_detector_of_it_exports(name: str, tmp_path: Path) -> None:
    network, image = build_detector(name), torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    block = get_block(name)
    for layer in (2, 4, 6, 8):
        assert any(isinstance(module, block.module) for module in network.model[layer].modules())
    with torch.no_grad():
        expected = network(image)[0].numpy()
        another = network(torch.rand_like(image))[0].numpy()
    anchors = sum((IMAGE_SIZE // stride) ** 2 for stride in (8, 16, 32))
    assert expected.shape == (1, 4 + 3, anchors)

    export_onnx(network, IMAGE_SIZE, tmp_path / "detector.onnx")
    exported = run_onnx(tmp_path / "detector.onnx", image)
    # Boxes are pixels, up to 96; scores are fractions, small before training: each is compared on its own scale.
    for part in (slice(0, 4), slice(4, None)):
        scale = np.abs(expected[:, part]).max()
        assert np.abs(another[:, part] - expected[:, part]).max() > 0.01 * scale  # what it sees reaches the output
        np.testing.assert_allclose(exported[:, part], expected[:, part], rtol=0, atol=1e-4 * scale)

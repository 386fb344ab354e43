from __future__ import annotations

import warnings
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.activation import REPLACED
from search_spaces.block import Place, Role
from search_spaces.blocks import get_block, list_blocks
from search_spaces.contract import (
    ACTIVATION_OPERATORS,
    CHECKS,
    ContractError,
    Operators,
    cases,
    check_block,
    fuse,
    randomise,
)
from search_spaces.names import UnknownNameError
from search_spaces.registry import register_block

over_blocks = pytest.mark.parametrize("name", list_blocks())


def build_block(name: str, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return randomise(get_block(name).build(in_chs, out_chs, depth, stride)).eval()


@over_blocks
def test_every_block_keeps_the_contract(name: str) -> None:
    check_block(get_block(name))


# Each of the following keeps the contract but for one thing, the one that its test is about.


class Intact(Conv):  # type: ignore[misc]
    """What the broken ones are made from."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(in_chs, out_chs, 3, stride)


class WrongWidth(Intact):
    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(in_chs, out_chs + 8, depth, stride)


class WrongStride(Intact):
    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(in_chs, out_chs)


class NoPadding(Intact):
    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(in_chs, out_chs, depth, stride)
        self.conv.padding = (0, 0)


class TwoMaps(Intact):
    def forward(self, x: Tensor) -> Any:
        return (super().forward(x), x)


class NotFinite(Intact):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).log()


class DeadParameter(Intact):
    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(in_chs, out_chs, depth, stride)
        self.unused = nn.Parameter(torch.ones(out_chs))


class DeadInput(Intact):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class HiddenWeights(Intact):
    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(in_chs, out_chs, depth, stride)
        self.scale = torch.rand(out_chs, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale.to(x.dtype) * super().forward(x)


class SharedCopy(Intact):
    def __deepcopy__(self, memo: dict[int, Any]) -> SharedCopy:
        return self


class AlwaysFloat32(Intact):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()

    def forward_fuse(self, x: Tensor) -> Tensor:
        return super().forward_fuse(x).float()


class Float32Constant(Intact):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.ones(x.shape))


class LoneNormalisation(Intact):
    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(in_chs, out_chs, depth, stride)
        self.norm = nn.BatchNorm2d(in_chs)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))

    def forward_fuse(self, x: Tensor) -> Tensor:
        return super().forward_fuse(self.norm(x))


class OtherOnceFused(Intact):
    def forward_fuse(self, x: Tensor) -> Tensor:
        return 2 * super().forward_fuse(x)


class WeightsOfItsOwn(nn.Module):
    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_chs, in_chs, 1, 1))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=self.stride)


class CalledActivation(Intact):
    """Which no one can replace; SiLU, so that it shows with ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))

    def forward_fuse(self, x: Tensor) -> Tensor:
        return F.silu(super().forward_fuse(x))


class HiddenActivation(Intact):
    """A module that the block does not know as its own; ReLU, so that it shows with SiLU."""

    def __init__(self, in_chs: int, out_chs: int, depth: int = 1, stride: int = 1):
        super().__init__(in_chs, out_chs, depth, stride)
        self.hidden = [nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden[0](super().forward(x) + 1)

    def forward_fuse(self, x: Tensor) -> Tensor:
        return self.hidden[0](super().forward_fuse(x) + 1)


class lowercase(Intact):
    pass


BOTH: tuple[Role, ...] = ("stage", "downsample")


@pytest.mark.parametrize(
    ("module", "roles", "check", "message"),
    [
        (lowercase, BOTH, "name", "'lowercase' must begin with an upper-case letter"),
        (Intact, (), "name", "it has no role"),
        (WrongWidth, BOTH, "shape", "stride 1, 16 to 24 channels at 12x8: gives 32 channels"),
        (WrongStride, ("downsample",), "shape", "stride 2, 16 to 24 channels at 12x8: gives 12x8"),
        (NoPadding, ("stage",), "shape", "at 12x8: gives 10x6"),
        (TwoMaps, BOTH, "shape", "gives tuple, not a tensor"),
        (NotFinite, BOTH, "shape", "gives values that are not finite"),
        (DeadParameter, BOTH, "gradient", "no gradient reaches unused"),
        (DeadInput, BOTH, "gradient", "no gradient reaches the input"),
        (HiddenWeights, BOTH, "state_dict", "another instance with the same weights gives another map"),
        (SharedCopy, BOTH, "deepcopy", "a copy shares weights"),
        (AlwaysFloat32, BOTH, "half precision", "half precision gives torch.float32"),
        (Float32Constant, BOTH, "half precision", ""),
        (LoneNormalisation, BOTH, "fuse", "'norm'.* cannot be fused"),
        (OtherOnceFused, BOTH, "fuse", "Tensor-likes are not close"),
        (WeightsOfItsOwn, BOTH, "operations", "thop counts 0 multiply-adds"),
        (CalledActivation, BOTH, "activation", "with ReLU it still computes silu: hold each activation as a module"),
        (HiddenActivation, BOTH, "activation", "with SiLU it still computes relu: hold each activation as a module"),
    ],
)
def test_a_broken_module_is_refused_by_the_right_check(
    module: type[nn.Module], roles: Iterable[Role], check: str, message: str
) -> None:
    assert check in CHECKS
    before = list_blocks()
    register = register_block("Broken", paper="none", licence="none", roles=roles)
    with pytest.raises(ContractError, match=f"^block 'Broken' breaks the contract, check '{check}': .*{message}"):
        register(module)
    assert list_blocks() == before
    with pytest.raises(UnknownNameError):
        get_block("Broken")


@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.parametrize("training", [False, True])
def test_the_contract_sees_every_activation_that_is_replaced(name: str, training: bool) -> None:
    with torch.no_grad(), Operators() as seen:
        getattr(nn, name)().train(training)(torch.randn(2, 3))
    assert seen.names & ACTIVATION_OPERATORS


def test_what_the_broken_modules_are_made_from_is_whole() -> None:
    block = get_block("RepVGG")
    assert block.roles == {"stage", "downsample"}
    check_block(replace(block, name="Intact", module=Intact))


@pytest.mark.parametrize("name", list_blocks("stage"))
@pytest.mark.parametrize(
    ("in_chs", "out_chs", "depth"),
    [
        (8, 8, 1),
        (8, 16, 2),
        (16, 24, 3),
        (24, 24, 4),
        (24, 16, 5),
        (16, 8, 6),
        (8, 64, 2),
        (64, 256, 1),
        (256, 64, 2),
        (256, 512, 1),
        (512, 512, 1),
        (512, 8, 1),
    ],
)
def test_a_stage_keeps_the_map_and_sets_the_width(name: str, in_chs: int, out_chs: int, depth: int) -> None:
    block = build_block(name, in_chs, out_chs, depth)
    for height, width in [(7, 5), (4, 6), (1, 5), (1, 1)]:
        with torch.no_grad():
            output = block(torch.randn(2, in_chs, height, width))
        assert output.shape == (2, out_chs, height, width)
        assert output.isfinite().all()


@pytest.mark.parametrize("name", list_blocks("downsample"))
@pytest.mark.parametrize(
    ("in_chs", "out_chs"), [(8, 8), (8, 16), (16, 24), (24, 24), (24, 64), (64, 256), (256, 512), (512, 512), (512, 8)]
)
def test_a_downsampling_halves_the_map_and_sets_the_width(name: str, in_chs: int, out_chs: int) -> None:
    block = build_block(name, in_chs, out_chs, stride=2)
    for height, width in [(8, 6), (2, 2), (7, 5), (3, 9)]:
        with torch.no_grad():
            output = block(torch.randn(2, in_chs, height, width))
        assert output.shape[:2] == (2, out_chs)
        assert output.shape[2] in (height // 2, (height + 1) // 2)
        assert output.shape[3] in (width // 2, (width + 1) // 2)
        assert output.isfinite().all()


@pytest.mark.parametrize("name", [name for name in list_blocks("downsample") if name != "ADown"])
def test_a_downsampling_takes_the_image(name: str) -> None:
    # ADown splits its input's channels into halves.
    with torch.no_grad():
        assert build_block(name, 3, 16, stride=2)(torch.randn(2, 3, 12, 8)).shape == (2, 16, 6, 4)


@pytest.mark.parametrize("name", sorted(set(list_blocks("stage")) & set(list_blocks("downsample"))))
def test_a_downsampling_is_one_unit(name: str) -> None:
    with pytest.raises(ValueError, match=r"^a downsampling has depth 1, not 3$"):
        get_block(name).build(16, 24, depth=3, stride=2)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in sorted(set(list_blocks("stage")) & set(list_blocks("downsample")))
        if get_block(name).depth == "inserted"  # the class itself makes the units
    ],
)
def test_only_the_first_unit_has_the_stride(name: str) -> None:
    block = get_block(name)
    module = block.module(16, 24, 3, *block.arguments(Place(16, 24, stride=2))).eval()
    with torch.no_grad():
        assert module(torch.randn(2, 16, 12, 8)).shape == (2, 24, 6, 4)


@pytest.mark.parametrize("name", sorted(set(list_blocks("attention")) - set(list_blocks("stage"))))
@pytest.mark.parametrize(("chs", "depth"), [(8, 1), (16, 6), (24, 3), (64, 2), (256, 1), (512, 1)])
def test_attention_keeps_the_map(name: str, chs: int, depth: int) -> None:
    block = build_block(name, chs, chs, depth)
    for height, width in [(7, 5), (4, 6), (1, 5), (1, 1)]:
        with torch.no_grad():
            output = block(torch.randn(2, chs, height, width))
        assert output.shape == (2, chs, height, width)
        assert output.isfinite().all()


@pytest.mark.parametrize("name", list_blocks("attention"))  # all but those that only downsample
def test_every_further_unit_adds_the_same_weights(name: str) -> None:
    one, two, three = (sum(p.numel() for p in build_block(name, 16, 16, depth).parameters()) for depth in (1, 2, 3))
    assert two > one
    assert three - two == two - one


@over_blocks
def test_it_learns_in_mixed_precision(name: str) -> None:
    in_chs, out_chs, depth, stride = cases(get_block(name))[0]
    block = build_block(name, in_chs, out_chs, depth, stride).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = block(torch.randn(2, in_chs, 7, 6))
    output.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@over_blocks
def test_in_bfloat16_it_computes_in_bfloat16(name: str) -> None:
    for in_chs, out_chs, depth, stride in cases(get_block(name)):
        block, image = build_block(name, in_chs, out_chs, depth, stride), torch.randn(2, in_chs, 7, 6)
        with torch.no_grad():
            expected, output = block(image), deepcopy(block).bfloat16()(image.bfloat16())
        assert output.dtype == torch.bfloat16
        assert (output.float() - expected).abs().max() < 0.1 * expected.abs().max()


@over_blocks
def test_onnxruntime_and_openvino_compute_the_same(name: str, tmp_path: Path) -> None:
    for case in cases(get_block(name)):
        in_chs, block = case[0], build_block(name, *case)
        for size in [(13, 9), (2, 5)] if case[3] == 2 else [(13, 9), (1, 5), (1, 1)]:
            path = tmp_path / "block.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as in evaluators/export.py, and fused as there
                torch.onnx.export(
                    fuse(block), (torch.randn(1, in_chs, *size),), str(path), opset_version=17, dynamo=False
                )
            image = torch.randn(1, in_chs, *size)  # what tracing saw must not have become a constant
            with torch.no_grad():
                expected = block(image).numpy()
            for run in (run_onnxruntime, run_openvino):
                np.testing.assert_allclose(run(path, image.numpy()), expected, rtol=1e-4, atol=1e-4)


def run_onnxruntime(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image})
    return output


def run_openvino(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    return openvino_core().compile_model(path, "CPU", hints)(image)[0]


@cache
def openvino_core() -> openvino.Core:
    return openvino.Core()

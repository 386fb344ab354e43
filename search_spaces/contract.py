"""What every block must do, checked before it may be searched; a block from outside is checked when it registers."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from search_spaces.activation import replace_activations
from search_spaces.block import Block, BlockError, Place

# PyTorch's operators for what a chosen activation replaces, without the mark of those that work in place.
ACTIVATION_OPERATORS = frozenset(
    {
        *("silu", "relu", "hardtanh", "leaky_relu", "hardswish", "gelu", "mish"),
        *("elu", "celu", "_prelu_kernel", "rrelu_with_noise"),
    }
)
SIZES = ((12, 8), (13, 9), (7, 7), (2, 5))


class ContractError(BlockError):
    """A block that breaks the contract: names the block, the check, and what was found."""


def check_block(block: Block) -> None:
    """Run every check on a few small cases, well under a second.

    Raises:
        ContractError: For the first check that fails.
    """
    for name, check in CHECKS.items():
        try:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(0)
                check(block)
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise ContractError(f"block {block.name!r} breaks the contract, check {name!r}: {text[:300]}") from error


def expect(condition: bool, message: str) -> None:
    """Raise `ContractError` with the message unless the condition holds."""
    if not condition:
        raise ContractError(message)


def randomise(module: nn.Module) -> nn.Module:
    """Give normalisations statistics and weights as after training: with the initial ones they are the identity."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.5)
    return module


def cases(block: Block) -> list[tuple[int, int, int, int]]:
    """Input width, output width, depth and stride of what is checked, as far as the block's roles allow."""
    found = []
    if "stage" in block.roles:
        found += [(16, 24, 2, 1), (24, 24, 1, 1), (40, 16, 1, 1)]
    if "downsample" in block.roles:
        found += [(16, 24, 1, 2), (16, 16, 1, 2)]
    if "attention" in block.roles:
        found += [(64, 64, 1, 1), (96, 96, 2, 1)]
    return found


def check_name(block: Block) -> None:
    """Model files tell blocks from values by an upper-case first letter."""
    for word in (block.module.__name__, block.name):
        expect(word[:1].isupper(), f"{word!r} must begin with an upper-case letter")
    expect(block.module.__name__.isidentifier(), f"{block.module.__name__!r} must be an identifier")
    expect(bool(block.roles), "it has no role")


def check_shape(block: Block) -> None:
    """Width as asked, resolution kept or halved (rounded up or down), also at odd sizes; everything finite."""
    for in_chs, out_chs, depth, stride in cases(block):
        module = randomise(block.build(in_chs, out_chs, depth, stride)).eval()
        for height, width in SIZES:
            with torch.no_grad():
                output = module(torch.randn(2, in_chs, height, width))
            allowed = [(-(-height // stride), -(-width // stride)), (height // stride, width // stride)]
            given = f"stride {stride}, {in_chs} to {out_chs} channels at {height}x{width}"
            expect(isinstance(output, Tensor), f"{given}: gives {type(output).__name__}, not a tensor")
            expect(output.shape[:2] == (2, out_chs), f"{given}: gives {output.shape[1]} channels")
            expect(tuple(output.shape[2:]) in allowed, f"{given}: gives {output.shape[2]}x{output.shape[3]}")
            expect(bool(output.isfinite().all()), f"{given}: gives values that are not finite")


def check_places(block: Block) -> None:
    """Narrow and wide, on a map of one pixel, in the neck and a widened stage; also without memory for weights."""
    if "stage" not in block.roles:
        return
    for place in (Place(8, 8, 2), Place(512, 512), Place(40, 24, 2, in_neck=True), Place(16, 32, 2, widen=2)):
        module = block.build_at(place).eval()
        with torch.no_grad():
            output = module(torch.randn(1, place.in_chs, 1, 1))
        given = f"{place.in_chs} to {place.width} channels at 1x1"
        expect(output.shape == (1, place.width, 1, 1), f"{given}: gives {tuple(output.shape)}")
    with torch.device("meta"), torch.no_grad():  # sizes are counted so, before anything is built
        output = block.build(16, 24, 2).eval()(torch.zeros(1, 16, 12, 8))
    expect(output.shape == (1, 24, 12, 8), f"on the meta device: gives {tuple(output.shape)}")


def check_gradient(block: Block) -> None:
    """A gradient reaches the input and every parameter."""
    for in_chs, out_chs, depth, stride in cases(block):
        module = randomise(block.build(in_chs, out_chs, depth, stride)).eval()  # while statistics follow the batch, a
        image = torch.randn(4, in_chs, 13, 9, requires_grad=True)  # shift before a normalisation has no effect
        output = module(image)
        (output * torch.randn_like(output)).sum().backward()
        named = [("the input", image), *module.named_parameters()]
        dead = [name for name, p in named if p.grad is None or not float(p.grad.abs().max()) > 0]
        expect(not dead, f"no gradient reaches {', '.join(dead[:3])}")


def check_state_dict(block: Block) -> None:
    """Weights saved and loaded give the same output, in another instance too."""
    for in_chs, out_chs, depth, stride in cases(block)[:1]:
        module, image = randomise(block.build(in_chs, out_chs, depth, stride)).eval(), torch.randn(1, in_chs, 13, 9)
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        other = block.build(in_chs, out_chs, depth, stride).eval()
        other.load_state_dict(torch.load(buffer, weights_only=True))
        with torch.no_grad():
            expect(torch.equal(module(image), other(image)), "another instance with the same weights gives another map")


def check_deepcopy(block: Block) -> None:
    """A copy computes the same and shares no weight: the moving average of a training is such a copy."""
    for in_chs, out_chs, depth, stride in cases(block)[:1]:
        module, image = randomise(block.build(in_chs, out_chs, depth, stride)).eval(), torch.randn(1, in_chs, 13, 9)
        copy = deepcopy(module)
        with torch.no_grad():
            expected = module(image)
            expect(torch.equal(copy(image), expected), "a copy gives another map")
            for parameter in copy.parameters():
                parameter.add_(1.0)
            expect(torch.equal(module(image), expected), "a copy shares weights")


def check_half(block: Block) -> None:
    """In half precision it computes in half precision, near the float32 result."""
    for in_chs, out_chs, depth, stride in cases(block):
        module, image = block.build(in_chs, out_chs, depth, stride).eval(), torch.randn(1, in_chs, 13, 9)
        with torch.no_grad():
            expected, output = module(image), deepcopy(module).half()(image.half())
        expect(output.dtype == torch.float16, f"half precision gives {output.dtype}")
        error = float((output.float() - expected).abs().max() / expected.abs().max().clamp(min=1e-3))
        expect(error < 0.05, f"half precision is off by {error:.1%} of the largest value")


def check_fuse(block: Block) -> None:
    """Fused, as for export and measurement, no batch normalisation is left and the output is the same."""
    for in_chs, out_chs, depth, stride in cases(block):
        module, image = randomise(block.build(in_chs, out_chs, depth, stride)).eval(), torch.randn(1, in_chs, 13, 9)
        fused = fuse(module)
        left = [name for name, part in fused.named_modules() if isinstance(part, nn.BatchNorm2d)]
        expect(not left, f"batch normalisation {left[:1]} is not part of an Ultralytics Conv and cannot be fused")
        with torch.no_grad():
            torch.testing.assert_close(fused(image), module(image), rtol=1e-3, atol=1e-3)


def check_flops(block: Block) -> None:
    """Fused, the operations that thop counts (as Ultralytics reports) are those that really run."""
    import thop
    from torch.utils.flop_counter import FlopCounterMode

    for in_chs, out_chs, depth, stride in cases(block):
        module, image = fuse(block.build(in_chs, out_chs, depth, stride).eval()), torch.randn(1, in_chs, 12, 8)
        counted, _ = thop.profile(deepcopy(module), inputs=[image], verbose=False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(image)
        run = counter.get_total_flops() / 2
        expect(counted == run, f"thop counts {counted:,.0f} multiply-adds, {run:,.0f} run: hold weights in nn modules")


def check_activation(block: Block) -> None:
    """An activation that a space chooses takes the place of all that it has: no other is computed any more."""
    for in_chs, out_chs, depth, stride in cases(block):
        for name, operator in (("ReLU", "relu"), ("SiLU", "silu")):
            module = block.build(in_chs, out_chs, depth, stride).eval()
            replace_activations([module], name)
            with torch.no_grad(), Operators() as seen:
                module(torch.randn(1, in_chs, 12, 8))
            left = sorted(seen.names & ACTIVATION_OPERATORS - {operator})
            expect(
                not left,
                f"with {name} it still computes {', '.join(left)}: hold each activation as a module of torch.nn",
            )


class Operators(TorchDispatchMode):
    """Notes which of PyTorch's operators run, however they are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name.removeprefix("aten::").removesuffix("_"))
        return func(*args, **(kwargs or {}))


def fuse(module: nn.Module) -> nn.Module:
    """A fused copy, by Ultralytics' own code."""
    from ultralytics.nn.tasks import BaseModel

    model = BaseModel()
    model.model = nn.Sequential(deepcopy(module))
    fused: nn.Module = model.fuse(verbose=False).model[0]
    return fused


CHECKS: dict[str, Callable[[Block], None]] = {
    "name": check_name,
    "shape": check_shape,
    "places": check_places,
    "gradient": check_gradient,
    "state_dict": check_state_dict,
    "deepcopy": check_deepcopy,
    "half precision": check_half,
    "fuse": check_fuse,
    "operations": check_flops,
    "activation": check_activation,
}

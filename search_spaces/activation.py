"""The activation of a whole network: what a space may choose from, and how it takes the place of what blocks have.

It is chosen for all layers at once, detection head included, and every runtime that nas-yolo measures with computes it.
A gate (sigmoid, hard sigmoid, softmax, tanh) is no activation in this sense, and stays.

Ultralytics has a key for this in its model files, which sets the class attribute `Conv.default_act` while it parses a
file. That reaches whatever takes its activation from there, not a block with one of its own, such as a GELU or
`RepConv`'s. So here the finished layers are changed, in whatever block they are, and Ultralytics' key is written only
into files that need nas-yolo for nothing, where it does the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Classes of `torch.nn`, and what they are built with. Darknet and the first Ultralytics YOLO leak 0.1.
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    **{"SiLU": (), "ReLU": (), "ReLU6": (), "LeakyReLU": (0.1,)},
    **{"Hardswish": (), "GELU": (), "Mish": ()},
}
DEFAULT = "SiLU"  # of Ultralytics, and of every block that says nothing else
REPLACED = (*ACTIVATIONS, "CELU", "ELU", "PReLU", "RReLU", "SELU")

# Held while Ultralytics parses a model file: it may change, for all threads, what a new `Conv` activates with.
parsing = threading.Lock()


def activation_classes() -> tuple[type[nn.Module], ...]:
    """The modules whose place a chosen activation takes."""
    from torch import nn

    return tuple(getattr(nn, name) for name in REPLACED)


def replace_activations(layers: Iterable[nn.Module], name: str) -> None:
    """Put one activation in the place of every other inside these layers.

    Layers that shared an instance share one afterwards, so that as many modules are left as Ultralytics' key leaves.

    Args:
        layers: Changed. One that is an activation itself stays: a row of a model file that names it means it.
        name: One of `ACTIVATIONS`.
    """
    from torch import nn

    new: dict[nn.Module, nn.Module] = {}
    for module, child, old in activations(layers):
        if old not in new:
            new[old] = getattr(nn, name)(*ACTIVATIONS[name])
        setattr(module, child, new[old])


def ultralytics_text(name: str) -> str:
    """The activation as Ultralytics' model files have it, e.g. `torch.nn.ReLU()`."""
    return f"torch.nn.{name}({', '.join(map(str, ACTIVATIONS[name]))})"


def activations(layers: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every activation inside the layers: the module that holds it, under which name, and itself."""
    classes = activation_classes()
    for layer in layers:
        for module in list(layer.modules()):
            for name, child in list(module._modules.items()):
                if isinstance(child, classes):
                    yield module, name, child

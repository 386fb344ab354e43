from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from search_spaces import hook
from search_spaces.parts import HEAD, parts_of
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space

FAMILIES = {"yolov8n": "yolov8n", "yolo11n": "yolo11n", "yolov9t": "yolov9t", "yolo26n": "yolo26n"}


@pytest.mark.parametrize("space", sorted(FAMILIES))
def test_parts_read_and_give_what_the_network_does(space: str) -> None:
    rng = np.random.default_rng(0)
    found = load_space(space)
    designs = [load_preset(FAMILIES[space])] + [found.architecture(found.sample(rng)) for _ in range(4)]
    for architecture in designs:
        network = hook.build(hook.model_file(architecture, 2)).eval()
        read: dict[int, list[int]] = {}
        gives: dict[int, int] = {}

        def note(number: int, read: Any = read, gives: Any = gives) -> Any:
            def hooked(module: Any, inputs: Any, output: Any) -> None:
                maps = inputs[0] if isinstance(inputs[0], list) else [inputs[0]]
                read[number] = [one.shape[1] for one in maps]
                gives[number] = output.shape[1] if isinstance(output, torch.Tensor) else 0

            return hooked

        for number, layer in enumerate(network.model):
            layer.register_forward_hook(note(number))
        network(torch.zeros(1, 3, 64, 64))
        parts = parts_of(architecture)
        learned = [n for n, layer in enumerate(network.model) if any(p.requires_grad for p in layer.parameters())]
        assert [n for part in parts.values() for n in part.layers] == learned
        for place, part in parts.items():
            assert part.place == place
            if place == HEAD:
                assert list(part.in_widths) == read[part.layers[0]]
            else:
                assert [sum(part.in_widths)] == read[part.layers[0]]
                assert part.width == gives[part.layers[-1]]


def test_two_rows_at_one_place_are_one_part() -> None:
    space = load_space("yolo11n")
    choices = space.choices_of(load_preset("yolo11n"))
    assert choices is not None
    architecture = space.architecture({**choices, "P3.block": "Conv", "P3.depth": 2})
    part = parts_of(architecture)["P3.block"]
    assert len(part.rows) == len(part.layers) == 2
    assert part.sources == ("P3.downsample",)
    assert part.shape != parts_of(load_preset("yolo11n"))["P3.block"].shape

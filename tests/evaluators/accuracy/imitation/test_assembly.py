from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluators.accuracy.batch_statistics import measure_statistics
from evaluators.accuracy.cpu_convolutions import prepare_for_cpu
from evaluators.accuracy.imitation.assembly import assemble
from evaluators.accuracy.imitation.body import outputs_of
from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.library import Library
from evaluators.accuracy.imitation.parent import Interfaces
from search_spaces import hook
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind, forms_of, kinds_of, largest_of
from search_spaces.parts import parts_of
from search_spaces.presets import load_preset
from search_spaces.space_file import load_space

from .conftest import images


def given(network: nn.Module) -> list[Tensor]:
    """The outputs as the loss gets them, with statistics measured on some images."""
    network = deepcopy(network)
    prepare_for_cpu(network)
    network.model[-1].training = True
    measure_statistics(network, [images(8)])
    network.eval()
    network.model[-1].training = True
    with torch.no_grad():
        return outputs_of(network(images(2, seed=1)))


def own_blocks(interfaces: Interfaces, largest: Architecture) -> Library:
    library = Library(interfaces)
    for place in parts_of(largest):
        library.add(Entry(interfaces, place, largest, 0))
    return library


def resized(architecture: Architecture, factor: float) -> Architecture:
    """So many times as wide, except at P5, where some families attend: what mixes channels cannot be made wider."""
    *stages, p5 = architecture.stages
    *levels, n5 = architecture.neck.levels
    p2, p3, p4 = (replace(stage, width=int(stage.width * factor)) for stage in stages)
    n3, n4 = (replace(level, width=int(level.width * factor)) for level in levels)
    neck = replace(architecture.neck, levels=(n3, n4, n5))
    return replace(architecture, stages=(p2, p3, p4, p5), neck=neck)


def test_the_parents_own_design_is_the_parent(family: Interfaces) -> None:
    parent = family.parent
    network = assemble(parent, parent.architecture, Library(family))
    theirs = parent.network.state_dict()
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, theirs[name]), name
    before = given(parent.network)
    assert all(torch.equal(one, other) for one, other in zip(given(network), before, strict=True))


def test_a_wider_design_begins_as_what_the_parent_computes(family: Interfaces) -> None:
    parent = family.parent
    wider = resized(parent.architecture, 1.5)
    network = assemble(parent, wider, own_blocks(family, wider))
    for mine, theirs in zip(given(network), given(parent.network), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-3, rtol=1e-3)


def test_a_design_between_is_a_slice_that_computes_the_same(family: Interfaces) -> None:
    parent = family.parent
    library = own_blocks(family, resized(parent.architecture, 2.0))
    network = assemble(parent, resized(parent.architecture, 1.5), library)
    for mine, theirs in zip(given(network), given(parent.network), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-3, rtol=1e-3)


def test_places_of_an_assembled_design_equal_their_entries(yolov8n: Interfaces) -> None:
    parent, space = yolov8n.parent, load_space("yolov8n")
    start = space.choices_of(parent.architecture)
    assert start is not None
    forms = forms_of(space, start, Kind("P3.block", "C2fGhost"), 0)
    library = own_blocks(yolov8n, parent.architecture)
    entry = Entry(yolov8n, "P3.block", forms[1], 0)
    library.add(entry)
    for form in forms[:4]:
        size = {name: start[name] for name in start if not name.startswith("P3.")}
        mine = space.choices_of(form)
        assert mine is not None
        design = space.architecture({**mine, **size, "P3.width": 64})
        network = assemble(parent, design, library)
        part = parts_of(design)["P3.block"]
        body, where = entry.form(design, part)
        expected = where.take(entry.weights)
        layer = network.model[part.layers[0]]
        units = nn.Sequential(*(layer.children() if type(layer) is nn.Sequential else [layer]))
        found = dict(units.named_parameters())
        assert expected
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        inputs = torch.rand(2, 64, 8, 8)
        assert torch.equal(units.train()(inputs), body.run(expected, inputs)[0])


def test_a_head_is_found_in_a_built_network_as_by_itself(family: Interfaces) -> None:
    largest = resized(family.parent.architecture, 1.5)
    design = family.parent.architecture
    part = parts_of(design)["detect"]
    network = hook.build(hook.model_file(design, family.parent.classes))
    alone, found = (Entry(family, "detect", largest, 0) for _ in range(2))
    layers = [network.model[layer] for layer in part.layers]
    _, expected = alone.form(design, part)
    body, where = found.form(design, part, layers)
    taken, theirs = where.take(found.weights), expected.take(alone.weights)
    assert taken.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in taken.items())
    assert body.shapes == {name: tuple(value.shape) for name, value in taken.items()}
    assert all(value.device.type == "cpu" for value in network.state_dict().values())


def test_what_is_missing_is_said(yolov8n: Interfaces) -> None:
    design = resized(yolov8n.parent.architecture, 0.5)
    library = Library(yolov8n)
    assert library.has(yolov8n.parent.architecture)
    assert not library.has(design)
    with pytest.raises(KeyError):
        assemble(yolov8n.parent, design, library)


def test_every_design_of_a_space_is_made_of_its_entries(family: Interfaces) -> None:
    parent = family.parent
    space = load_space({"yolov9": "yolov9t"}.get(parent.architecture.family, f"{parent.architecture.family}n"))
    start = space.choices_of(parent.architecture)
    assert start is not None
    kinds = kinds_of(space, start)
    library, rng = Library(family), np.random.default_rng(0)
    for _ in range(5):
        design = space.architecture(space.sample(rng))
        for place, part in parts_of(design).items():
            kind = Kind.of(place, design)
            assert kind in kinds
            if not parent.has(design, part) and not library.has_kind(kind):
                library.add(Entry(family, place, largest_of(space, start, kind), 0))
        assert library.has(design)
        assert all(torch.isfinite(output).all() for output in given(assemble(parent, design, library)))


def test_another_familys_parts_and_activations_are_not_the_parents(yolov8n: Interfaces) -> None:
    relu = replace(yolov8n.parent.architecture, activation="ReLU")
    assert not Library(yolov8n).has(relu)
    assert not Library(yolov8n).has(load_preset("yolo11n"))
    with pytest.raises(ValueError, match="of their own family and activation"):
        Entry(yolov8n, "P3.block", relu, 0)

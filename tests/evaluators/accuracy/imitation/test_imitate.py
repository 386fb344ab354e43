from __future__ import annotations

import math
from itertools import count, repeat

import pytest
import torch

from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.imitate import Task, imitate
from evaluators.accuracy.imitation.parent import Interfaces
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind, forms_of
from search_spaces.parts import parts_of
from search_spaces.space_file import load_space

from .conftest import images, make_parent


def forms(interfaces: Interfaces, place: str, block: str) -> list[Architecture]:
    """Of the parent's size, the largest, the smallest, and others."""
    space = load_space("yolov8n")
    start = space.choices_of(interfaces.parent.architecture)
    assert start is not None
    return forms_of(space, start, Kind(place, block), 0)


def error(entry: Entry, form: Architecture) -> float:
    with torch.no_grad():
        return float(entry.error(form, entry.interfaces.parent.look(images(8, seed=2))))


def test_the_parents_block_begins_as_the_parent_in_its_size_and_larger(yolov8n: Interfaces) -> None:
    designs = forms(yolov8n, "P3.block", "C2f")
    entry = Entry(yolov8n, "P3.block", designs[1], 0)
    assert max(error(entry, design) for design in designs[:2]) < 1e-6
    assert error(entry, designs[2]) > 0.01  # less than half as wide


@pytest.mark.parametrize(
    ("place", "block"),
    [("P3.block", "MBConv3"), ("P4.downsample", "GhostConv"), ("neck.P3.block", "FasterNet")],
)
def test_entries_learn_what_the_parent_does_in_all_widths(yolov8n: Interfaces, place: str, block: str) -> None:
    designs = forms(yolov8n, place, block)
    entry = Entry(yolov8n, place, designs[1], 0)
    before = [error(entry, design) for design in designs[:3]]
    found = imitate(yolov8n.parent, [Task(entry, designs[:3])], repeat(images(8)), 60, 0)
    after = [error(entry, design) for design in designs[:3]]
    assert sum(after) < 0.8 * sum(before)
    assert 0 <= found[0] < max(before)


def test_attention_that_the_parent_lacks_learns_to_change_nothing(yolov8n: Interfaces) -> None:
    designs = forms(yolov8n, "attention", "FocalModulation")
    entry = Entry(yolov8n, "attention", designs[1], 0)
    before = error(entry, designs[0])
    imitate(yolov8n.parent, [Task(entry, designs[:3])], repeat(images(8)), 60, 0)
    assert error(entry, designs[0]) < 0.5 * before


def test_a_narrower_head_says_more_and_more_what_the_parent_says() -> None:
    interfaces = make_parent("yolov8n")
    head = interfaces.parent.network.model[-1]
    with torch.no_grad():  # an untrained one says the same of everything, and is sure of nothing
        for layer in (*head.cv2, *head.cv3):
            layer[-1].weight *= 20.0
        for layer in head.cv3:
            layer[-1].bias += 10.0
    designs = forms(interfaces, "detect", "-")
    entry = Entry(interfaces, "detect", designs[1], 0)
    before = error(entry, designs[2])
    batches = (images(8, seed=seed) for seed in count(100))
    imitate(interfaces.parent, [Task(entry, [designs[2]])], batches, 80, 0)
    assert error(entry, designs[2]) < 0.8 * before


def test_an_entry_that_breaks_touches_no_other(yolov8n: Interfaces) -> None:
    designs = forms(yolov8n, "P4.block", "Conv")[:3]
    alone, beside, broken = (Entry(yolov8n, "P4.block", designs[1], 0) for _ in range(3))
    first = next(iter(broken.weights.values()))
    with torch.no_grad():
        first.fill_(math.nan)
    expected = imitate(yolov8n.parent, [Task(alone, designs)], repeat(images(4)), 8, 0)
    found = imitate(yolov8n.parent, [Task(beside, designs), Task(broken, designs)], repeat(images(4)), 8, 0)
    assert found[0] == expected[0]
    assert math.isnan(found[1])
    assert all(torch.equal(alone.weights[name], beside.weights[name]) for name in alone.weights)


def test_which_forms_an_entry_is_trained_in_is_its_own_matter(yolov8n: Interfaces) -> None:
    designs = forms(yolov8n, "P4.block", "Conv")
    others = forms(yolov8n, "P4.block", "MBConv3")
    alone, beside = (Entry(yolov8n, "P4.block", designs[1], 0) for _ in range(2))
    imitate(yolov8n.parent, [Task(alone, designs)], repeat(images(4)), 8, 0)
    other = Task(Entry(yolov8n, "P4.block", others[1], 0), others)
    imitate(yolov8n.parent, [other, Task(beside, designs)], repeat(images(4)), 8, 0)
    assert all(torch.equal(alone.weights[name], beside.weights[name]) for name in alone.weights)


def test_an_entry_trains_alike_in_a_group_and_after_its_forms_were_forgotten(
    yolov8n: Interfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    designs = forms(yolov8n, "P4.block", "GhostConv")
    kept, forgetful = (Entry(yolov8n, "P4.block", designs[1], 0) for _ in range(2))
    expected = imitate(yolov8n.parent, [Task(kept, designs)], repeat(images(4)), 8, 0)
    monkeypatch.setattr("evaluators.accuracy.imitation.entry.FORMS_KEPT", 1)
    head = forms(yolov8n, "detect", "-")
    tasks = [Task(Entry(yolov8n, "detect", head[1], 0), head[:2]), Task(forgetful, designs)]
    assert imitate(yolov8n.parent, tasks, repeat(images(4)), 8, 0)[1:] == expected
    assert all(torch.equal(kept.weights[name], forgetful.weights[name]) for name in kept.weights)


def test_forms_are_made_once_and_forgotten_when_others_were_used_since(
    yolov8n: Interfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.accuracy.imitation.entry.FORMS_KEPT", 2)
    designs = forms(yolov8n, "P4.block", "Conv")
    entry = Entry(yolov8n, "P4.block", designs[1], 0)
    largest, *others = (
        entry.form(design, parts_of(design)["P4.block"]) for design in (designs[1], designs[0], *designs[2:4])
    )
    again = [entry.form(design, parts_of(design)["P4.block"]) for design in (designs[1], *designs[2:4], designs[0])]
    assert again[0] is largest
    assert again[1] is others[1]
    assert again[2] is others[2]
    assert again[3] is not others[0]


def test_too_few_batches_are_refused(yolov8n: Interfaces) -> None:
    designs = forms(yolov8n, "P4.block", "Conv")
    with pytest.raises(ValueError, match="need as many batches"):
        imitate(yolov8n.parent, [Task(Entry(yolov8n, "P4.block", designs[1], 0), designs)], [images(4)], 2, 0)

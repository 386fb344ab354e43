from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluators.accuracy.checkpoints import load_checkpoint
from evaluators.accuracy.imitation import build
from evaluators.accuracy.imitation.assembly import assemble
from evaluators.accuracy.imitation.build import Workshop
from evaluators.accuracy.request import DeployedRequest, LibraryRequest
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind
from search_spaces.space import SearchSpace, values_of

KINDS = (Kind("P3.block", "Conv"), Kind("P4.block", "GhostConv"), Kind("P4.block", "C2f"))


@pytest.fixture
def request_(trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path) -> LibraryRequest:
    trained = trained_on_squares("yolov8")
    start = values_of(trained.architecture)
    choices = {name: (value,) for name, value in start.items()}
    choices |= {"P3.block": ("C2f", "Conv"), "P4.block": ("C2f", "GhostConv"), "P4.width": (32, 16)}
    return LibraryRequest(
        name="yolov8n",
        parent=trained.checkpoint,
        dataset=trained.dataset,
        imgsz=trained.imgsz,
        space=SearchSpace("small", trained.architecture.family, choices),
        start=start,
        folder=tmp_path / "library",
        images=tmp_path / "images",
        steps=4,
        batch=8,
        arguments=trained.arguments,
    )


def design(request: LibraryRequest) -> Architecture:
    return request.space.architecture({**request.start, "P3.block": "Conv", "P4.block": "GhostConv"})


def weights(workshop: Workshop) -> dict[str, torch.Tensor]:
    network = assemble(workshop.library.interfaces.parent, design(workshop.request), workshop.library)
    return dict(network.named_parameters())


def test_an_entry_is_made_once(request_: LibraryRequest) -> None:
    first = Workshop(request_)
    assert not first.library.has(design(request_))
    made = list(first.build(KINDS))
    assert {one.kind for one in made} == set(KINDS)
    assert all(one.seconds > 0 and 0 <= one.error < 5 for one in made)
    again = Workshop(request_)
    found = list(again.build(KINDS))
    assert [one.seconds for one in found] == [0.0] * 3
    assert {one.kind: one.error for one in found} == {one.kind: one.error for one in made}
    assert all(
        torch.equal(one, other) for one, other in zip(weights(first).values(), weights(again).values(), strict=True)
    )


def test_what_died_goes_on_and_comes_out_the_same(request_: LibraryRequest, tmp_path: Path) -> None:
    whole = Workshop(request_)
    list(whole.build(KINDS))
    elsewhere = replace(request_, folder=tmp_path / "elsewhere")
    next(Workshop(elsewhere).build(KINDS))  # and is never asked again
    files = set(elsewhere.folder.iterdir())
    assert len(files) == 1
    later = Workshop(elsewhere)
    assert sorted(one.seconds > 0 for one in later.build(KINDS)) == [False, True, True]
    assert {file.name for file in elsewhere.folder.iterdir()} == {file.name for file in request_.folder.iterdir()}
    assert all(
        torch.equal(one, other) for one, other in zip(weights(whole).values(), weights(later).values(), strict=True)
    )


def test_another_parent_data_size_or_training_is_another_library(request_: LibraryRequest, tmp_path: Path) -> None:
    kind = KINDS[:1]
    list(Workshop(request_).build(kind))
    saved = load_checkpoint(request_.parent)
    name = next(name for name, value in saved["ema"].items() if value.dim() == 4)
    saved["ema"][name] = saved["ema"][name] * 1.01
    torch.save(saved, tmp_path / "other.pt")
    others = [
        replace(request_, parent=tmp_path / "other.pt"),
        replace(request_, steps=3),
        replace(request_, seed=1),
        replace(request_, arguments={**request_.arguments, "fliplr": 0.25}),
    ]
    for number, other in enumerate(others, start=2):
        assert next(Workshop(other).build(kind)).seconds > 0
        assert len(list(request_.folder.iterdir())) == number


def test_an_entry_that_cannot_be_trained_is_in_no_design(
    request_: LibraryRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "imitate", lambda parent, tasks, *rest: [float("nan") for _ in tasks])
    workshop = Workshop(request_)
    assert all(one.error != one.error for one in workshop.build(KINDS))
    assert not workshop.library.has(design(request_))

"""Entries and scores as a search asks for them, and trainings that begin with entries, for real."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluators.accuracy import assembling
from evaluators.accuracy.assembling import fill_from_library, make_entries, score_designs
from evaluators.accuracy.checkpoints import load_checkpoint
from evaluators.accuracy.imitation.assembly import weights_at
from evaluators.accuracy.imitation.body import joined
from evaluators.accuracy.imitation.build import Workshop
from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.score import Scorer
from evaluators.accuracy.request import DeployedRequest, LibraryRequest, Parent, TrainingRequest
from evaluators.accuracy.training import train
from evaluators.evaluation import AssembledScore, Epoch, Failure, FirstWeights, LibraryEntry
from evaluators.host_lock import training as training_slot
from search_spaces import hook
from search_spaces.architecture import Architecture
from search_spaces.kinds import Kind
from search_spaces.parts import Part, parts_of
from search_spaces.space import SearchSpace, values_of

KINDS = (Kind("P3.block", "Conv"), Kind("P4.block", "GhostConv"))


@pytest.fixture
def trained(trained_on_squares: Callable[[str], DeployedRequest]) -> DeployedRequest:
    return trained_on_squares("yolov8")


@pytest.fixture
def request_(trained: DeployedRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibraryRequest:
    monkeypatch.setattr(assembling, "_kept", {})
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


def entries(request: LibraryRequest, kinds: Sequence[Kind] = KINDS) -> list[LibraryEntry]:
    found = list(make_entries(request, kinds))
    assert not any(isinstance(one, Failure) for one in found), found
    return [one for one in found if isinstance(one, LibraryEntry)]


def score(request: LibraryRequest, *designs: Architecture) -> list[AssembledScore]:
    found = list(score_designs(request, designs))
    assert not any(isinstance(one, Failure) for one in found), found
    return [one for one in found if isinstance(one, AssembledScore)]


def swapped(request: LibraryRequest) -> Architecture:
    return request.space.architecture({**request.start, "P3.block": "Conv", "P4.block": "GhostConv"})


def test_entries_are_made_once_and_found_again_for_nothing(
    request_: LibraryRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = entries(request_)
    assert [(one.place, one.block) for one in made] == [("P3.block", "Conv"), ("P4.block", "GhostConv")]
    assert all(one.seconds > 0 and one.error is not None and not one.problem for one in made)
    monkeypatch.setattr(assembling, "_kept", {})  # another process
    assert entries(request_) == [replace(one, seconds=0.0) for one in made]


@pytest.mark.parametrize("block", ["ConvNeXt", "Nothing"])
def test_a_kind_that_cannot_be_built_is_said_so_and_touches_no_other(
    block: str, request_: LibraryRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = Entry.form

    def refuse(entry: Entry, architecture: Architecture, part: Part) -> object:
        if architecture.places.get(part.place) == "ConvNeXt" and part.width == 16:
            raise ValueError("not so narrow")
        return form(entry, architecture, part)

    monkeypatch.setattr(Entry, "form", refuse)
    found = {one.block: one for one in entries(request_, [Kind("P4.block", block), *KINDS])}
    assert found[block].error is None
    assert found[block].problem.startswith(("ValueError: not so narrow", "UnknownNameError: "))
    assert all(found[kind.block].error is not None for kind in KINDS)


def test_an_error_that_is_no_number_is_none(request_: LibraryRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate = "evaluators.accuracy.imitation.build.imitate"
    monkeypatch.setattr(imitate, lambda parent, tasks, *rest: [math.nan for _ in tasks])
    assert [(one.error, one.problem) for one in entries(request_)] == [(None, "its error is not finite")] * 2


def test_a_parent_that_is_gone_is_a_failure(request_: LibraryRequest, tmp_path: Path) -> None:
    (failure,) = make_entries(replace(request_, parent=tmp_path / "gone.pt"), KINDS)
    assert isinstance(failure, Failure)
    assert "gone.pt" in failure.message


def test_the_score_of_the_parents_own_design_is_that_of_its_validation(
    request_: LibraryRequest, trained: DeployedRequest
) -> None:
    (own,) = score(request_, trained.architecture)
    validated = load_checkpoint(trained.checkpoint)["history"][-1]["map50_95"]
    assert own.map50_95 == pytest.approx(validated, abs=0.05)
    assert own.map50_95 > 0.1
    assert not request_.folder.exists()  # it needs nothing


def test_an_entry_that_is_missing_is_made_on_demand(request_: LibraryRequest) -> None:
    (scored,) = score(request_, swapped(request_))
    assert scored.map50_95 is not None
    assert len(list(request_.folder.iterdir())) == len(KINDS)
    assert [one.seconds for one in entries(request_)] == [0.0, 0.0]


def test_a_design_that_cannot_be_put_together_is_said_so_and_the_next_is_scored(
    request_: LibraryRequest, trained: DeployedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "evaluators.accuracy.imitation.build.imitate", lambda parent, tasks, *rest: [math.nan] * len(tasks)
    )
    failed, own = score(request_, swapped(request_), trained.architecture)
    assert (failed.map50_95, own.problem) == (None, "")
    assert failed.problem.startswith("KeyError")
    assert own.map50_95 is not None


def test_a_score_that_is_no_number_is_none(
    request_: LibraryRequest, trained: DeployedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scorer, "score", lambda *_: {"map50_95": math.nan})
    assert [(one.map50_95, one.problem) for one in score(request_, trained.architecture)] == [
        (None, "its score is not finite")
    ]


def build(design: Architecture) -> torch.nn.Module:
    torch.manual_seed(1)
    return hook.build(hook.model_file(design, 2))


def fill(request: LibraryRequest, network: torch.nn.Module, design: Architecture) -> FirstWeights:
    with training_slot() as slot:
        return fill_from_library(request, slot, network, design)


def learned(network: torch.nn.Module, part: Part) -> dict[str, torch.Tensor]:
    body = joined([network.model[layer] for layer in part.layers])  # type: ignore[index,union-attr]
    return {name: value for name, value in body.named_parameters() if value.requires_grad}


def test_a_network_is_filled_with_slices_of_entries_and_the_parents_weights(request_: LibraryRequest) -> None:
    design = request_.space.architecture({**request_.start, "P3.block": "Conv", "P4.width": 16})
    network = build(design)
    assert fill(request_, network, design) == FirstWeights(("library of yolov8n",), 1.0)
    workshop = Workshop(request_)
    parent, places = workshop.library.interfaces.parent, parts_of(design)
    missing = [Kind.of(place, design) for place, part in places.items() if not parent.has(design, part)]
    list(workshop.build(missing))
    assert Kind("P3.block", "Conv") in missing
    assert Kind("P2.block", "C2f") not in missing
    for part in places.values():
        layers = [build(design).model[layer] for layer in part.layers]  # type: ignore[index,union-attr]
        expected = weights_at(parent, design, part, workshop.library, layers)
        assert all(torch.equal(value, expected[name]) for name, value in learned(network, part).items())


def test_a_place_that_the_library_has_nothing_for_stays_as_it_is(request_: LibraryRequest) -> None:
    outside = request_.space.architecture({**request_.start, "P4.block": "GhostConv", "P3.width": 64})
    network, before = build(outside), build(outside)
    given = fill(request_, network, outside)
    assert given.parents == ("library of yolov8n",)
    assert 0 < given.share < 1
    wide, own = parts_of(outside)["P3.block"], parts_of(outside)["P2.block"]
    assert all(torch.equal(value, learned(before, wide)[name]) for name, value in learned(network, wide).items())
    assert not all(torch.equal(value, learned(before, own)[name]) for name, value in learned(network, own).items())


def training(
    trained: DeployedRequest, library: LibraryRequest | None, design: Architecture, folder: Path
) -> TrainingRequest:
    return TrainingRequest(
        *(design, trained.dataset, trained.imgsz, 1, 1, 0, folder / "checkpoint.pt", folder / "scratch"),
        images=folder.parent / "images",
        parents=(Parent("yolov8n", trained.checkpoint),),
        library=library,
        arguments={**trained.arguments, "lr0": 1e-9, "warmup_bias_lr": 0.0, "warmup_epochs": 0.0},
    )


def test_a_training_begins_with_the_library_and_says_so(
    request_: LibraryRequest, trained: DeployedRequest, tmp_path: Path
) -> None:
    design = swapped(request_)
    reports = list(train(training(trained, request_, design, tmp_path / "one")))
    weights = next(one for one in reports if isinstance(one, FirstWeights))
    assert weights == FirstWeights(("library of yolov8n", "yolov8n"), 1.0)
    assert isinstance(reports[-1], Epoch)
    network = build(design)
    fill(request_, network, design)
    after = load_checkpoint(tmp_path / "one" / "checkpoint.pt")["ema"]
    for name, value in network.named_parameters():
        assert torch.allclose(after[name], value, atol=1e-3), name  # it has hardly moved


def test_a_training_outside_the_library_inherits_what_that_lacks(
    request_: LibraryRequest, trained: DeployedRequest, tmp_path: Path
) -> None:
    outside = request_.space.architecture({**request_.start, "P4.block": "GhostConv", "P3.width": 64})
    both, inherited = (
        next(
            one
            for one in list(train(training(trained, library, outside, tmp_path / name)))
            if isinstance(one, FirstWeights)
        )
        for name, library in (("both", request_), ("inherited", None))
    )
    assert both.parents == ("library of yolov8n", "yolov8n")
    assert inherited.parents == ("yolov8n",)
    assert both.share >= inherited.share > 0
    saved = load_checkpoint(tmp_path / "both" / "checkpoint.pt")["ema"]
    random = build(outside).state_dict()
    wide = parts_of(outside)["P3.block"]
    names = [name for name in random if name.startswith(f"model.{wide.layers[0]}.") and random[name].dim() == 4]
    given = load_checkpoint(tmp_path / "inherited" / "checkpoint.pt")["ema"]
    assert names
    assert all(torch.allclose(saved[name], given[name], atol=1e-3) for name in names)

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from evaluators.accuracy.checkpoints import load_checkpoint
from evaluators.accuracy.imitation.assembly import assemble
from evaluators.accuracy.imitation.entry import Entry
from evaluators.accuracy.imitation.imitate import Task, imitate
from evaluators.accuracy.imitation.library import Library
from evaluators.accuracy.imitation.parent import Interfaces, ParentNetwork
from evaluators.accuracy.imitation.score import Scorer
from evaluators.accuracy.imitation.stream import training_batches
from evaluators.accuracy.request import DeployedRequest
from evaluators.accuracy.trainer import decode_images
from search_spaces import hook
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace, values_of


def test_batches_are_those_of_the_seed(trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path) -> None:
    request = trained_on_squares("yolov8")
    decoded = decode_images(request.dataset, request.imgsz, tmp_path)
    one, same, other = (
        list(islice(training_batches(decoded, request.dataset, request.imgsz, request.arguments, 8, seed), 12))
        for seed in (0, 0, 1)
    )
    assert one[0].shape == (8, 3, *request.imgsz.shape)
    assert 0 <= float(one[0].min()) < float(one[0].max()) <= 1
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[-1])


@pytest.mark.parametrize("name", ["yolov8", "yolo26"])
def test_a_block_that_learned_from_a_trained_parent_stands_in_for_it(
    name: str, trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path
) -> None:
    request = trained_on_squares(name)
    decoded = decode_images(request.dataset, request.imgsz, tmp_path)
    stream = training_batches(decoded, request.dataset, request.imgsz, request.arguments, 16, 0)
    statistics = list(islice(stream, 4))
    saved = load_checkpoint(request.checkpoint)
    architecture = Architecture.from_document(saved["architecture"])
    network = hook.build(hook.model_file(architecture, len(request.dataset.names)))
    network.load_state_dict(saved["ema"])
    parent = ParentNetwork(network, architecture, statistics)
    interfaces = Interfaces(parent, parent.measure_importance(statistics))
    arguments = decoded, request.dataset, request.imgsz, request.arguments, statistics
    scorer, partly = Scorer(*arguments, 40, tmp_path), Scorer(*arguments, 8, tmp_path)
    library = Library(interfaces)
    own = scorer.score(assemble(parent, architecture, library))
    assert own == scorer.score(assemble(parent, architecture, library))
    assert own["map50_95"] == pytest.approx(saved["history"][-1]["map50_95"], abs=0.05)
    assert partly.score(assemble(parent, architecture, library)) != own

    values = {choice: (value,) for choice, value in values_of(architecture).items()}
    space = SearchSpace("one", architecture.family, values)
    design = space.architecture({**values_of(architecture), "P3.block": "Conv"})
    entry = Entry(interfaces, "P3.block", design, 0)
    library.add(entry)
    before = scorer.score(assemble(parent, design, library))["map50_95"]
    imitate(parent, [Task(entry, [design])], stream, 80, 0)
    after = scorer.score(assemble(parent, design, library))["map50_95"]
    assert before < 0.5 * own["map50_95"]
    assert after > 0.65 * own["map50_95"]

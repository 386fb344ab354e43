from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.accuracy.fidelity import Fidelity
from evaluators.accuracy.request import TrainingRequest
from evaluators.dataset import Dataset
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset

IMAGES = 100


def fidelity(**changes: Any) -> Fidelity:
    document = {
        **{"architecture": load_preset("yolov8n"), "dataset": Dataset("", (), (), ("a",), IMAGES, IMAGES, "")},
        **{"imgsz": ImageSize(64, 64), "epochs": 12, "until": 12, "seed": 3, "checkpoint": Path(), "scratch": Path()},
    }
    return Fidelity(TrainingRequest(**{**document, **changes}), IMAGES)


def test_the_subset_grows_by_a_constant_factor_to_all_images_and_larger_ones_hold_smaller() -> None:
    drawn = fidelity(rungs=(2, 4, 8), subset=0.25)
    seen = [set(drawn.subset(epoch).tolist()) for epoch in range(12)]
    assert [len(images) for images in seen] == [25, 25, 50, 50, *[100] * 8]
    assert seen[0] == seen[1] < seen[2] == seen[3] < seen[4]
    assert seen[0] != set(range(25))  # not the first of the sorted files


def test_another_seed_draws_another_subset() -> None:
    one, other = (fidelity(rungs=(2, 4), subset=0.25, seed=seed) for seed in (3, 4))
    assert set(one.subset(0).tolist()) != set(other.subset(0).tolist())


@pytest.mark.parametrize("rungs", [(), (12,)])
def test_without_a_rung_below_the_last_every_epoch_sees_all_of_it(rungs: tuple[int, ...]) -> None:
    whole = fidelity(rungs=rungs, subset=0.25, small_imgsz=ImageSize(32, 32))
    assert {len(whole.subset(epoch)) for epoch in range(12)} == {IMAGES}
    assert {whole.imgsz(epoch) for epoch in range(12)} == {ImageSize(64, 64)}


def test_epochs_below_the_last_rung_train_at_the_small_size() -> None:
    small = fidelity(rungs=(2, 4, 12), small_imgsz=ImageSize(32, 32))
    assert [small.imgsz(epoch) for epoch in range(12)] == [*[ImageSize(32, 32)] * 4, *[ImageSize(64, 64)] * 8]


def test_an_epochs_order_is_its_own_and_covers_its_subset() -> None:
    drawn = fidelity(rungs=(2, 4), subset=0.25)
    assert sorted(drawn.order(0).tolist()) == list(range(25))
    assert not np.array_equal(drawn.order(0), drawn.order(1))

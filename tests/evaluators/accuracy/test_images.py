from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset

from evaluators.accuracy.decoded import decode, open_decoded
from evaluators.accuracy.images import DecodedImages, EpochBatches, TrainingImages, seed_augmentation
from evaluators.accuracy.training import prepare
from evaluators.dataset import Dataset, load_dataset
from evaluators.errors import TrainingError
from evaluators.evaluation import Failure
from search_spaces.image_size import ImageSize

IMGSZ = ImageSize(64, 64)
AUGMENTATION = {"mosaic": 0.8, "mixup": 0.5, "cutmix": 0.3, "degrees": 10.0, "flipud": 0.5}


@pytest.fixture(scope="module")
def dataset(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images of several shapes, larger and smaller than the image size."""
    folder = tmp_path_factory.mktemp("shapes")
    shutil.copytree(few_digits.parent, folder, dirs_exist_ok=True)
    for number, file in enumerate(sorted((folder / "images").rglob("*.png"))):
        image = cv2.imread(str(file))
        assert image is not None
        cv2.imwrite(str(file), cv2.resize(image, [(96, 96), (120, 50), (40, 100), (33, 30)][number % 4]))
    return load_dataset(folder / "data.yaml")


@pytest.fixture(scope="module")
def arguments(dataset: Dataset) -> dict[str, Any]:
    data = {"names": dict(enumerate(dataset.names)), "nc": len(dataset.names), "channels": 3}
    return {"imgsz": IMGSZ, "batch_size": 8, "hyp": get_cfg(overrides=AUGMENTATION), "data": data, "stride": 32}


@pytest.fixture(scope="module")
def home(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decode(dataset, IMGSZ, tmp_path_factory.mktemp("images"))


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    arrays = {name for name, value in one.items() if isinstance(value, (torch.Tensor, np.ndarray))}
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) if name in arrays else one[name] == other[name] for name in one
    )


def test_training_batches_equal_plain_ultralytics_for_the_same_order_and_seed(
    dataset: Dataset, arguments: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    shutil.copytree(Path(dataset.file).parent, tmp_path / "plain")  # it writes a cache beside the labels
    plain = YOLODataset(
        img_path=str(tmp_path / "plain/images/train"),
        augment=True,
        rect=False,
        pad=0.0,
        cache="ram",
        **arguments | {"imgsz": 64},
    )
    ours = TrainingImages(
        3, None, decoded=open_decoded(home), split="train", img_path="", augment=True, pad=0.0, **arguments
    )
    batches = EpochBatches(3, dataset.train_images, 8, 0)
    for epoch in range(2):
        for batch in batches:
            expected = []
            for _, image in batch:
                seed_augmentation(3, epoch, image)
                expected.append(plain[image] | {"im_file": ours.im_files[image]})
            assert equal(ours.collate_fn([ours[pick] for pick in batch]), plain.collate_fn(expected))


def test_validation_batches_equal_plain_ultralytics(
    dataset: Dataset, arguments: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    shutil.copytree(Path(dataset.file).parent, tmp_path / "plain")
    arguments = {**arguments, "batch_size": 4}
    plain = YOLODataset(
        img_path=str(tmp_path / "plain/images/val"), augment=False, rect=True, **arguments | {"imgsz": 64}
    )
    ours = DecodedImages(open_decoded(home), "val", img_path="", augment=False, rect=True, **arguments)
    assert len({tuple(shape) for shape in plain.batch_shapes.tolist()}) > 1
    assert np.array_equal(ours.batch_shapes, plain.batch_shapes)
    for number in range(len(plain)):
        assert equal(ours[number], plain[number] | {"im_file": ours.im_files[number]})


def test_every_epoch_sees_every_image_in_an_order_of_its_own_and_mosaics_end_when_they_should(
    dataset: Dataset, arguments: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = TrainingImages(
        3, 3, decoded=open_decoded(home), split="train", img_path="", augment=True, pad=0.0, **arguments
    )
    loaded: list[int] = []
    load = DecodedImages.load_image

    def note(self: DecodedImages, i: int, *more: Any) -> Any:
        loaded.append(i)
        return load(self, i, *more)

    monkeypatch.setattr(DecodedImages, "load_image", note)
    orders, counts = [], []
    batches = EpochBatches(3, dataset.train_images, 8, 0)
    for epoch in range(4):
        loaded.clear()
        picks = [pick for batch in batches for pick in batch]
        for pick in picks:
            ours[pick]
        assert {number for number, _ in picks} == {epoch}
        orders.append([image for _, image in picks])
        counts.append(len(loaded))
    assert [sorted(order) for order in orders] == [list(range(32))] * 4
    assert len(set(map(tuple, orders))) == 4
    assert min(counts[:3]) > 32
    assert counts[3] == 32


def test_images_that_would_not_fit_are_read_from_their_files(
    dataset: Dataset, arguments: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.accuracy.decoded.psutil.virtual_memory", lambda: SimpleNamespace(available=100_000))
    files = decode(dataset, IMGSZ, tmp_path)
    assert not (files / "pixels").exists()
    one, other = (
        TrainingImages(3, None, decoded=open_decoded(h), split="train", img_path="", augment=True, **arguments)
        for h in (home, files)
    )
    assert all(equal(one[0, number], other[0, number]) for number in range(8))


def test_several_at_once_decode_once_and_leave_the_users_folder_alone(dataset: Dataset, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in Path(dataset.file).parent.rglob("*")}
    with ThreadPoolExecutor(4) as pool:  # the lock is that of an open file: threads wait as processes do
        homes = list(pool.map(decode, [dataset] * 4, [IMGSZ] * 4, [tmp_path] * 4))
    assert len(set(homes)) == 1
    assert sorted(file.name for file in homes[0].iterdir()) == ["index.pickle", "pixels"]
    assert {file: file.stat().st_mtime_ns for file in Path(dataset.file).parent.rglob("*")} == before
    assert sorted(file.suffix for file in tmp_path.iterdir()) == ["", ".lock"]


def edit_label(folder: Path) -> None:
    label = next((folder / "labels/train").iterdir())
    digit = label.read_text()[0]
    label.write_text(str((int(digit) + 1) % 10) + label.read_text()[1:])


def repaint(folder: Path) -> None:
    image = next((folder / "images/val").iterdir())
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(content)


CHANGES: dict[str, Callable[[Path], object]] = {
    "an image is gone": lambda folder: next((folder / "images/train").iterdir()).unlink(),
    "a label is gone": lambda folder: next((folder / "labels/val").iterdir()).unlink(),
    "an image came": lambda folder: shutil.copy(
        next((folder / "images/train").iterdir()), folder / "images/train/new.png"
    ),
    "a label of the same size": edit_label,
    "pixels of the same size": repaint,
    "all is gone": shutil.rmtree,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_data_set_that_changes_or_disappears_is_refused(change: str, dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(Path(dataset.file).parent, folder)
    mine = load_dataset(folder / "data.yaml")
    assert list(prepare(mine, IMGSZ, tmp_path / "images")) == []
    CHANGES[change](folder)
    (failure,) = prepare(mine, IMGSZ, tmp_path / "images")
    assert isinstance(failure, Failure)
    assert failure.cause == "data_changed"
    said = "images or labels are gone: " if "gone" in change else "are not those that the search began with: "
    assert said in failure.message


def test_files_that_were_only_touched_are_not_refused(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(Path(dataset.file).parent, folder)
    mine = load_dataset(folder / "data.yaml")
    decoded = open_decoded(decode(mine, IMGSZ, tmp_path / "images"))
    for file in folder.rglob("*"):
        os.utime(file)
    decoded.check(mine)


def test_data_that_is_not_what_the_search_began_with_is_not_decoded(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="are not those that the search began with"):
        decode(replace(dataset, fingerprint="another"), IMGSZ, tmp_path)
    assert not list(tmp_path.glob("*/index.pickle"))

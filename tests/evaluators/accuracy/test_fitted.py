"""Images that are not square: where the label's box is, there the object is, whatever was done to the image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils.ops import scale_boxes

from evaluators.accuracy.decoded import decode, open_decoded
from evaluators.accuracy.fitted import FittedImages, fitted
from evaluators.accuracy.images import DecodedImages, TrainingImages, seed_augmentation
from evaluators.dataset import Dataset, load_dataset
from search_spaces.image_size import ImageSize

SIZES = (ImageSize(96, 64), ImageSize(64, 128))
SHAPES = ((128, 192), (200, 120), (100, 100), (30, 45), (90, 33), (64, 96))  # height and width, larger and smaller
GREY = 114  # of what is no image
PLAIN = {"mosaic": 0.0, "translate": 0.0, "scale": 0.0, "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "moved and scaled": {"translate": 0.2, "scale": 0.5},
    "mosaic": {"mosaic": 1.0},
    "mosaic, moved and scaled": {"mosaic": 1.0, "translate": 0.1, "scale": 0.5},
    "flipped": {"mosaic": 0.5, "fliplr": 0.5, "flipud": 0.5},
    "mixed": {"mosaic": 0.5, "mixup": 1.0},
    "cut": {"mosaic": 0.5, "cutmix": 1.0},
    "pasted, mirrored": {"mosaic": 0.5, "copy_paste": 1.0},
    "pasted, mixed": {"mosaic": 0.5, "copy_paste": 1.0, "copy_paste_mode": "mixup"},
}


def write(folder: Path, shapes: tuple[tuple[int, int], ...], polygons: bool = False) -> Dataset:
    """One red box on each dark image, its label as a box or as a polygon."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            height, width = shapes[number % len(shapes)]
            pixels = rng.integers(0, 40, (height, width, 3)).astype(np.uint8)
            w, h = (int(side * rng.uniform(0.25, 0.4)) for side in (width, height))
            x, y = int(rng.integers(1, width - w)), int(rng.integers(1, height - h))
            pixels[y : y + h, x : x + w] = (0, 0, 255)  # OpenCV has blue first
            cv2.imwrite(str(folder / "images" / split / f"{number:02d}.png"), pixels)
            corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
            numbers = [value for cx, cy in corners for value in (cx / width, cy / height)]
            if not polygons:
                numbers = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            line = f"0 {' '.join(f'{number:.6f}' for number in numbers)}\n"
            (folder / "labels" / split / f"{number:02d}.txt").write_text(line)
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [red]\n")
    return load_dataset(folder / "data.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("red")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return write(folder / "boxes", SHAPES)


@pytest.fixture(scope="module")
def polygons(folder: Path) -> Dataset:
    return write(folder / "polygons", SHAPES, polygons=True)


def arguments(**augmentation: Any) -> dict[str, Any]:
    data = {"names": {0: "red"}, "nc": 1, "channels": 3}
    return {"batch_size": 8, "hyp": get_cfg(overrides={**PLAIN, **augmentation}), "data": data, "stride": 32}


def training_images(dataset: Dataset, size: ImageSize, home: Path, **augmentation: Any) -> TrainingImages:
    """As a search trains on them."""
    given = {**arguments(**augmentation), "img_path": "", "augment": True}
    decoded = open_decoded(decode(dataset, size, home))
    return TrainingImages(3, 3, decoded=decoded, split="train", imgsz=size, **given)


def boxes_of(item: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Corners of the labels, in pixels."""
    height, width = item["img"].shape[1:]
    x, y, w, h = (item["bboxes"].numpy() * [width, height, width, height]).T
    return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)


def redness(item: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Where an image is red, which is a half where it was mixed with another."""
    red, green, _ = item["img"].numpy().astype(int)
    return red - green > 60


def check_boxes(item: dict[str, Any]) -> tuple[int, int]:
    """That every box holds red up to its edges; how many red pixels there are, and how many of them in no box."""
    red = redness(item)
    outside = red.copy()
    for left, top, right, bottom in boxes_of(item):
        outside[max(round(top) - 1, 0) : round(bottom) + 1, max(round(left) - 1, 0) : round(right) + 1] = False
        rows, columns = np.nonzero(red[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)])
        assert len(rows), "nothing in it"
        found = columns.min() + math.floor(left), rows.min() + math.floor(top)
        found += columns.max() + 1 + math.floor(left), rows.max() + 1 + math.floor(top)
        np.testing.assert_allclose(found, (left, top, right, bottom), atol=1.6)
    return int(red.sum()), int(outside.sum())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_boxes_lie_on_the_objects_after_every_augmentation(
    name: str, size: ImageSize, dataset: Dataset, polygons: Dataset, folder: Path
) -> None:
    labelled = polygons if "pasted" in name else dataset
    images = training_images(labelled, size, folder / "decoded", **AUGMENTATIONS[name])
    red = outside = boxes = 0
    for epoch, position in [(epoch, position) for epoch in range(4) for position in range(24)]:  # the last unmixed
        item = images[epoch, position]
        assert item["img"].shape == (3, size.height, size.width)
        found = check_boxes(item)
        red, outside, boxes = red + found[0], outside + found[1], boxes + len(item["bboxes"])
    assert boxes > 70
    assert outside < 0.02 * red  # of objects that are cut off but for less than a tenth, whose boxes are left out


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_validation_has_every_image_in_the_size_and_finds_back_to_the_original(
    size: ImageSize, dataset: Dataset, folder: Path
) -> None:
    given = {**arguments(), "img_path": "", "augment": False, "rect": False}
    images = DecodedImages(open_decoded(decode(dataset, size, folder / "decoded")), "val", imgsz=size, **given)
    for number, (height, width) in enumerate(SHAPES * 2):
        item = images[number]
        assert item["img"].shape == (3, size.height, size.width)
        assert item["ori_shape"] == (height, width)
        red, outside = check_boxes(item)
        assert red > 0
        assert outside == 0
        original = cv2.imread(item["im_file"])
        assert original is not None
        rows, columns = np.nonzero(original[..., 2] == 255)
        expected = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        boxes = scale_boxes(size.shape, boxes_of(item), item["ori_shape"], item["ratio_pad"])
        scale = min(size.height / height, size.width / width)
        np.testing.assert_allclose(boxes[0], expected, atol=1.1 / min(scale, 1))


def test_an_image_is_resized_once_to_what_fits(dataset: Dataset, folder: Path) -> None:
    size = SIZES[0]
    decoded = open_decoded(decode(dataset, size, folder / "decoded"))
    for file in decoded.splits["train"].places:
        original = cv2.imread(file)
        assert original is not None
        height, width = fitted(original.shape[:2], size)
        expected = cv2.resize(original, (width, height), interpolation=cv2.INTER_LINEAR)
        image, shape, resized = decoded.image("train", file) or pytest.fail("it is not there")
        assert (shape, resized) == (original.shape[:2], (height, width))
        assert np.array_equal(image, expected)


def test_a_mosaic_fills_the_size_with_images_as_large_as_in_validation(folder: Path) -> None:
    size = ImageSize(96, 64)
    wide = write(folder / "wide", ((128, 192),))  # of the size's shape, so that all of it is image
    images = training_images(wide, size, folder / "decoded", mosaic=1.0)
    alone = training_images(wide, size, folder / "decoded")
    sides = {tuple(np.round(alone[0, n]["bboxes"].numpy()[0, 2:] * [96, 64])) for n in range(24)}
    counts = set()
    for position in range(24):
        item = images[0, position]
        pixels = item["img"].numpy()
        assert not (pixels == GREY).all(axis=0).any()
        whole = [box for box in boxes_of(item) if min(box[:2]) > 0.5 and box[2] < 95.5 and box[3] < 63.5]
        found = {tuple(np.round([right - left, bottom - top])) for left, top, right, bottom in whole}
        assert found <= sides
        counts.add(len(whole))
    assert len(counts) > 1
    pasting = training_images(wide, size, folder / "decoded", mosaic=1.0, copy_paste=1.0, copy_paste_mode="mixup")
    paste = pasting.transforms[0].transforms[-1]  # has a mosaic of its own, from which objects are copied
    for position in range(24):
        other = paste.pre_transform(pasting.get_image_and_label(position))
        assert not (other["img"] == GREY).all(axis=2).any()


@pytest.mark.parametrize("shape", [(1300, 1625), (1, 4000), (4000, 1), (768, 1280), (333, 77), (64, 96)])
def test_an_image_fits_and_touches_two_sides(shape: tuple[int, int]) -> None:
    for size in (*SIZES, ImageSize(320, 192), ImageSize(640, 384), ImageSize(640, 32)):
        height, width = fitted(shape, size)
        assert 1 <= height <= size.height
        assert 1 <= width <= size.width
        assert height == size.height or width == size.width
        scale = min(size.height / shape[0], size.width / shape[1])
        assert abs(height - shape[0] * scale) < 1
        assert abs(width - shape[1] * scale) < 1


@pytest.mark.parametrize("cached", [None, "ram"])
def test_images_that_are_read_from_their_files_are_the_same(cached: str | None, dataset: Dataset, folder: Path) -> None:
    """As the full training has them, with Ultralytics' own caches."""
    size = SIZES[0]
    given = {**arguments(), "img_path": list(dataset.train), "augment": True, "cache": cached}
    images = FittedImages(size, **given)
    decoded = training_images(dataset, size, folder / "decoded")
    for number in range(24):
        seed_augmentation(3, 0, number)
        item = images[number]
        assert np.array_equal(item["img"], decoded[0, number]["img"])
        assert np.array_equal(item["bboxes"], decoded[0, number]["bboxes"])
    images.close_mosaic(get_cfg(overrides=PLAIN))
    assert images[0]["img"].shape == (3, 64, 96)


def test_squares_are_ultralytics_own(dataset: Dataset) -> None:
    augmentation = {"mosaic": 0.5, "mixup": 0.5, "scale": 0.5}
    given = {"img_path": list(dataset.train), "augment": True, "cache": "ram"}
    ours = FittedImages(ImageSize(96, 96), **arguments(**augmentation), **given)
    plain = YOLODataset(imgsz=96, **arguments(**augmentation), **given)
    for number in range(24):
        items = []
        for images in (ours, plain):
            seed_augmentation(number)
            items.append(images[number])
        assert np.array_equal(items[0]["img"], items[1]["img"])
        assert np.array_equal(items[0]["bboxes"], items[1]["bboxes"])

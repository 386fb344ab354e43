"""The embedded data set: detection of handwritten digits, made from the 1,797 real ones that scikit-learn carries."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

IMAGE_SIZE = 96
TRAIN_IMAGES, VAL_IMAGES = 512, 128
VERSION = 1  # of the composition: a new one gets a new folder

Image = NDArray[np.float64]


def write_digits(folder: Path, train: int = TRAIN_IMAGES) -> Path:
    """Write the data set in the Ultralytics layout, unless it is there; the path of its data YAML.

    Ten classes, 96×96 grey images with two to five digits of 18 to 44 pixels on textured backgrounds, 512 to train and
    128 to validate. The same everywhere and every time. Digits of the validation images never appear in training.

    Args:
        folder: Where to.
        train: Images to train on; of fewer than 512, the first.

    Source: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (CC BY 4.0).
    """
    name = f"digits-v{VERSION}" if train == TRAIN_IMAGES else f"digits-v{VERSION}-{train}"
    data_file = folder / name / "data.yaml"
    if data_file.exists():
        return data_file
    from PIL import Image as Pillow
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    shares = {"val": order[: len(order) // 5], "train": order[len(order) // 5 :]}
    unfinished = data_file.parent.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for seed, (split, count) in enumerate((("train", train), ("val", VAL_IMAGES))):
        rng = np.random.default_rng((VERSION, seed))
        for kind in ("images", "labels"):
            (unfinished / kind / split).mkdir(parents=True)
        for number in range(count):
            picks = rng.choice(shares[split], size=int(rng.integers(2, 6)), replace=False)
            canvas, labels = _compose(rng, digits.images[picks] / 16, digits.target[picks])
            grey = (canvas * 255).round().astype(np.uint8)
            Pillow.fromarray(grey).convert("RGB").save(unfinished / "images" / split / f"{number:04d}.png")
            (unfinished / "labels" / split / f"{number:04d}.txt").write_text("\n".join(labels) + "\n")
    document = {"train": "images/train", "val": "images/val", "names": {digit: str(digit) for digit in range(10)}}
    (unfinished / "data.yaml").write_text(yaml.safe_dump(document))
    unfinished.rename(data_file.parent)
    return data_file


def _compose(rng: np.random.Generator, digits: Image, classes: NDArray[np.int64]) -> tuple[Image, list[str]]:
    """One image, values in [0, 1], and its label lines."""
    canvas = _background(rng)
    taken: list[tuple[int, int, int, int]] = []
    labels = []
    for digit, number in zip(digits, classes, strict=True):
        rows, columns = np.nonzero(digit > 0.1)
        glyph = digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        height = int(rng.integers(18, 45))
        width = max(round(height * glyph.shape[1] / glyph.shape[0]), 8)
        for _ in range(20):
            top, left = int(rng.integers(0, IMAGE_SIZE - height + 1)), int(rng.integers(0, IMAGE_SIZE - width + 1))
            box = (top, left, top + height, left + width)
            if all(_overlap(box, other) == 0 for other in taken):
                break
        else:
            continue  # no room: this image has one digit less
        taken.append(box)
        ink = _resize(glyph, height, width) * rng.uniform(0.8, 1.0)
        patch = canvas[box[0] : box[2], box[1] : box[3]]
        shade = 1.0 if rng.random() < 0.5 else 0.0  # light or dark ink
        patch += ink * (shade - patch)
        centre = ((left + width / 2) / IMAGE_SIZE, (top + height / 2) / IMAGE_SIZE)
        size = (width / IMAGE_SIZE, height / IMAGE_SIZE)
        labels.append(f"{number} {centre[0]:.6f} {centre[1]:.6f} {size[0]:.6f} {size[1]:.6f}")
    return canvas.clip(0, 1), labels


def _background(rng: np.random.Generator) -> Image:
    """Smooth blotches around a middle grey, stripes, and grain."""
    blotches = _resize(rng.uniform(0.35, 0.65, size=(5, 5)), IMAGE_SIZE, IMAGE_SIZE)
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 20)
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE]
    stripes = 0.04 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    canvas: Image = blotches + stripes + rng.normal(0, 0.03, size=(IMAGE_SIZE, IMAGE_SIZE))
    return canvas


def _resize(image: Image, height: int, width: int) -> Image:
    """Bilinear, edges included."""
    rows = np.linspace(0, image.shape[0] - 1, height)
    columns = np.linspace(0, image.shape[1] - 1, width)
    across = np.stack([np.interp(columns, np.arange(image.shape[1]), row) for row in image])
    resized: Image = np.stack([np.interp(rows, np.arange(image.shape[0]), column) for column in across.T]).T
    return resized


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over the smaller area."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    return height * width / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))

"""Ultralytics with its hands off its user's files: it reads images and labels, and writes nothing beside them.

By itself it rewrites JPEGs that do not end as they should, keeps what it read of the labels in `.cache` files (pickles,
which it would also load from a folder that somebody else made), and takes a `.npy` file beside an image for the image,
which it overwrites or deletes if it is none. Here the first is only tried, and the others have folders of their own.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
from ultralytics.data import dataset, utils
from ultralytics.data.base import BaseDataset

LABELS, PIXELS = "labels", "pixels"


def install() -> None:
    """Put it in place for this process. Idempotent.

    Raises:
        RuntimeError: If this Ultralytics does these things in another way.
    """
    if isinstance(vars(BaseDataset).get("npy_files"), property):
        return
    for module, name in (
        (utils, "_replace_image"),
        (dataset, "load_dataset_cache_file"),
        (dataset, "save_dataset_cache_file"),
    ):
        if not hasattr(module, name):
            import ultralytics

            raise RuntimeError(
                f"Ultralytics {ultralytics.__version__} has no {name}: it might write to your images; install a "
                "version that nas-yolo's constraints.txt names"
            )
    load, save = dataset.load_dataset_cache_file, dataset.save_dataset_cache_file

    def load_elsewhere(path: Path) -> Any:
        return load(_elsewhere(LABELS, path))

    def save_elsewhere(prefix: str, path: Path, content: dict[str, Any], version: str) -> None:
        save(prefix, _elsewhere(LABELS, path), content, version)

    utils._replace_image = _only_try
    dataset.load_dataset_cache_file = load_elsewhere
    dataset.save_dataset_cache_file = save_elsewhere
    BaseDataset.npy_files = property(_npy_files, _set_npy_files)


def _only_try(file: str | Path, write: Callable[[str], Any]) -> None:
    """Whether a JPEG can be written anew tells whether it can be read; an error says that it cannot."""
    with tempfile.TemporaryDirectory(prefix="nas-yolo-") as folder:
        write(str(Path(folder) / Path(file).name))


def _elsewhere(kind: str, path: Path) -> Path:
    """A file of ours for what Ultralytics would write at this path."""
    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:32]}{path.suffix}"


def _npy_files(images: BaseDataset) -> list[Path]:
    files: list[Path] = images.__dict__["npy_files"]
    return files


def _set_npy_files(images: BaseDataset, paths: list[Path]) -> None:
    # By the image's own path: pictures of one name and two kinds must not share a file.
    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / PIXELS
    folder.mkdir(parents=True, exist_ok=True)
    files = [hashlib.sha256(str(file).encode(errors="surrogateescape")).hexdigest()[:32] for file in images.im_files]
    images.__dict__["npy_files"] = [folder / f"{name}.npy" for name in files]

"""Ultralytics reads a folder in this process and changes nothing in it; what it does alone is shown beside."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data import dataset, utils
from ultralytics.data.base import BaseDataset
from ultralytics.data.dataset import YOLODataset

from evaluators import user_files

user_files.install()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in "abc":
        image, label = (tmp_path / f"set/{kind}/{name}" for kind in ("images", "labels"))
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 48), 50).convert("RGB").save(image.with_suffix(".jpg"))
        label.with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with open(tmp_path / "set/images/a.jpg", "ab") as file:
        file.write(b"\0\0")
    np.save(tmp_path / "set/images/b.npy", np.ones((64, 64), np.float32))
    (tmp_path / "set/images/c.npy").write_text("no array")
    (tmp_path / "set/labels.cache").write_bytes(b"\x80\x04c__builtin__\neval\n.")
    return tmp_path / "set"


def content(folder: Path) -> dict[str, Any]:
    files = sorted(folder.rglob("*"))
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"") for file in files}


def read(folder: Path, cache: Any = False) -> YOLODataset:
    data = {"names": {0: "red"}, "nc": 1, "channels": 3}
    images = YOLODataset(
        img_path=str(folder / "images"), data=data, augment=False, imgsz=64, cache=cache, hyp=get_cfg()
    )
    for number in range(len(images)):
        image = images.load_image(number)[0]
        assert image.shape == (48, 64, 3)
        assert 90 < image.mean() < 160  # the picture, not the array of ones beside it
    return images


@pytest.mark.parametrize("cache", [False, "disk", "ram"])
def test_no_byte_is_written(folder: Path, cache: Any) -> None:
    before = content(folder)
    for _ in range(2):  # the second time with caches of its own
        images = read(folder, cache)
        assert [Path(file).name for file in images.im_files] == ["a.jpg", "b.jpg", "c.jpg"]
    assert content(folder) == before
    assert all(file.exists() == (cache == "disk") for file in images.npy_files)
    assert list((folder.parent / "cache/nas-yolo/labels").glob("*.cache"))


def test_plain_ultralytics_would(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing was shown above."""
    before = content(folder)
    monkeypatch.setattr(utils, "_replace_image", lambda file, write: write(str(file)))
    utils.check_image(str(folder / "images/a.jpg"))
    assert content(folder) != before


def test_a_cut_jpeg_is_still_refused(folder: Path) -> None:
    file = folder / "images/a.jpg"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(OSError, match="truncated"):
        utils.check_image(str(file))


def test_installing_twice_changes_nothing() -> None:
    before = utils._replace_image, dataset.load_dataset_cache_file, BaseDataset.npy_files
    user_files.install()
    assert before == (utils._replace_image, dataset.load_dataset_cache_file, BaseDataset.npy_files)


def test_an_ultralytics_that_works_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(BaseDataset, "npy_files")
    monkeypatch.delattr(utils, "_replace_image")
    with pytest.raises(RuntimeError, match="has no _replace_image: it might write to your images"):
        user_files.install()


def test_pictures_of_one_name_do_not_share_a_file(folder: Path) -> None:
    shutil.copy(folder / "images/a.jpg", folder / "images/a.png")
    images = read(folder)
    assert len(set(images.npy_files)) == 4

"""Every layout that people make, read by us and by plain Ultralytics: the same images, the same boxes, or a refusal.

Plain Ultralytics runs in a process of its own, on a copy, since it writes to what it reads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from ultralytics.data.base import BaseDataset

from evaluators.accuracy.read_images import ReadImages
from evaluators.dataset import DatasetError, load_dataset
from evaluators.image_files import find_images
from search_spaces.image_size import ImageSize

PLAIN = """
import json, os, sys
from pathlib import Path
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import LOGGER, SETTINGS
import ultralytics.data.utils as utils

LOGGER.setLevel("CRITICAL")
utils.check_font = lambda font: None
found = {}
for name, (folder, file, cwd, options) in json.load(sys.stdin).items():
    os.chdir(cwd)
    try:
        data = check_det_dataset(file, autodownload=False)
        if options.get("single_cls"):
            data["names"], data["nc"] = {0: "item"}, 1
        found[name] = {"names": list(data["names"].values())}
        for split in ("train", "val"):
            images = YOLODataset(img_path=data[split], data=data, augment=False, imgsz=64, **options)
            found[name][split] = [
                [os.path.relpath(label["im_file"], folder), label["cls"].tolist(), label["bboxes"].tolist(),
                 [segment.tolist() for segment in label["segments"]], images.load_image(number)[0].tolist()]
                for number, label in enumerate(images.labels)
            ]
    except Exception as error:
        found[name] = {"error": f"{type(error).__name__}: {error}"}
print("found " + json.dumps(found))
"""
BOX, OTHER = "0 0.5 0.5 0.5 0.375\n", "1 0.25 0.25 0.1 0.2\n"


def write(root: Path, name: str, label: str | None = BOX, kind: str = "png", at: str = "images") -> None:
    image = root / at / f"{name}.{kind}"
    image.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(name.encode()))
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(image, {"JPG": "jpeg"}.get(kind))
    if label is not None:
        text = root / at.replace("images", "labels") / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(label)


def base(root: Path) -> dict[str, Any]:
    for name in ("train/a", "train/b", "val/c"):
        write(root, name)
    write(root, "train/d", OTHER + BOX)
    write(root, "train/e", None)
    return {"train": "images/train", "val": "images/val", "names": ["red", "blue"]}


LAYOUTS: dict[str, Callable[[Path], dict[str, Any]]] = {}
OPTIONS: dict[str, dict[str, Any]] = {}
WHERE: dict[str, str] = {}  # the working directory, from the data set's folder


def layout(
    make: Callable[[Path], dict[str, Any]] | None = None, cwd: str = ".", **options: Any
) -> Callable[[Path], dict[str, Any]] | Any:
    """Registers a layout under its function's name."""
    if make is None:
        return lambda function: layout(function, cwd, **options)
    LAYOUTS[make.__name__] = make
    OPTIONS[make.__name__], WHERE[make.__name__] = options, cwd
    return make


@layout
def plain(root: Path) -> dict[str, Any]:
    return base(root)


@layout(cwd="/")
def from_another_folder(root: Path) -> dict[str, Any]:
    return base(root)


@layout
def path_is_here(root: Path) -> dict[str, Any]:
    return base(root) | {"path": "./"}


@layout
def path_is_the_same_folder(root: Path) -> dict[str, Any]:
    return base(root) | {"path": f"../{root.name}"}


@layout(cwd="..")
def path_from_above(root: Path) -> dict[str, Any]:
    return base(root) | {"path": root.name}


@layout
def path_is_absolute(root: Path) -> dict[str, Any]:
    return base(root) | {"path": str(root)}


@layout
def path_is_empty(root: Path) -> dict[str, Any]:
    return base(root) | {"path": ""}


@layout
def roboflow(root: Path) -> dict[str, Any]:
    for split in ("train", "valid"):
        write(root, f"{split}/images/a", None)
        text = root / split / "labels/a.txt"
        text.parent.mkdir(parents=True)
        (root / "images" / split / "images").rename(root / split / "images")
        text.write_text(BOX)
    return {"train": "../train/images", "val": "../valid/images", "nc": 2, "names": ["red", "blue"], "roboflow": {}}


@layout
def validation(root: Path) -> dict[str, Any]:
    document = base(root)
    return document | {"validation": document.pop("val")}


@layout
def numbers_as_text(root: Path) -> dict[str, Any]:
    return base(root) | {"nc": "2", "names": {"0": "red", "1": "blue"}}


@layout
def numbers_as_floats(root: Path) -> dict[str, Any]:
    return base(root) | {"nc": 2.0, "names": {1: 7, 0: True}}


@layout
def only_a_number(root: Path) -> dict[str, Any]:
    return base(root) | {"nc": 2, "names": None}


@layout
def hidden_files(root: Path) -> dict[str, Any]:
    document = base(root)
    for hidden in ("._a.png", ".DS_Store.jpg", ".cache/a.png", "@eaDir/a.png"):
        file = root / "images/train" / hidden
        file.parent.mkdir(exist_ok=True)
        shutil.copy(root / "images/train/a.png", file)
    return document


@layout
def upper_case(root: Path) -> dict[str, Any]:
    document = base(root)
    for kind in ("PNG", "JPG", "jpeg", "bmp", "webp", "tiff"):
        write(root, f"train/upper-{kind}", kind=kind)
    write(root, "train/a.b", kind="png")
    return document


@layout
def order_of_names(root: Path) -> dict[str, Any]:
    document = base(root)
    for name in ("train/a-b/x", "train/a/x", "train/B/x", "train/a/deep/er/x"):
        write(root, name)
    return document


@layout
def links_to_files(root: Path) -> dict[str, Any]:
    document = base(root)
    (root / "images/train/link.png").symlink_to(root / "images/val/c.png")
    (root / "labels/train/link.txt").symlink_to(root / "labels/val/c.txt")
    return document


@layout
def links_to_folders(root: Path) -> dict[str, Any]:
    write(root, "a", at="elsewhere/images")
    write(root, "b", at="elsewhere/images")
    document = base(root)
    (root / "images/train/more").symlink_to(root / "elsewhere/images")
    (root / "labels/train/more").symlink_to(root / "elsewhere/labels")
    (root / "linked").symlink_to(root / "elsewhere")
    return document | {"train": ["images/train", "linked/images"]}


@layout(cwd="..")
def the_data_file_is_a_link(root: Path) -> dict[str, Any]:
    (root / "data.yaml").symlink_to(root.parent / f"{root.name}.yaml")
    return base(root)


@layout
def lists(root: Path) -> dict[str, Any]:
    document = base(root)
    lines = ["./images/train/b.png", str(root / "images/train/a.png"), "", "notes.md", "./images/train/a.png"]
    (root / "train.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    (root / "val.txt").write_text("./images/val/c.png\n")
    return document | {"train": "train.txt", "val": ["val.txt"]}


@layout
def a_list_from_where_one_stands(root: Path) -> dict[str, Any]:
    document = base(root)
    (root / "train.txt").write_text("images/train/a.png\n")
    return document | {"train": "train.txt"}


@layout
def several_folders_that_overlap(root: Path) -> dict[str, Any]:
    document = base(root)
    write(root, "train/deep/x")
    return document | {"train": ["images/train", "images/train/deep"]}


@layout
def labels_beside_images(root: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        write(root, f"{split}/a", None, at="photos")
        (root / "photos" / split / "a.txt").write_text(BOX)
    return {"train": "photos/train", "val": "photos/val", "names": ["red"]}


@layout
def bytes_before_the_labels(root: Path) -> dict[str, Any]:
    document = base(root)
    (root / "labels/train/a.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.5 0.25\r\n\r\n1 .5 .5 .1 .1 \r\n")
    return document


@layout
def repeated_rows(root: Path) -> dict[str, Any]:
    document = base(root)
    (root / "labels/train/a.txt").write_text(BOX + OTHER + BOX + BOX)
    return document


@layout
def key_points(root: Path) -> dict[str, Any]:
    row = "0 0.71875 0.460938 0.375 0.390625 0.6250 0.4609 0.8125 0.4609\n"
    for name in ("train/a", "val/b"):
        write(root, name, row + "1 0.5 0.5 0.5 0.375 0.375 0.5 0.625 0.5\n")
    write(root, "train/c")
    return {"train": "images/train", "val": "images/val", "names": ["red", "blue"], "kpt_shape": [2, 2]}


@layout
def key_points_without_a_word(root: Path) -> dict[str, Any]:
    document = key_points(root)
    (root / "labels/train/c.txt").unlink()
    return {key: value for key, value in document.items() if key != "kpt_shape"}


@layout
def polygons(root: Path) -> dict[str, Any]:
    document = base(root)
    (root / "labels/train/a.txt").write_text("1 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4\n0 0.1 0.1 0.9 0.2 0.5 0.8\n")
    return document


@layout
def only_polygons(root: Path) -> dict[str, Any]:
    for name in ("train/a", "val/b"):
        write(root, name, "1 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4\n0 0.1 0.1 0.9 0.2 0.5 0.8\n")
    return {"train": "images/train", "val": "images/val", "names": ["red", "blue"]}


@layout(single_cls=True)
def one_class(root: Path) -> dict[str, Any]:
    return base(root)


@layout(classes=[0])
def some_classes(root: Path) -> dict[str, Any]:
    return base(root)


@layout(classes=[1, 0], single_cls=True)
def some_classes_as_one(root: Path) -> dict[str, Any]:
    return base(root)


@layout
def a_depth_map_beside_a_picture(root: Path) -> dict[str, Any]:
    document = base(root)
    np.save(root / "images/other.npy", np.zeros((24, 32), np.float32))
    return document


@layout
def jpegs_with_bytes_behind_their_end(root: Path) -> dict[str, Any]:
    document = base(root)
    Image.new("RGB", (32, 24), (200, 30, 30)).save(root / "images/train/a.jpg")
    with open(root / "images/train/a.jpg", "ab") as file:
        file.write(b"\0\0")
    return document


@layout
def unreadable(root: Path) -> dict[str, Any]:
    document = base(root)
    (root / "images/train/empty.jpg").touch()
    (root / "images/train/page.jpg").write_text("<html></html>")
    (root / "images/train/folder.jpg").mkdir()
    Image.new("RGB", (8, 8)).save(root / "images/train/small.png")
    whole = root / "images/train/half.jpg"
    Image.effect_noise((32, 24), 99).convert("RGB").save(whole)
    whole.write_bytes(whole.read_bytes()[:500])
    (root / "labels/train/b.txt").write_text(BOX + "1 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4\n")
    (root / "labels/train/d.txt").write_text("2 0.5 0.5 0.1 0.1\n")
    return document


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Each layout's data file, and what plain Ultralytics reads from a copy of it."""
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    jobs, files = {}, {}
    for name, make in LAYOUTS.items():
        for place in (ours, theirs):
            root = place / name
            root.mkdir()
            document = make(root)
            file = place / f"{name}.yaml" if (root / "data.yaml").is_symlink() else root / "data.yaml"
            file.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
        files[name] = ours / name / "data.yaml"
        jobs[name] = (str(theirs / name), str(theirs / name / "data.yaml"), WHERE[name], OPTIONS[name])
        jobs[name] = (*jobs[name][:2], os.path.join(theirs / name, WHERE[name]), OPTIONS[name])
    run = subprocess.run(
        [sys.executable, "-c", PLAIN], input=json.dumps(jobs), capture_output=True, text=True, check=False
    )
    line = next((line for line in run.stdout.splitlines() if line.startswith("found ")), None)
    assert line, run.stderr
    return {name: (files[name], result) for name, result in json.loads(line.removeprefix("found ")).items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_images_boxes_and_pixels(
    name: str, found: dict[str, tuple[Path, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, expected = found[name]
    root = file.parent
    monkeypatch.chdir(os.path.join(root, WHERE[name]))
    before = snapshot(root)
    if name == "a_list_from_where_one_stands":
        with pytest.raises(DatasetError, match="must be absolute or begin with"):
            load_dataset(file, skip_bad=True)
        return
    dataset = load_dataset(file, skip_bad=True, **OPTIONS[name])
    assert "error" not in expected
    assert list(dataset.names) == expected["names"]
    monkeypatch.chdir("/")
    for split in ("train", "val"):
        images = ReadImages(dataset, split, augment=False, imgsz=ImageSize(64, 64))
        read = [
            [
                os.path.relpath(label["im_file"], root),
                label["cls"].tolist(),
                label["bboxes"].tolist(),
                [segment.tolist() for segment in label["segments"]],
                images.load_image(number)[0],
            ]
            for number, label in enumerate(images.labels)
        ]
        assert [row[:4] for row in read] == [row[:4] for row in expected[split]]
        for (_, *_, ours), (*_, theirs) in zip(read, expected[split], strict=True):
            # Ultralytics compresses a JPEG that it rewrites once more.
            assert np.abs(ours.astype(int) - np.array(theirs)).max() <= (3 if "jpegs" in name else 0)
        assert getattr(dataset, f"{split}_images") == len(read)
    assert snapshot(root) == before


def test_plain_ultralytics_reads_every_layout(found: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    assert {name: result["error"] for name, (_, result) in found.items() if "error" in result} == {}


def snapshot(root: Path) -> dict[str, Any]:
    """Every file's bytes and times."""
    return {
        str(file.relative_to(root)): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"")
        for file in sorted(root.rglob("*"))
    }


names = st.sampled_from(["a", ".a", "a-b", "A", "images", "x.y", "ü"])
suffixes = st.sampled_from([".png", ".JPG", ".jpeg", ".gif", ".txt", "", ".tar.png", ".png "])
trees = st.recursive(
    st.none(),
    lambda inside: st.dictionaries(st.tuples(names, suffixes).map("".join), inside, max_size=4),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


def plant(tree: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    for name, inside in tree.items():
        if inside is None:
            (folder / name).touch()
        else:
            plant(inside, folder / name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees, linked=st.booleans())
def test_the_same_files_in_any_tree(tree: dict[str, Any], linked: bool, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    plant(tree, root)
    shutil.rmtree(tmp_path / "more", ignore_errors=True)
    plant({"l.png": None}, tmp_path / "more")
    if linked:
        (root / "link").symlink_to(tmp_path / "more")
    reader = object.__new__(BaseDataset)
    reader.prefix, reader.fraction = "", 1.0
    try:
        expected = reader.get_img_files([str(root)])
    except FileNotFoundError:
        expected = []
    assert find_images([str(root)]).images == expected

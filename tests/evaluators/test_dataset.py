from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset, img2label_paths

from evaluators.dataset import IMAGE_SUFFIXES, Dataset, DatasetError, label_file, load_dataset
from search_spaces import UserError

LABELS = {
    "train/a": "0 0.5 0.5 0.2 0.4\n1 0.25 0.25 0.1 0.1\n",
    "train/b": "1 0.1 0.1 0.9 0.2 0.5 0.8\n",  # a polygon
    "train/c": "",  # background, with a file
    "val/d": "0 1.0 1.0 0.0 1.0\n\n",
    "val/e": None,  # background, without
}


def write_dataset(root: Path) -> Path:
    """Three images to train, two to validate, two classes; the data YAML's path."""
    for name, text in LABELS.items():
        image, labels = root / "images" / f"{name}.png", root / "labels" / f"{name}.txt"
        image.parent.mkdir(parents=True, exist_ok=True)
        labels.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 8), (ord(name[-1]), 0, 0)).save(image)
        if text is not None:
            labels.write_text(text)
    write_document(root / "data.yaml")
    return root / "data.yaml"


def write_document(file: Path, **changed: Any) -> None:
    """The data YAML with some keys changed, or removed where the value is None."""
    document = {"train": "images/train", "val": "images/val", "names": {0: "cat", 1: "dog"}} | changed
    file.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "set")


def refusal(file: str | Path) -> str:
    """What `load_dataset` says: one line."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(file)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_what_is_there(data: Path) -> None:
    dataset = load_dataset(str(data))
    assert dataset.file == str(data)
    assert dataset.train == (str(data.parent / "images/train"),)
    assert dataset.val == (str(data.parent / "images/val"),)
    assert dataset.names == ("cat", "dog")
    assert (dataset.train_images, dataset.val_images) == (3, 2)
    assert len(dataset.fingerprint) == 16


def test_document_round_trip(data: Path) -> None:
    dataset = load_dataset(data)
    assert Dataset.from_document(json.loads(json.dumps(dataset.document()))) == dataset


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"names": ["cat", "dog"]}, ("cat", "dog")),
        ({"names": ["cat", "dog"], "nc": 2}, ("cat", "dog")),
        ({"names": {1: "dog", 0: "cat"}}, ("cat", "dog")),
        ({"names": ["cat", 7, "dog"]}, ("cat", "7", "dog")),
        ({"names": None, "nc": 3}, ("class_0", "class_1", "class_2")),
    ],
)
def test_forms_of_names(changed: dict[str, Any], names: tuple[str, ...], data: Path) -> None:
    write_document(data, **changed)
    assert load_dataset(data).names == names


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "none.yaml does not exist" in refusal(tmp_path / "none.yaml")
    assert "does not exist" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: [images", "is not valid YAML"),
        (b"train: \x00", "is not valid YAML"),
        (b"\xff\xfe", "is not valid YAML"),
        (b"", "must be a mapping with train, val and names"),
        (b"- train\n- val\n", "must be a mapping with train, val and names"),
        (b"images/train\n", "must be a mapping with train, val and names"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(content: bytes, message: str, data: Path) -> None:
    data.write_bytes(content)
    assert refusal(data).startswith(f"data file {data} {message}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": None}, "names is missing"),
        ({"names": "cat"}, "names is missing"),
        ({"names": []}, "there are 0 classes"),
        ({"names": {}}, "there are 0 classes"),
        ({"names": None, "nc": 0}, "there are 0 classes"),
        ({"names": {0: "cat", 2: "dog"}}, "names must be numbered 0, 1, 2, ... without gaps, not [0, 2]"),
        ({"names": {1: "cat", 2: "dog"}}, "names must be numbered"),
        ({"names": {"0": "cat", "1": "dog"}}, "names must be numbered"),
        ({"names": {0: "cat", "dog": 1}}, "names must be numbered"),
        ({"nc": 3}, "nc is 3 but names lists 2 classes"),
        ({"train": None}, "train is missing"),
        ({"val": None}, "val is missing"),
        ({"val": ""}, "val is missing"),
        ({"val": []}, "val is missing"),
        ({"train": "images/trian"}, "images/trian do not exist; correct 'train' or 'path'"),
        ({"val": ["images/val", "images/test"]}, "images/test do not exist; correct 'val' or 'path'"),
        ({"path": "elsewhere"}, "elsewhere/images/train do not exist"),
        ({"val": "labels/val"}, "no images in"),
    ],
)
def test_a_wrong_entry_is_refused(changed: dict[str, Any], message: str, data: Path) -> None:
    write_document(data, **changed)
    text = refusal(data)
    assert text.startswith(f"{data}: ")
    assert message in text


def test_an_empty_folder_is_refused(data: Path) -> None:
    (data.parent / "images/empty").mkdir()
    write_document(data, train="images/empty")
    assert refusal(data) == f"{data}: no images in {data.parent / 'images/empty'}; put the train images there"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is out of range: the data file lists 2 classes, 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is out of range"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is out of range"),
        ("0 320 240 20 20", "a coordinate is outside 0 to 1"),
        ("0 0.5 0.5 0.1 1.02", "a coordinate is outside 0 to 1"),
        ("0 -0.02 0.5 0.1 0.1", "a coordinate is outside 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "a coordinate is outside 0 to 1"),
        ("0 0.1 0.1 0.9 0.2 0.5 1.8", "a coordinate is outside 0 to 1"),
        ("0", "not 1 numbers"),
        ("0 0.5 0.5 0.1", "not 4 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "not 6 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9 0.9 0.9", "not 8 numbers"),
        ("cat 0.5 0.5 0.1 0.1", "a label must be numbers"),
        ("0,0.5,0.5,0.1,0.1", "a label must be numbers"),
        ("nan 0.5 0.5 0.1 0.1", "class nan is out of range"),
        ("inf 0.5 0.5 0.1 0.1", "class inf is out of range"),
    ],
)
@pytest.mark.parametrize("split", ["train/a", "val/d"])
def test_a_wrong_label_is_refused_with_file_and_line(line: str, message: str, split: str, data: Path) -> None:
    labels = data.parent / "labels" / f"{split}.txt"
    labels.write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    text = refusal(data)
    assert text.startswith(f"{labels}:3: ")
    assert message in text


def test_a_label_file_that_is_not_text_is_refused(data: Path) -> None:
    (data.parent / "labels/train/a.txt").write_bytes(b"\xff\xd8\xff")
    assert "labels/train/a.txt" in refusal(data)


@pytest.mark.parametrize("line", ["0 -0.005 0.5 0.1 0.1", "0 0.5 0.5 1.01 0.1", "1.0 0.5 0.5 0.1 0.1"])
def test_rounding_is_tolerated(line: str, data: Path) -> None:
    (data.parent / "labels/train/a.txt").write_text(line)
    assert load_dataset(data).train_images == 3


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_without_any_label_are_refused(split: str, data: Path) -> None:
    shutil.rmtree(data.parent / "labels" / split)
    count, first = (3, "a") if split == "train" else (2, "d")
    assert refusal(data) == (
        f"none of the {count} {split} images has a label; expected e.g. {data.parent}/labels/{split}/{first}.txt"
    )


def test_empty_label_files_are_no_labels(data: Path) -> None:
    for labels in (data.parent / "labels/val").iterdir():
        labels.write_text(" \n")
    assert refusal(data).startswith("none of the 2 val images has a label")


def test_folders_are_searched_to_any_depth_for_images_only(data: Path) -> None:
    train = data.parent / "images/train"
    (train / "deep/er").mkdir(parents=True)
    shutil.copy(train / "a.png", train / "deep/er/f.JPG")
    (train / "notes.txt").write_text("not an image")
    (train / "a.npy").write_text("a cache of Ultralytics")
    assert load_dataset(data).train_images == 4


def test_images_are_what_ultralytics_reads() -> None:
    assert {f".{name}" for name in IMG_FORMATS} == IMAGE_SUFFIXES


@pytest.mark.parametrize(
    "image",
    [
        "/data/images/train/a.jpg",
        "/data/train/images/a.b.png",
        "/images/old/images/new/a.png",
        "/data/images.old/train/a.png",
        "/data/train/a.png",
        "/data/train/images.png",
        "/data/images/labels/a.png",
    ],
)
def test_labels_are_where_ultralytics_looks(image: str) -> None:
    assert str(label_file(Path(image))) == img2label_paths([image])[0]


# Where the images lie: `path:` in the file, else the file's folder.


def test_path_may_be_absolute(data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "data.yaml"
    write_document(moved, path=str(data.parent))
    assert load_dataset(moved).train == load_dataset(data).train


def test_path_may_start_from_home(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_document(data, path="~/set")
    assert load_dataset(data).train == (str(data.parent / "images/train"),)


def test_path_may_be_relative_to_the_file(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tmp_path / "data.yaml"
    write_document(moved, path="set")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert load_dataset(moved).train == load_dataset(data).train


def test_path_is_first_relative_to_the_working_directory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_dataset(tmp_path / "cwd/set")
    (other.parent / "images/val/e.png").unlink()
    moved = tmp_path / "data.yaml"
    write_document(moved, path="set")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr("ultralytics.data.utils.check_font", lambda font: None)  # it may ask the network
    dataset = load_dataset(moved)
    assert dataset.val == (str(other.parent / "images/val"),)
    assert dataset.val_images == 1
    assert check_det_dataset(str(moved))["val"] == str(other.parent / "images/val")


def test_without_path_the_working_directory_does_not_matter(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_dataset(data)
    write_dataset(tmp_path / "cwd")
    monkeypatch.chdir(tmp_path / "cwd")
    assert load_dataset(data) == expected
    monkeypatch.chdir(data.parent)
    assert load_dataset("data.yaml") == expected


def test_places_may_be_absolute_and_several(data: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other")
    write_document(data, train=["images/train", str(other.parent / "images/train")])
    dataset = load_dataset(data)
    assert dataset.train == (str(data.parent / "images/train"), str(other.parent / "images/train"))
    assert dataset.train_images == 6


# Lists of images.


def write_list(data: Path, *lines: str) -> None:
    (data.parent / "train.txt").write_text("\n".join(lines) + "\n")
    write_document(data, train="train.txt")


def files_for_ultralytics(places: tuple[str, ...]) -> list[str]:
    reader = object.__new__(BaseDataset)
    reader.prefix, reader.fraction = "", 1.0
    return reader.get_img_files(list(places))


def test_a_list_file_names_images(data: Path) -> None:
    train = data.parent / "images/train"
    write_list(data, "./images/train/a.png", "", f"  {train / 'b.png'}")
    dataset = load_dataset(data)
    assert dataset.train == (str(data.parent / "train.txt"),)
    assert dataset.train_images == 2


def test_ultralytics_finds_the_same_images(data: Path) -> None:
    train = data.parent / "images/train"
    write_list(data, "./images/train/b.png", str(train / "a.png"))
    expected = sorted(str(path) for path in (train / "a.png", train / "b.png"))
    assert files_for_ultralytics(load_dataset(data).train) == expected


def test_ultralytics_finds_the_images_of_an_accepted_list(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_list(data, "images/train/a.png")
    try:
        dataset = load_dataset(data)
    except DatasetError:
        return
    assert all(Path(file).is_file() for file in files_for_ultralytics(dataset.train))


def test_an_image_that_is_only_listed_is_refused(data: Path) -> None:
    write_list(data, "./images/train/a.png", "./images/train/gone.png")
    text = refusal(data)
    assert text.startswith(f"train image {data.parent}/images/train/gone.png does not exist")
    assert "remove it from the list file" in text


def test_an_empty_list_is_refused(data: Path) -> None:
    write_list(data, "", " ")
    assert "no images in" in refusal(data)


# The fingerprint.


def test_fingerprint_stays_when_the_data_moves(data: Path, tmp_path: Path) -> None:
    before = load_dataset(data)
    shutil.move(data.parent, tmp_path / "moved")
    after = load_dataset(tmp_path / "moved/data.yaml")
    assert after.fingerprint == before.fingerprint
    assert after == replace(
        before,
        file=str(tmp_path / "moved/data.yaml"),
        train=(str(tmp_path / "moved/images/train"),),
        val=(str(tmp_path / "moved/images/val"),),
    )


def test_fingerprint_stays_when_only_the_description_changes(data: Path) -> None:
    before = load_dataset(data).fingerprint
    write_document(data, path=str(data.parent), names=["cat", "dog"], nc=2)
    assert load_dataset(data).fingerprint == before
    write_list(data, *(f"./images/train/{name}.png" for name in "cab"))
    assert load_dataset(data).fingerprint == before


def edit_label(root: Path) -> None:
    (root / "labels/train/a.txt").write_text(LABELS["train/a"].replace("0.5", "0.6", 1))


def add_label(root: Path) -> None:
    (root / "labels/val/e.txt").write_text("0 0.5 0.5 0.1 0.1\n")


def remove_label_file(root: Path) -> None:
    (root / "labels/train/a.txt").unlink()


def exchange_labels(root: Path) -> None:
    (root / "labels/train/a.txt").write_text(LABELS["train/b"])
    (root / "labels/train/b.txt").write_text(LABELS["train/a"])


def replace_image(root: Path) -> None:
    Image.effect_noise((16, 8), 50).save(root / "images/train/a.png")


def remove_image(root: Path) -> None:
    (root / "images/train/c.png").unlink()


def rename_image(root: Path) -> None:
    (root / "images/train/c.png").rename(root / "images/train/f.png")


def move_to_the_other_split(root: Path) -> None:
    (root / "images/train/c.png").rename(root / "images/val/c.png")


def exchange_splits(root: Path) -> None:
    write_document(root / "data.yaml", train="images/val", val="images/train")


def rename_class(root: Path) -> None:
    write_document(root / "data.yaml", names=["cat", "hound"])


def add_class(root: Path) -> None:
    write_document(root / "data.yaml", names=["cat", "dog", "emu"])


@pytest.mark.parametrize(
    "change",
    [
        *(edit_label, add_label, remove_label_file, exchange_labels),
        *(replace_image, remove_image, rename_image, move_to_the_other_split, exchange_splits),
        *(rename_class, add_class),
    ],
)
def test_fingerprint_changes_with_the_data(change: Callable[[Path], None], data: Path) -> None:
    before = load_dataset(data).fingerprint
    change(data.parent)
    assert load_dataset(data).fingerprint != before

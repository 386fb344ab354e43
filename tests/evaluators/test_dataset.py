from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset, img2label_paths

from evaluators.dataset import Dataset, DatasetError, find_change, load_dataset, read_dataset, write_data_file
from evaluators.image_files import IMAGE_SUFFIXES, label_file
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
        Image.new("RGB", (32, 16), (ord(name[-1]), 0, 0)).save(image)
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
        ({"names": {"0": "cat", "1": "dog"}, "nc": "2"}, ("cat", "dog")),
        ({"names": [True, None], "nc": 2.0}, ("True", "None")),
    ],
)
def test_forms_of_names(changed: dict[str, Any], names: tuple[str, ...], data: Path) -> None:
    write_document(data, **changed)
    assert load_dataset(data).names == names


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "none.yaml does not exist" in refusal(tmp_path / "none.yaml")
    assert "is a folder; give the path of an Ultralytics data YAML" in refusal(tmp_path)
    (tmp_path / "my.yaml").touch()
    assert refusal(tmp_path) == f"{tmp_path} is a folder; give its data file, {tmp_path / 'my.yaml'}"


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
        ({"names": {0: "cat", "0": "dog"}}, "names must be numbered"),
        ({"names": ["n01440764", "dog"]}, "begins like a code of ImageNet"),
        ({"nc": 1.9}, "nc must be the number of classes, not 1.9"),
        ({"nc": "two"}, "nc must be the number of classes, not 'two'"),
        ({"names": {0: "cat", "dog": 1}}, "names must be numbered"),
        ({"nc": 3}, "nc is 3 but names lists 2 classes"),
        ({"train": None}, "train is missing"),
        ({"val": None}, "val is missing"),
        ({"val": ""}, "val is missing"),
        ({"val": []}, "val is missing"),
        ({"train": "images/trian"}, "images/trian do not exist; correct 'train' or 'path'"),
        ({"val": ["images/val", "images/test"]}, "images/test do not exist; correct 'val' or 'path'"),
        ({"val": None, "valid": "images/val"}, "val is missing (Ultralytics does not read 'valid')"),
        ({"val": ["images/val", 7]}, "val must be folders or list files, not 7"),
        ({"path": "elsewhere"}, "path elsewhere is a folder neither in"),
        ({"path": 7}, "path must be a folder, not 7"),
        ({"path": "/"}, "/images/train do not exist; correct 'train' or 'path' in the file: without 'path', they are"),
        ({"val": "labels/val"}, "no images in"),
        ({"channels": 1}, "channels is 1, and nas-yolo builds networks for color images (3)"),
        ({"kpt_shape": [17]}, "kpt_shape must be [number of key points, 2 or 3], not [17]"),
        ({"kpt_shape": [0, 3]}, "kpt_shape must be"),
        ({"single_cls": True}, "single_cls does not belong in a data file, Ultralytics overlooks it"),
        ({"classes": [0]}, "classes does not belong in a data file"),
        ({"rect": True}, "rect does not belong in a data file"),
        ({"imgsz": [640, 384]}, "imgsz does not belong in a data file"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_line(changed: dict[str, Any], message: str, data: Path) -> None:
    write_document(data, **changed)
    text = refusal(data)
    line = re.match(rf"{re.escape(str(data))}(?::(\d+))?: ", text)
    assert line
    if line[1]:  # of the key, where it is there
        assert data.read_text().splitlines()[int(line[1]) - 1].partition(":")[0] in (*changed, "names", "train")
    assert message in text


def test_all_problems_are_told_at_once(data: Path) -> None:
    write_document(data, names=None, val="images/gone", channels=4)
    (data.parent / "labels/train/a.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    found = read_dataset(data)
    assert [text.split(": ", 1)[1].split(";")[0] for text in found.problems] == [
        "names is missing",
        "channels is 4, and nas-yolo builds networks for color images (3)",
        f"val images {data.parent}/images/gone do not exist",
    ]
    assert refusal(data).endswith(f"(and 2 more problems; nas-yolo check-data {data} shows all)")
    write_document(data)
    (data.parent / "labels/val/d.txt").write_text("0 0.5 0.5 2 0.1\n")
    assert len(read_dataset(data).problems) == 3  # and no box is left to validate on


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
        ("0 320 240 20 20", "a coordinate is above 1"),
        ("0 0.5 0.5 0.1 1.02", "a coordinate is above 1"),
        ("0 -0.02 0.5 0.1 0.1", "a coordinate is below 0"),
        ("0 0.5 0.5 -0.001 0.1", "a coordinate is below 0"),
        ("0 nan 0.5 0.1 0.1", "a coordinate is above 1"),
        ("0 0.1 0.1 0.9 0.2 0.5 1.8", "a coordinate is above 1"),
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
    if split.startswith("val"):  # else no box is left there
        (data.parent / "labels/val/e.txt").write_text("0 0.5 0.5 0.1 0.1\n")
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
        f"none of the {count} {split} images has a box; expected e.g. {data.parent}/labels/{split}/{first}.txt"
    )


def test_empty_label_files_are_no_labels(data: Path) -> None:
    for labels in (data.parent / "labels/val").iterdir():
        labels.write_text(" \n")
    assert refusal(data).startswith("none of the 2 val images has a box")


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


def test_a_list_file_names_images(data: Path) -> None:
    train = data.parent / "images/train"
    write_list(data, "./images/train/a.png", "", f"{train / 'b.png'}", "notes.md")
    dataset = load_dataset(data)
    assert dataset.train == (str(data.parent / "train.txt"),)
    assert dataset.train_images == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/train/a.png", "images/train/a.png must be absolute or begin with ./ (the folder of this file)"),
        (" ./images/train/a.png ", "./images/train/a.png has spaces around it, Ultralytics would not find it"),
    ],
)
def test_a_line_that_depends_on_where_one_stands_is_refused(line: str, message: str, data: Path) -> None:
    write_list(data, "./images/train/b.png", line, "./images/train/c.png")
    assert refusal(data) == f"{data.parent / 'train.txt'}:2: {message}"


def test_a_picture_is_no_list(data: Path) -> None:
    write_document(data, train="images/train/a.png")
    assert "is neither a folder nor a list of images" in refusal(data)


def test_an_image_that_is_only_listed_is_refused(data: Path) -> None:
    write_list(data, "./images/train/a.png", "./images/train/gone.png")
    text = refusal(data)
    assert text == f"{data.parent}/images/train/gone.png does not exist"


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
    Image.effect_noise((32, 16), 50).save(root / "images/train/a.png")


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
    assert find_change(replace(load_dataset(data), fingerprint=before))


# What is not as it was.


def test_nothing_changed(data: Path) -> None:
    dataset = load_dataset(data)
    data.write_text("another text")  # the search has its own reading of it
    assert find_change(dataset) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit_label, "names or sizes of images, or labels, are others"),
        (exchange_labels, "names or sizes of images, or labels, are others"),
        (rename_image, "1 of 4 label files are gone"),
        (remove_label_file, "1 of 4 label files are gone"),
        (remove_image, "1 of 3 train images are gone"),
        (lambda root: shutil.rmtree(root / "images/val"), "{root}/images/val is gone"),
        (lambda root: shutil.rmtree(root), "{root}/images/train is gone"),
        (lambda root: shutil.copy(root / "images/val/d.png", root / "images/train"), "there are 1 more train images"),
    ],
)
def test_what_is_gone_is_called_gone(change: Callable[[Path], Any], said: str, data: Path) -> None:
    dataset = load_dataset(data)
    change(data.parent)
    found = find_change(dataset)
    assert found is not None
    assert found.text == said.format(root=data.parent)
    assert found.gone == ("gone" in said)


def test_a_data_set_of_an_earlier_version_is_read_back(data: Path) -> None:
    dataset = load_dataset(data)
    new = ("kpt_shape", "single_cls", "classes", "skipped", "label_files")
    document = {key: value for key, value in dataset.document().items() if key not in new}
    assert Dataset.from_document(document) == replace(dataset, label_files=None)
    assert find_change(Dataset.from_document(document)) is None


# What cannot be used may be left out.


def test_unusable_images_are_left_out_on_demand(data: Path) -> None:
    root = data.parent
    (root / "images/train/b.png").write_bytes(b"<html></html>")
    (root / "images/train/none.png").mkdir()
    (root / "labels/val/e.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.9 0.2 0.5 0.8\n")
    found = read_dataset(data)
    assert found.splits["train"].unusable == {
        str(root / "images/train/b.png"): "is no picture, it begins with b'<html></html>'",
        str(root / "images/train/none.png"): "is a folder",
    }
    mixed = f"{root}/labels/val/e.txt: line 1 is a box and line 2 a polygon; a file must have one kind"
    assert found.splits["val"].unusable == {str(root / "images/val/e.png"): mixed}
    assert len(found.problems) == 3
    dataset = load_dataset(data, skip_bad=True)
    assert (dataset.train_images, dataset.val_images, len(dataset.skipped)) == (2, 1, 3)
    assert dataset.images("train") == [str(root / f"images/train/{name}.png") for name in "ac"]
    again = load_dataset(write_data_file(dataset, root / "own"))  # what Ultralytics is given has them only
    assert again.images("train") == dataset.images("train")
    assert again.fingerprint == dataset.fingerprint
    assert find_change(dataset) is None
    (root / "images/train/b.png").unlink()
    assert find_change(dataset) is None


def test_what_counts_is_what_is_trained(data: Path) -> None:
    one = read_dataset(data, classes=[1])
    assert one.splits["train"].boxes == [0, 2]
    assert one.splits["train"].backgrounds == 1
    assert "none of the 2 val images has a box" in one.problems[0]
    single = read_dataset(data, single_cls=True)
    assert (single.names, single.splits["train"].boxes) == (("item",), [3])
    assert single.dataset is not None
    assert single.dataset.meaning != load_dataset(data).meaning
    assert "there is no class 2" in read_dataset(data, classes=[2]).problems[0]


def test_pictures_in_both_splits_are_told(data: Path) -> None:
    root = data.parent
    assert read_dataset(data).in_both == []
    shutil.copy(root / "images/train/a.png", root / "images/val/x.png")
    assert read_dataset(data).in_both == [(str(root / "images/train/a.png"), str(root / "images/val/x.png"))]
    write_document(data, val=["images/val", "images/train"])
    assert len(read_dataset(data).in_both) == 4

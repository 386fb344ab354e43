"""`check-data`, and searches on data sets with something odd about them: what is used is said, nothing is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from evaluators.dataset import load_dataset
from nas_yolo.cli import main
from nas_yolo.cli.yolo import _found_from_here
from nas_yolo.environment import ultralytics_environment, users_environment

ROW = "0 0.5 0.5 0.5 0.375\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "set")


def make(root: Path, kind: str = "png") -> Path:
    """12 + 6 images of 64 x 64 with a red box each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 80, (64, 64, 3), dtype=np.uint8)
            pixels[20:44, 16:48] = (220, 30, 30)
            name = f"{split[0]}{number:02d}"
            Image.fromarray(pixels).save(root / "images" / split / f"{name}.{kind}")
            (root / "labels" / split / f"{name}.txt").write_text(ROW)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [red, blue]\n")
    return root


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def document(*arguments: object, status: int = 0) -> dict[str, Any]:
    result = invoke("check-data", *arguments, "--json")
    assert result.exit_code == status, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["usable"] == (status == 0)
    return found


def words(text: str) -> str:
    return " ".join(text.split())


def test_says_what_is_used(root: Path) -> None:
    (root / "labels/train/t03.txt").unlink()
    (root / "labels/train/t04.txt").write_text("")
    (root / "labels/train/t05.txt").write_text(ROW + "1 0.1 0.1 0.2 0.2\n")
    result = invoke("check-data", root / "data.yaml")
    assert result.exit_code == 0
    said = words(result.stdout)
    assert "train 12 10 2 0 11 val 6 6 0 0 6" in said
    assert "0 red 10 6 1 blue 1 0" in said
    assert "Note: train: 1 images without a label file, which are backgrounds" in said
    assert max(map(len, result.stdout.splitlines())) <= 100
    found = document(root / "data.yaml")
    assert found["splits"]["train"]["boxes_by_class"] == {"red": 10, "blue": 1}
    assert (found["splits"]["train"]["backgrounds"], found["splits"]["train"]["without_label_file"]) == (2, 1)


# Ultralytics leaves a damaged picture's file to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_unusable_image_is_named_with_its_reason(root: Path) -> None:
    train = root / "images/train"
    (train / "t00.png").write_bytes(b"")
    (train / "t01.png").write_text("<html>")
    (train / "t02.png").write_bytes((train / "t02.png").read_bytes()[:2000])
    Image.new("RGB", (8, 8)).save(train / "t03.png")
    for number in range(4, 7):  # one row of a polygon in a file of boxes
        (root / f"labels/train/t{number:02d}.txt").write_text(ROW + "1 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4\n")
    found = document(root / "data.yaml", status=1)
    assert found["splits"]["train"]["images"] == 5
    assert [Path(one["file"]).name for one in found["splits"]["train"]["unusable"]] == [
        f"t{number:02d}.png" for number in range(7)
    ]
    assert len(found["problems"]) == 7
    result = invoke("check-data", root / "data.yaml")
    assert result.exit_code == 1
    for line in (
        "train 5 5 0 7 5",
        "7 train images cannot be used:",
        "images/train/t00.png: is empty",
        "images/train/t01.png: is no picture, it begins with b'<html>'",
        "images/train/t02.png: is damaged:",
        "images/train/t03.png: cannot be used: image size (8, 8) <10 pixels",
        "labels/train/t04.txt: line 1 is a box and line 2 a polygon; a file must have one kind",
    ):
        assert line in words(result.stdout)
    last = result.stderr.strip().splitlines()[-1]
    assert re.fullmatch(
        r"Error: .*t00.png is empty; --skip-bad leaves such images out \(and 6 more problems; .*\)", last
    )
    skipped = document(root / "data.yaml", "--skip-bad")
    assert skipped["splits"]["train"]["images"] == 5
    assert len(skipped["splits"]["train"]["unusable"]) == 7


def test_a_search_with_unusable_images_is_refused_before_anything_is_spent(root: Path, tmp_path: Path) -> None:
    (root / "images/train/t00.png").write_bytes(b"")
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    given = ["search", "--data", root / "data.yaml", "--target", "cpu", "--budget", "1trials", "--storage", storage]
    result = invoke(*given)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.strip().endswith("images/train/t00.png is empty; search --skip-bad leaves such images out")
    (root / "images/train/t01.png").write_bytes(b"")
    result = invoke(*given)
    assert "2 train images cannot be used:" in result.stdout  # more than a line can say
    assert len(result.stderr.strip().splitlines()) == 1
    assert invoke("list", "--storage", storage, "--json").stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("channels: 1\n", "data.yaml:1: channels is 1, and nas-yolo builds networks for color images (3)"),
        ("classes: [0]\n", "data.yaml:1: classes does not belong in a data file"),
        ("kpt_shape: 2\n", "data.yaml:1: kpt_shape must be [number of key points, 2 or 3], not 2"),
    ],
)
def test_keys_that_change_the_meaning_are_refused_with_their_line(root: Path, text: str, said: str) -> None:
    data = root / "data.yaml"
    data.write_text(text + data.read_text())
    result = invoke("check-data", data)
    assert result.exit_code == 1
    assert said in result.stderr


def test_arguments_that_change_the_meaning_are_counted_with(root: Path) -> None:
    (root / "labels/train/t05.txt").write_text(ROW + "1 0.1 0.1 0.2 0.2\n")
    one = document(root / "data.yaml", "--train", "single_cls=True")
    assert one["splits"]["train"]["boxes_by_class"] == {"item": 13}
    two = document(root / "data.yaml", "--train", "classes=1", status=1)  # of which nothing is there to validate
    assert two["splits"]["train"]["boxes_by_class"] == {"red": 0, "blue": 1}


def content(folder: Path) -> dict[str, Any]:
    """Every file's bytes and times, the folders' too."""
    files = sorted([folder, *folder.rglob("*")])
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"") for file in files}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Data that Ultralytics alone would write to, in a folder that cannot be written to, from where `./` is right."""
    root = make(tmp_path / "odd", "jpg")
    data = root / "data.yaml"
    data.write_text("path: ./\n" + data.read_text())
    for number in range(4):
        with open(root / f"images/train/t{number:02d}.jpg", "ab") as file:
            file.write(b"\0\0")
    np.save(root / "images/train/t04.npy", np.ones((64, 64)))
    (root / "images/train/t05.npy").write_text("no array")
    (root / "images/train/t11.jpg").write_text("<html>")
    for file in [root, *root.rglob("*")]:
        file.chmod(0o555 if file.is_dir() else 0o444)
    return root


@pytest.mark.usefixtures("quick_probe", "trainings_only")
def test_nothing_of_the_users_is_written_and_every_command_reads_the_same(
    odd: Path, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: object, status: int = 0) -> str:
        result = invoke(*arguments)
        assert result.exit_code == status, (arguments, result.output, result.exception)
        return result.output

    before = content(odd)
    monkeypatch.chdir(odd)
    small = ["--epochs", 2, "--imgsz", 32, "--from-scratch", "--repeats", 0, "--train", "batch=6", "--runner", "local"]
    space = ["--space", Path(__file__).parent / "space.yaml"]
    said = run(
        *["search", "--data", "data.yaml", "--target", "cpu", "--skip-bad", "--budget", "1trials", "--name", "odd"],
        *small,
        *space,
    )
    assert "train 11 11 0 1 11" in words(said)
    assert "11 images, " in said
    assert "train: 4 JPEGs that do not end as they should" in said
    own = Path(re.findall(r"Train it: .* data=(\S+)", said)[0])
    listed = (own.parent / "train.txt").read_text().split()
    assert listed == [str(odd / f"images/train/t{number:02d}.jpg") for number in range(11)]

    monkeypatch.chdir("/")  # where `path: ./` would mean something else
    assert "2 architectures measured" in run("resume", "odd", "--budget", "2trials")
    assert "6 images" in run("validate", "odd", "--trial", 0)
    given = ["--epochs", 1, "workers=0", "plots=False", "cache=disk", "deterministic=False", f"project={tmp_path}"]
    assert f"data={own}" in run("train", "odd", "--trial", 0, *given)
    assert content(odd) == before

    for file in [odd, *odd.rglob("*")]:
        file.chmod(0o755)
    (odd / "images/val").rename(tmp_path / "away")
    for command in ("resume", "validate", "train"):
        more = ["--trial", 0] if command != "resume" else []
        assert f"{odd / 'images/val'} is gone" in run(command, "odd", *more, status=1)


def test_settings_of_the_users_ultralytics_are_read_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "mine"))
    assert users_environment()["YOLO_CONFIG_DIR"] == str(tmp_path / "cache/nas-yolo/ultralytics-user")
    assert not (tmp_path / "mine").exists()
    settings = tmp_path / "mine/Ultralytics/settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"settings_version": "0.0.4", "runs_dir": "/runs", "datasets_dir": str(tmp_path)}))
    before = content(tmp_path / "mine")
    environment = {**os.environ, **users_environment()}
    code = "from ultralytics.utils import SETTINGS; print(SETTINGS['runs_dir'])"
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip().endswith("/runs")
    assert content(tmp_path / "mine") == before
    # A process of ours that another one started still knows the user's.
    monkeypatch.setenv("NAS_YOLO_USERS_YOLO_CONFIG_DIR", environment["NAS_YOLO_USERS_YOLO_CONFIG_DIR"])
    monkeypatch.setenv("YOLO_CONFIG_DIR", environment["YOLO_CONFIG_DIR"])
    assert ultralytics_environment()["NAS_YOLO_USERS_YOLO_CONFIG_DIR"] == str(tmp_path / "mine")
    # Its datasets folder is where Ultralytics looks for a relative `path`.
    make(tmp_path / "shapes")
    file = tmp_path / "mine/data.yaml"
    file.write_text("path: shapes\n" + (tmp_path / "shapes/data.yaml").read_text())
    assert load_dataset(file).train == (str(tmp_path / "shapes/images/train"),)


def test_yolo_finds_what_only_a_search_finds(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `path` beside the data file, seen from elsewhere."""
    data = root.parent / "data.yaml"
    data.write_text("path: set\n" + (root / "data.yaml").read_text())
    monkeypatch.chdir("/")
    found = load_dataset(data)
    assert found.train == (str(root / "images/train"),)
    assert "path set is taken as" in words(invoke("check-data", data).stdout)
    copy = _found_from_here(f"data={data}").removeprefix("data=")
    assert load_dataset(copy).train == found.train
    assert load_dataset(copy).fingerprint == found.fingerprint
    monkeypatch.chdir(root.parent)  # where Ultralytics finds it, too
    assert _found_from_here(f"data={data}") == f"data={data}"
    assert _found_from_here("data=coco8.yaml") == "data=coco8.yaml"

"""Checkpoints in folders and at URLs; fsspec's file system in memory stands for a store on another machine."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from evaluators.accuracy.checkpoints import load_checkpoint, save_checkpoint, version
from evaluators.accuracy.handover import copy_checkpoint
from evaluators.location import StoreError, locate

if TYPE_CHECKING:
    from evaluators.location import Location


@pytest.fixture(params=["folder", "url"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    root = tmp_path if request.param == "folder" else locate(f"memory://{uuid.uuid4().hex}")
    return root / "trials" / "checkpoint.pt"


def document(value: float) -> dict[str, Any]:
    return {"epoch": 1, "model": {"weight": torch.full((3,), value)}}


def test_what_was_saved_is_loaded_and_replaced_as_a_whole(location: Location) -> None:
    save_checkpoint(document(1.0), location)
    first = version(location)
    assert torch.equal(load_checkpoint(location)["model"]["weight"], torch.ones(3))
    save_checkpoint(document(2.0), location)
    assert torch.equal(load_checkpoint(location)["model"]["weight"], torch.full((3,), 2.0))
    assert version(location) != first
    assert [path.name for path in location.parent.iterdir()] == ["checkpoint.pt"]


def test_a_failure_while_writing_leaves_the_checkpoint_that_was_there(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(document(1.0), location)

    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    if not isinstance(location, Path):
        monkeypatch.undo()
        monkeypatch.setattr(type(location), "write_bytes", fail)
    with pytest.raises(StoreError, match=r"cannot be written .*No space left on device.*; see that there is room"):
        save_checkpoint(document(2.0), location)
    assert torch.equal(load_checkpoint(location)["model"]["weight"], torch.ones(3))


def test_what_is_not_there_is_told_from_what_cannot_be_read(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(location)

    def fail(*arguments: object, **keywords: object) -> None:
        raise ConnectionError("credentials have expired")

    if isinstance(location, Path):
        location.mkdir(parents=True)
    else:
        monkeypatch.setattr(type(location), "read_bytes", fail)
    with pytest.raises(StoreError, match="cannot be read"):
        load_checkpoint(location)


def test_files_that_others_write_keep_their_checksums(location: Location, tmp_path: Path) -> None:
    import zipfile

    save_checkpoint(document(1.0), location)
    torch.save(document(1.0), tmp_path / "mine.pt")
    with zipfile.ZipFile(tmp_path / "mine.pt") as archive:
        assert archive.testzip() is None


def test_a_copy_is_equal(location: Location) -> None:
    save_checkpoint(document(1.0), location)
    copy_checkpoint(location, location.with_name("copy.pt"))
    assert torch.equal(load_checkpoint(location.with_name("copy.pt"))["model"]["weight"], torch.ones(3))


def test_a_checkpoint_builds_no_objects(location: Location) -> None:
    save_checkpoint({"epoch": Path("x")}, location)
    with pytest.raises(Exception, match="Weights only load failed"):
        load_checkpoint(location)

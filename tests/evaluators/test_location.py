from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.location import absolute, check_writable, locate, write_whole
from search_spaces import UserError


def test_a_folder_is_a_path_and_a_url_is_not(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == locate(f"file://{tmp_path}") == tmp_path
    assert not isinstance(locate("memory://searches"), Path)
    assert str(locate("memory://searches") / "one") == "memory://searches/one"


def test_a_place_means_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("runs") == str(tmp_path / "runs")
    assert absolute("memory://searches") == "memory://searches"


@pytest.mark.parametrize("url", ["memory://searches/new", "{folder}/new"])
def test_a_place_that_can_be_written_is_left_as_it_was(url: str, tmp_path: Path) -> None:
    url = url.format(folder=tmp_path)
    check_writable(url)
    assert list(locate(url).iterdir()) == []


def test_places_that_cannot_be_used_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nosuch://bucket cannot be used: .*nosuch"):
        check_writable("nosuch://bucket")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"probe cannot be written .*file.*; see that there is room"):
        check_writable(str(tmp_path / "file"))


def test_memory_that_runs_out_while_something_is_written_is_no_fault_of_the_place(tmp_path: Path) -> None:
    def write(_: object) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        write_whole(write, tmp_path / "checkpoint.pt")

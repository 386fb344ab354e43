"""`nas-yolo library ...` as its users meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evaluators.evaluation import Epoch, LibraryEntry
from nas_yolo.cli import main
from nas_yolo.config import SearchConfig
from nas_yolo.library import Changes, library_key
from search_spaces.kinds import Kind
from storage import Repository, Search
from storage.events import AssemblyScored, EntryMade, EpochEnded, TrialAdded, TrialMoved

FAILED = Kind("P4.block", "ConvNeXt")


@pytest.fixture
def config(scenarios: Any) -> SearchConfig:
    found: SearchConfig = scenarios.Scenario("one", library=True).config
    return found


@pytest.fixture
def search(database: str, config: SearchConfig, by_hand: Any) -> tuple[Repository, Search]:
    """A search `one` with a parent, all of its own entries, one that failed, and two scores."""
    repository = Repository(database)
    search = repository.create_search("one", config.document())
    changes = Changes(config)
    moves = [TrialMoved(0, state) for state in ("ready", "training", "complete")]  # type: ignore[arg-type]
    by_hand(repository, search).record(
        TrialAdded(0, changes.stock, "parent:yolov8n"),
        *moves[:2],
        *(EpochEnded(0, Epoch(epoch, 0.04 * epoch, 0.0, 1.0, 1.0)) for epoch in range(1, 10)),
        moves[2],
        *(EntryMade(LibraryEntry(kind.place, kind.block, kind.widen, 0.2, 2.0)) for kind in changes.own),
        EntryMade(LibraryEntry("P2.block", "Conv", 1, 0.25, 2.0)),
        EntryMade(LibraryEntry(FAILED.place, FAILED.block, 1, None, 0.0, "ValueError: [no] such form")),
        AssemblyScored(config.space.architecture(changes.start), 0.4, 1.0),
        AssemblyScored(config.space.architecture({**changes.start, "P2.block": "Conv"}), 0.3, 1.0),
    )
    return repository, search


@pytest.fixture
def folder(search: tuple[Repository, Search], config: SearchConfig) -> Path:
    """Its library, with a file of 2 MB."""
    folder = search[0].folder / "library" / library_key(config)
    folder.mkdir(parents=True)
    (folder / "entry.pt").write_bytes(bytes(2_000_000))
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["library", *map(str, arguments)])


def document(*arguments: object) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(result: Result, fragment: str) -> None:
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert fragment in line


def test_searches_that_share_a_library_are_listed_together(
    search: tuple[Repository, Search], folder: Path, config: SearchConfig, scenarios: Any
) -> None:
    search[0].create_search("again", config.document())
    search[0].create_search("other seed", scenarios.Scenario("two", library=True, seed=1).config.document())
    search[0].create_search("inherited", scenarios.Scenario("two", inherits=True).config.document())
    shared, other = document("list")
    assert (shared["searches"], shared["entries"], shared["scores"]) == (["one", "again"], 19, 2)
    assert (shared["folder"], shared["megabytes"]) == (str(folder), 2.0)
    assert (other["searches"], other["entries"], other["megabytes"]) == (["other seed"], 0, 0.0)
    table = invoke("list").output
    assert "one, again" in table
    assert "2.0" in table


def test_a_database_without_libraries_says_so(database: str) -> None:
    assert document("list") == []
    assert invoke("list").output.startswith("No libraries in sqlite:///")


@pytest.mark.usefixtures("search")
def test_a_library_is_shown_as_plain_data() -> None:
    found = document("show", "one")
    assert (found["stock"], found["score"], found["scores"], found["seconds"]) == ("yolov8n", 0.4, 2, 38.0)
    assert len(found["entries"]) == 19
    changed = {(one["choice"], one["value"]): one for one in found["changes"]}
    assert changed["P2.block", "Conv"]["score"] == 0.3
    assert changed["P5.block", "GhostConv"]["score"] is None
    assert changed["P5.block", "GhostConv"]["latency_ms_added"] < 0


@pytest.mark.usefixtures("search")
def test_a_library_is_shown_as_a_table_with_what_was_left_out() -> None:
    result = invoke("show", "one")
    assert result.exit_code == 0, result.exception
    (row,) = (line for line in result.output.splitlines() if line.split()[:2] == ["P2.block", "Conv"])
    assert row.split()[2:4] == ["0.300", "75%"]
    assert "left out: ConvNeXt at P4.block: ValueError: [no] such form" in result.output
    assert "19 entries and 2 scores in 38 s" in result.output


@pytest.mark.usefixtures("search")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_table_is_written_as_a_picture(more: list[str], tmp_path: Path) -> None:
    assert invoke("show", "one", "--svg", tmp_path / "one.svg", *more).exit_code == 0
    picture = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert picture.startswith("<svg")
    assert "P2.block" in picture


def test_a_search_without_a_library_has_nothing_to_show(database: str, scenarios: Any, config: SearchConfig) -> None:
    repository = Repository(database)
    repository.create_search("new", config.document())
    repository.create_search("scratch", scenarios.Scenario("two").config.document())
    for name in ("new", "scratch"):
        assert invoke("show", name).output == f"Search {name} has no library yet\n"
        assert document("show", name)["entries"] == []


@pytest.mark.usefixtures("search")
def test_mistakes_are_one_line(tmp_path: Path) -> None:
    refused(invoke("show", "ones"), "did you mean 'one'")
    refused(invoke("remove", "ones"), "did you mean 'one'")
    refused(invoke("show", "one", "--svg", tmp_path / "no" / "one.svg"), "does not exist")
    refused(invoke("show", "one", "--svg", tmp_path), "is a folder")
    refused(invoke("remove", "one"), "search one has no library")


def test_a_removed_library_leaves_what_it_found_on_record(search: tuple[Repository, Search], folder: Path) -> None:
    result = invoke("remove", "one")
    assert (result.exit_code, result.output) == (0, "Removed 2.0 MB, used by one\n")
    assert not folder.exists()
    assert len(search[0].state(search[1]).entries) == 19


def test_a_library_that_is_at_work_is_not_removed(
    search: tuple[Repository, Search], folder: Path, config: SearchConfig
) -> None:
    other = search[0].create_search("again", config.document())
    with search[0].claimed(other):
        refused(invoke("remove", "one"), "search again runs with it")
    assert folder.exists()

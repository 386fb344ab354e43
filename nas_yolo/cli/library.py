"""`library`."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas_yolo.cli.options import console, json_option, open_repository, print_json, storage_option

if TYPE_CHECKING:
    from storage import Repository, Search


@click.group("library")
def library_command() -> None:
    """Libraries of blocks that imitate the stock model. All searches of the same data and stock model share one.

    \b
    Examples:
      nas-yolo library list
      nas-yolo library show my             what every block costs and gives at every place
      nas-yolo library show my --svg my.svg
      nas-yolo library remove my           its files; a search makes again what it needs
    """


@library_command.command("list")
@storage_option
@json_option
def list_command(url: str | None, as_json: bool) -> None:
    """List the libraries of the database, and the searches that use them."""
    from rich.table import Table

    repository = open_repository(url)
    rows: dict[str, dict[str, Any]] = {}
    for search in repository.searches():
        if (folder := _folder(repository, search)) is None:
            continue
        state = repository.state(search)
        mine = {"entries": len(state.entries), "scores": len(state.assemblies)}
        new = {"folder": str(folder), "searches": [], **mine, "megabytes": _size_mb(folder)}
        row = rows.setdefault(str(folder), new)
        row["searches"].append(search.name)
        row |= {name: max(row[name], count) for name, count in mine.items()}
    if as_json:
        return print_json(list(rows.values()))
    if not rows:
        console().print(f"No libraries in {repository.shown_url}", soft_wrap=True)
        return None
    table = Table("searches", "entries", "scores", "MB")
    for row in rows.values():
        table.add_row(", ".join(row["searches"]), str(row["entries"]), str(row["scores"]), f"{row['megabytes']:.1f}")
    console().print(table)
    return None


@library_command.command("show")
@click.argument("name")
@click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="Write the table as a picture.")
@storage_option
@json_option
def show_command(name: str, svg: Path | None, url: str | None, as_json: bool) -> None:
    """Show what every block costs and gives at every place, on a search's data and device."""
    from rich.console import Console

    from nas_yolo.report.library import library_document, library_table
    from nas_yolo.strategy import context_of
    from search_spaces.errors import UserError

    if svg is not None and svg.is_dir():
        raise UserError(f"{svg} is a folder; give a file")
    if svg is not None and not svg.absolute().parent.is_dir():
        raise UserError(f"folder {svg.absolute().parent} does not exist; create it or write elsewhere")
    repository = open_repository(url)
    search = repository.search(name)
    state = repository.state(search)
    document = library_document(context_of(repository, search, 1, 1, on_gpu=False), state)
    table = library_table(document)
    if svg is not None and state.entries:
        picture = Console(record=True, width=100, file=StringIO())
        picture.print(table)
        svg.write_text(picture.export_svg(title=f"nas-yolo library show {name}"), encoding="utf-8")
    if as_json:
        return print_json(document)
    screen = console()
    if not state.entries:
        screen.print(f"Search {name} has no library yet", soft_wrap=True, markup=False)
        return None
    screen.print(table)
    failed = [entry for entry in document["entries"] if entry["error"] is None]
    for entry in failed:
        left_out = f"left out: {entry['block']} at {entry['place']}: {entry['problem']}"
        screen.print(left_out, markup=False, soft_wrap=True)
    entries, scores, seconds = len(document["entries"]), document["scores"], document["seconds"]
    screen.print(f"{entries} entries and {scores} scores in {seconds:.0f} s")
    return None


@library_command.command("remove")
@click.argument("name")
@storage_option
def remove_command(name: str, url: str | None) -> None:
    """Remove the files of the library that a search uses; what it found stays on record."""
    from search_spaces.errors import UserError

    repository = open_repository(url)
    folder = _folder(repository, repository.search(name))
    if folder is None or not folder.exists():
        raise UserError(f"search {name} has no library")
    users = [one for one in repository.searches() if _folder(repository, one) == folder]
    if busy := [one.name for one in users if repository.is_claimed(one)]:
        raise UserError(f"search {busy[0]} runs with it; stop that first")
    size_mb = _size_mb(folder)
    for file in list(folder.iterdir()):
        file.unlink()
    folder.rmdir()
    console().print(f"Removed {size_mb:.1f} MB, used by {', '.join(one.name for one in users)}", markup=False)


def _folder(repository: Repository, search: Search) -> Any:
    """Where the library of a search is; None if it has none."""
    from nas_yolo.config import SearchConfig
    from nas_yolo.library import library_key

    config = SearchConfig.from_document(search.config)
    return repository.library(search) / library_key(config) if config.weights == "library" else None


def _size_mb(folder: Any) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6 if folder.exists() else 0.0

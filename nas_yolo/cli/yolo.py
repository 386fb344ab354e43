"""`yolo`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import click


@click.command(
    "yolo", context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def yolo_command(arguments: tuple[str, ...]) -> None:
    """Ultralytics' own command line, with nas-yolo's blocks known, and nothing written beside your images.

    \b
    Example:
      nas-yolo yolo train model=best.yaml data=my.yaml epochs=300
    """
    from search_spaces import hook

    hook.install()
    from ultralytics.cfg import entrypoint

    from evaluators import user_files

    user_files.install()
    # In place: Ultralytics took hold of the list when it was imported.
    sys.argv[:] = ["yolo", *map(_found_from_here, arguments)]
    entrypoint()


def _found_from_here(argument: str) -> str:
    """`data=` as it is, unless only nas-yolo finds the images: then a copy in which their places are absolute."""
    import platformdirs
    import yaml

    from evaluators.data_file import read_data_file

    key, _, value = argument.partition("=")
    if key.lstrip("-") != "data" or not value.endswith((".yaml", ".yml")) or not Path(value).is_file():
        return argument
    said = read_data_file(value)
    if not said.beside:
        return argument
    document = yaml.safe_load(Path(value).read_text(encoding="utf-8-sig")) | {
        split: list(places) for split, places in said.places.items()
    }
    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{hashlib.sha256(said.file.encode()).hexdigest()[:16]}.yaml"
    copy.write_text(yaml.safe_dump(document | {"path": str(Path(said.file).parent)}), encoding="utf-8")
    return f"{key}={copy}"

"""Write an architecture as a model file that Ultralytics trains."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from search_spaces.architecture import Architecture
from search_spaces.families import ModelFile
from search_spaces.registry import get_block, get_family


def needs_nas_yolo(architecture: Architecture) -> tuple[str, ...]:
    """Its blocks that Ultralytics does not know by itself; empty if stock Ultralytics can load the file."""
    return tuple(name for name in architecture.blocks if not get_block(name).stock)


def write_model_file(architecture: Architecture, classes: int, comment: str, path: Path) -> None:
    """Write the model YAML, with explicit channels, replacing the file as a whole.

    Args:
        architecture: What to write.
        classes: Number of classes; training on other data replaces it.
        comment: First line.
        path: The file; its folder must exist.
    """
    ours = needs_nas_yolo(architecture)
    if ours:
        use = f"needs nas-yolo for {', '.join(ours)}: nas-yolo yolo train model={path.name} data=..."
    else:
        use = f"plain Ultralytics: yolo train model={path.name} data=..."
    lines = [f"# {comment}", f"# {use}", *_rows(get_family(architecture.family).rows(architecture, classes))]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(path)


def _rows(model: ModelFile) -> list[str]:
    """The file in Ultralytics' own style: one row of `[from, repeats, module, arguments]` a line."""
    lines = [f"nc: {model['nc']}"]
    index = 0
    for part in ("backbone", "head"):
        lines.append(f"{part}:")
        for row in model[part]:
            text = yaml.safe_dump(row, default_flow_style=True, width=1000).strip()
            lines.append(f"  - {text}  # {index}")
            index += 1
    return lines

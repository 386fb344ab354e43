"""Write a design as files: a model YAML that Ultralytics trains, and a folder with weights that runs as it is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.families import ModelFile, get_family
from search_spaces.image_size import ImageSize
from search_spaces.stock import needs_nas_yolo, stock_file

if TYPE_CHECKING:
    from torch import Tensor

    from nas_yolo.config import SearchConfig
    from storage import Trial


SCALE_IN_NAME = re.compile(r"yolo(e-)?v?\d+[nslmx]")  # as Ultralytics' guess_model_scale reads it


@dataclass(frozen=True)
class Design:
    """What is exported.

    Attributes:
        architecture: The detector.
        names: Its classes.
        imgsz: Size that it was measured and trained at.
        title: What it is, in one line.
    """

    architecture: Architecture
    names: tuple[str, ...]
    imgsz: ImageSize
    title: str

    @property
    def needs(self) -> tuple[str, ...]:
        """What of it Ultralytics cannot load; empty if it can load the whole (the YAML is stock)."""
        return needs_nas_yolo(self.architecture)

    @property
    def model_file(self) -> ModelFile:
        """In Ultralytics' own rows if possible."""
        ours = get_family(self.architecture.family).model_file(self.architecture, len(self.names))
        return stock_file(ours) or ours


def design_of(search: str, config: SearchConfig, trial: Trial) -> Design:
    """What to export of a trial."""
    title = f"nas-yolo: trial {trial.number} of search {search}"
    return Design(trial.architecture, config.dataset.names, config.imgsz_of(trial.architecture), title)


def write_yaml(design: Design, path: Path) -> None:
    """Write the model YAML, with explicit channels, replacing the file as a whole.

    Args:
        design: What to write.
        path: The file; its folder must exist.

    Raises:
        UserError: If Ultralytics would read a scale from the file's name and build another net.
    """
    if get_family(design.architecture.family).light_head and SCALE_IN_NAME.search(path.stem):
        raise UserError(
            f"Ultralytics would take the scale from the name {path.name} and build another net; choose another name, "
            "e.g. best.yaml"
        )
    if design.needs:
        use = f"needs nas-yolo for {', '.join(design.needs)}: nas-yolo yolo train model={path.name} data=..."
    else:
        use = f"stock, for plain Ultralytics: yolo train model={path.name} data=..."
    if not design.imgsz.is_square:
        use += ", on squares"
    lines = [f"# {design.title}, for {design.imgsz} px", f"# {use}", *_rows(design.model_file)]
    _replace(path, "\n".join(lines) + "\n")


def check_folder(folder: Path) -> None:
    """Refuse to write over files that are not an earlier export.

    Raises:
        UserError: If `folder` is a file, or holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give another path")
    readme = folder / "README.md"
    ours = readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith("# nas-yolo: trial ")
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise UserError(f"folder {folder} holds files that are no export of nas-yolo; give another path")


def write_folder(design: Design, weights: dict[str, Tensor], folder: Path) -> list[Path]:
    """Write `best.yaml`, `weights.pt`, `best.onnx` and a README that says how to load them.

    Args:
        design: What to write.
        weights: State dict of the network that the search trained.
        folder: Created if need be; one that `check_folder` accepts.
    """
    import torch

    from evaluators.export import export_onnx
    from search_spaces import hook
    from search_spaces.stock import stock_network

    folder.mkdir(parents=True, exist_ok=True)
    ours = hook.model_file(design.architecture, len(design.names))
    network = hook.build(ours)
    network.load_state_dict(weights)
    if not design.needs:
        network = stock_network(network, ours)
    paths = [folder / name for name in ("best.yaml", "weights.pt", "best.onnx", "README.md")]
    write_yaml(design, paths[0])
    temporary = paths[1].with_name(f".{paths[1].name}.{os.getpid()}.tmp")
    torch.save(network.float().state_dict(), temporary)
    temporary.replace(paths[1])
    export_onnx(network, design.imgsz, paths[2])
    _replace(paths[3], _readme(design))
    return paths


def _readme(design: Design) -> str:
    import ultralytics

    needs = f"nas-yolo (for {', '.join(design.needs)}) and " if design.needs else ""
    install = "; from search_spaces import hook; hook.install()  # nas-yolo's blocks" if design.needs else ""
    train = "nas-yolo yolo" if design.needs else "yolo"
    written_with = f"written with {ultralytics.__version__}"
    size, nms_free = design.imgsz, ""
    output = "(1, 4 + classes, anchors): boxes in pixels as centre and size, then scores, before NMS"
    if design.model_file.get("end2end"):
        written_with += ", at least 8.4"
        nms_free = (
            f"This head needs no NMS: pass `nms=False` {'to both' if size.is_square else 'too'}, as the search did. "
        )
        output = "(1, at most 300, 6): corners in pixels, score, class; no NMS is needed"
    if size.is_square:
        use = f"""Then `model.predict("image.jpg", imgsz={size})` or `model.val(...)`.
{nms_free}To train it anew: `{train} train model=best.yaml data=... imgsz={size}`."""
    else:
        use = f"""Then `model.predict("image.jpg", imgsz={size.argument})`: height, then width.
{nms_free}Ultralytics trains and validates on squares; at {size} px `nas-yolo train` and `nas-yolo validate` do."""
    return f"""# {design.title}

A detector for {len(design.names)} classes at {size} px. Needs {needs}Ultralytics ({written_with}).
`best.onnx` needs nothing but a runtime.

```python
import torch; from ultralytics import YOLO{install}
model = YOLO("best.yaml", task="detect")
model.model.load_state_dict(torch.load("weights.pt", weights_only=True))
```

{use}

`weights.pt` is a state dict: the moving average of the weights that the search trained.
`best.onnx` takes one RGB image, (1, 3, {size.height}, {size.width}), values in [0, 1].
It gives {output}.

Its classes, which YAML and state dict do not know:

```python
model.model.names = {dict(enumerate(design.names))}
```
"""


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _rows(model: ModelFile) -> list[str]:
    """The file in Ultralytics' own style: one row of `[from, repeats, module, arguments]` a line."""
    parts = ("backbone", "head")
    lines = [f"{key}: {_flow(value)}" for key, value in model.items() if key not in parts]
    index = 0
    for part in parts:
        lines.append(f"{part}:")
        for row in model[part]:
            lines.append(f"  - {_flow(row)}  # {index}")
            index += 1
    return lines


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()

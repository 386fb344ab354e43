"""A model that a user names: a known design, a model YAML or a checkpoint. Found and read here, as Ultralytics does.

Nothing in a file is executed, and nothing is downloaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from search_spaces.architecture import Architecture
from search_spaces.families import ModelFile, get_family
from search_spaces.model_rows import ModelError, checked
from search_spaces.names import unknown
from search_spaces.presets import presets

if TYPE_CHECKING:
    from torch import Tensor
    from ultralytics.nn.tasks import DetectionModel

Origin = Literal["known design", "Ultralytics", "file"]
ScaleFrom = Literal["file name", "first of its scales", "checkpoint"]

YAMLS = (".yaml", ".yml")
CLASSES = 80  # of a known design; Ultralytics' own model files have as many
NAMED = 5  # classes that a line lists
SCALE = re.compile(r"yolo(?:e-)?v?\d+([nslmx])")  # Ultralytics' guess_model_scale
P6 = re.compile(r"yolov[58][nsmlx]6")  # the old names of Ultralytics' models with a level P6
UNPRINTABLE = re.compile(r"[^\x09\x0A\x0D\x20-\x7E\x85\xA0-\uD7FF\uE000-\uFFFD\U00010000-\U0010ffff]+")
CLASS_BIAS = re.compile(r"model\.\d+\.cv3\.0\.2\.bias")  # of a detection head: one value a class


@dataclass(frozen=True)
class Model:
    """A detector as its file has it.

    Attributes:
        name: As it was given.
        origin: Whose it is: a known design of nas-yolo, Ultralytics' own, or a file of the user's.
        file: Content of a model file, checked.
        path: Of the file; None: a known design.
        scale: Which of the file's scales it has; None: it has none.
        scale_from: What decided that.
        names: Of its classes, where they are known.
        weights: State dict, of a checkpoint.
        leaves: Of a checkpoint, the class of each layer without parts, by path.
        architecture: Of a known design, and in a checkpoint of a search.
        namesakes: Other models that go by that name.
    """

    name: str
    origin: Origin
    file: ModelFile
    path: Path | None = None
    scale: str | None = None
    scale_from: ScaleFrom | None = None
    names: tuple[str, ...] | None = None
    weights: dict[str, Tensor] | None = field(default=None, repr=False)
    leaves: dict[str, str] = field(default_factory=dict, repr=False)
    architecture: Architecture | None = None
    namesakes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.file["nc"])

    @property
    def text(self) -> str:
        """What was taken, at which scale and why, and what else goes by that name, in one line."""
        if self.path is None:
            parts = ["known design of nas-yolo"]
        elif self.origin == "Ultralytics":
            parts = [f"Ultralytics' own {self.path.name}"]
        else:
            parts = [f"{'model file' if self.weights is None else 'checkpoint'} {self.path}"]
        if self.scale is not None:
            parts.append(f"scale {self.scale}{self._why_scale}")
        if self.names:
            more = ", ..." if len(self.names) > NAMED else ""
            parts.append(f"trained for {', '.join(self.names[:NAMED])}{more}")
        return ", ".join(parts) + "".join(f"; another model than {other}" for other in self.namesakes)

    @property
    def _why_scale(self) -> str:
        scales = self.file.get("scales", {})
        if self.scale_from == "file name":
            return " as the name says"
        if self.scale_from == "checkpoint" or len(scales) == 1:
            return ""
        return f", the first of {', '.join(scales)}, since the name says none"

    def build(self) -> DetectionModel:
        """The network, with the weights of a checkpoint, else with random ones.

        Raises:
            ModelError: If it does not build, or the checkpoint's network is not that of its rows.
        """
        from search_spaces import hook

        try:
            network = hook.build({**self.file})
        except Exception as error:  # Ultralytics' of many kinds
            said = " ".join(str(error).split())[:200]
            raise ModelError(f"{self.name} does not build: {type(error).__name__}: {said}") from error
        if self.weights is not None:
            self._check_layers(network, self.weights)
            network.load_state_dict(self.weights)
        return network

    def _check_layers(self, network: DetectionModel, saved: dict[str, Tensor]) -> None:
        """Refuse a checkpoint whose network was changed after it was built: its rows build another."""
        built = network.state_dict()
        changed = [
            name
            for name in [*built, *(saved.keys() - built.keys())]
            if name not in built or name not in saved or built[name].shape != saved[name].shape
        ]
        layers = ((name, type(layer).__name__) for name, layer in network.named_modules(remove_duplicate=False))
        changed += [name for name, kind in layers if self.leaves.get(name, kind) != kind]
        if changed:
            raise ModelError(
                f"{self.name}: its network is not what its rows build (first at {changed[0]}): it was fused, pruned or "
                "edited; give the checkpoint as its training wrote it, or a model YAML"
            )


def read_model(given: str) -> Model:
    """The model of a name or path: a known design, a file on disk, or a file of Ultralytics' own.

    Raises:
        ModelError: If there is none, or it is not a detector's; says what it is and what to do.
    """
    if given in presets():
        architecture = presets()[given].architecture
        file = get_family(architecture.family).model_file(architecture, CLASSES)
        return Model(
            given, "known design", file, architecture=architecture, namesakes=_namesakes(given, "known design")
        )
    if "://" in given:
        raise ModelError(f"{given} is an address, and nothing is downloaded; download it and give the file's path")
    path = Path(given).expanduser()
    if path.is_dir():
        raise ModelError(f"{given} is a folder; give a model YAML or a checkpoint (.pt) in it")
    if path.suffix.lower() in YAMLS:
        return _read_yaml_model(given, path)
    if not path.is_file():
        raise ModelError(_missing(given))
    if path.suffix.lower() == ".pt":
        return _read_pt_model(given, path)
    raise ModelError(f"{given} is no model YAML (.yaml) and no checkpoint (.pt); give the one that it was made from")


def _missing(given: str) -> str:
    path = Path(given)
    if path.suffix.lower() == ".pt":
        design = f", or the known design {path.stem}" if path.stem in presets() else ""
        return f"{given} does not exist, and nothing is downloaded; give the path of a checkpoint{design}"
    if path.suffix.lower() in YAMLS:
        return f"model file {given} does not exist, and Ultralytics has none of that name"
    return f"{unknown('model', given, presets())}; or give a model YAML or a checkpoint (.pt)"


def _read_yaml_model(given: str, path: Path) -> Model:
    """As Ultralytics' yaml_model_load: `yolov8s.yaml` is the file of that name, or else `yolov8.yaml` at scale s."""
    if P6.fullmatch(path.stem):
        path = path.with_name(f"{path.stem[:-1]}-p6{path.suffix}")
    unscaled = path.with_name(_unscaled(path.name))
    candidates = (candidate for name in (path, unscaled) for candidate in (name, _own_file(str(name))))
    found = next((candidate for candidate in candidates if candidate and candidate.is_file()), None)
    if found is None:
        raise ModelError(_missing(given))
    origin: Origin = "Ultralytics" if found == _own_file(found.name) else "file"
    guess = SCALE.search(path.stem)
    file, scale, scale_from = _at_scale(
        checked(_read_yaml(found, given), given), guess.group(1) if guess else "", "file name", given
    )
    return Model(given, origin, file, found, scale, scale_from, namesakes=_namesakes(given, origin))


def _read_pt_model(given: str, path: Path) -> Model:
    from search_spaces.pt_file import network_of, read_checkpoint

    saved = read_checkpoint(path)
    if "architecture" in saved:
        return _read_trial(given, path, saved)
    network = network_of(saved, path)
    file, scale, scale_from = _at_scale(checked(network.rows, given), network.scale, "checkpoint", given)
    names = network.names if len(network.names) == file["nc"] else None
    return Model(given, "file", file, path, scale, scale_from, names, network.weights, network.leaves)


def _read_trial(given: str, path: Path, saved: dict[str, Any]) -> Model:
    """A trial's checkpoint, as a search keeps it: an architecture and weights."""
    try:
        architecture, weights = Architecture.from_document(saved["architecture"]), saved["ema"]
        (classes,) = {len(value) for name, value in weights.items() if CLASS_BIAS.fullmatch(name)}
        file = get_family(architecture.family).model_file(architecture, classes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{given} is no checkpoint of a search that this nas-yolo can read: {error}") from error
    return Model(given, "file", file, path, weights=weights, architecture=architecture)


def _at_scale(
    file: ModelFile, said: str, said_by: ScaleFrom, where: str
) -> tuple[ModelFile, str | None, ScaleFrom | None]:
    """The file at the scale that is said, else at the first that it has; the scale, and what decided.

    In a file without scales, what is said still decides which units a C3k2 or A2C2f has.
    """
    scales = file.get("scales", {})
    if said and scales and said not in scales:
        raise ModelError(
            f"{where}: the {said_by} says scale {said}, and its scales are {', '.join(scales)}; rename the file"
        )
    if said:
        return {**file, "scale": said}, said, said_by
    first = next(iter(scales), "")
    return {**file, "scale": first}, first or None, "first of its scales" if first else None


def _read_yaml(path: Path, where: str) -> object:
    """As Ultralytics: what is no UTF-8 is skipped, and what is not printable where YAML refuses it."""
    try:
        text = path.read_text(encoding="utf-8", errors="ignore")
        try:
            return yaml.safe_load(text)
        except yaml.reader.ReaderError:
            return yaml.safe_load(UNPRINTABLE.sub("", text))
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        line = f":{mark.line + 1}" if mark else ""
        raise ModelError(f"{where}{line} is no model: it is not valid YAML ({problem})") from error


def _namesakes(given: str, origin: Origin) -> tuple[str, ...]:
    """What else goes by the name of a model, where that is not the same model."""
    stem = Path(given).stem if origin != "known design" else given
    designs = [name for name in (stem, *_scaled(stem)) if name in presets()][:1]
    own = [f"{stem}.yaml" for name in (stem, _unscaled(stem)) if _own_file(f"{name}.yaml")][:1]
    if origin != "file" and "-" not in stem:
        return ()  # the stock models among the known designs are Ultralytics' own
    found = []
    if origin != "known design":
        found += [f"nas-yolo's known design {name}" for name in designs]
    if origin != "Ultralytics":
        found += [f"Ultralytics' own {name}" for name in own]
    return tuple(found)


def _unscaled(name: str) -> str:
    """As Ultralytics looks for a model file of that name."""
    return re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", name)


def _scaled(stem: str) -> list[str]:
    """The names of the scales of a model file that is named without one."""
    return [re.sub(r"(yolov?\d+)", rf"\1{scale}", stem, count=1) for scale in "nsmlx"]


def _own_file(name: str) -> Path | None:
    """Ultralytics' own file of that name."""
    return _own_files().get(name)


@cache
def _own_files() -> dict[str, Path]:
    """By name, without importing Ultralytics."""
    package = find_spec("ultralytics")
    (root,) = (package and package.submodule_search_locations) or ("",)
    return {path.name: path for path in sorted((Path(root) / "cfg").rglob("*.yaml"))}

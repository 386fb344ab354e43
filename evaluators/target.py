"""Where a detector will be deployed: runtime, precision and threads. `cpu` is built in; a file adds more."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from search_spaces.errors import UserError
from search_spaces.registry import unknown


@dataclass(frozen=True)
class Target:
    """One deployment on this machine, batch 1.

    Attributes:
        name: As given to `--target`.
        runtime: A file of `evaluators/runtimes`.
        threads: Computing threads of the runtime.
        precision: `fp32`.
    """

    name: str
    runtime: str = "onnxruntime"
    threads: int = 1
    precision: str = "fp32"


BUILT_IN = {"cpu": Target("cpu")}


class TargetError(UserError, ValueError):
    """A target that is not known or not well described; one line that says what to do."""


def targets_file() -> Path:
    """The user's own targets: a mapping of name to `runtime`, `threads` and `precision`."""
    return Path(platformdirs.user_config_dir("nas-yolo")) / "targets.yaml"


def list_runtimes() -> tuple[str, ...]:
    """Names of all runtimes, sorted."""
    import evaluators.runtimes as package

    return tuple(sorted(found.name for found in pkgutil.iter_modules(package.__path__)))


def load_targets(path: Path | None = None) -> dict[str, Target]:
    """Built-in targets and the user's.

    Raises:
        TargetError: If the file does not describe targets.
    """
    path = path or targets_file()
    if not path.is_file():
        return dict(BUILT_IN)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TargetError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise TargetError(f"{path} must be a mapping of target names, e.g. cpu4: {{threads: 4}}")
    return dict(BUILT_IN) | {str(name): _target(path, str(name), given) for name, given in document.items()}


def get_target(name: str) -> Target:
    """The target of that name.

    Raises:
        TargetError: If there is none; the message lists those there are and says how to add one.
    """
    targets = load_targets()
    if name not in targets:
        raise TargetError(
            f"unknown target {name!r}; known: {', '.join(sorted(targets))}. To add one, run nas-yolo on that "
            f"device and describe it in {targets_file()}, e.g. {name}: {{runtime: onnxruntime, threads: 4}} "
            "(this version measures on the machine it runs on)"
        )
    return targets[name]


def _target(path: Path, name: str, given: Any) -> Target:
    keys = ("runtime", "threads", "precision")
    if not isinstance(given, dict):
        raise TargetError(f"{path}: target {name!r} must be a mapping with {', '.join(keys)}")
    for key in given:
        if key not in keys:
            raise TargetError(f"{path}: {unknown(f'key in target {name!r}:', key, keys)}")
    target = Target(name, **given)
    if target.runtime not in list_runtimes():
        raise TargetError(f"{path}: {unknown('runtime', target.runtime, list_runtimes())}")
    if type(target.threads) is not int or not 1 <= target.threads <= 256:
        raise TargetError(f"{path}: threads of target {name!r} must be a whole number from 1 to 256")
    if target.precision != "fp32":
        raise TargetError(f"{path}: precision of target {name!r} must be fp32, the only one this version measures")
    return target

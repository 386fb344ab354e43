"""Where a detector will be deployed: device, runtime, precision and threads. Some are built in; a file adds more."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from search_spaces.errors import UserError
from search_spaces.names import unknown

MAX_THREADS = 256
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Target:
    """One deployment, batch 1.

    Attributes:
        name: As given to `--target`.
        runtime: A file of `evaluators/runtimes`.
        threads: Computing threads of the runtime.
        precision: `fp32`, `fp16`, `bf16` or `int8`, as far as the runtime has it.
        device: What it computes on: `cpu`, `cuda` or `tensorrt`, as far as the runtime has it.
        ssh: `user@host`, or a host of the user's SSH configuration; None: this machine.
        port: Of its SSH server; None: as SSH is configured.
        ssh_config: A configuration file for SSH in place of the user's own.
        ray: Whether it is the node of a Ray cluster that owns the resource `target:NAME`.
        python: The interpreter on the device: a path, or a name to be found there.
        exclusive: Whether nothing else runs on it: measurements then insist on quiet. Default: if it is another device.
        postprocess: Whether decoding and suppression (NMS) are timed with the network.
    """

    name: str
    runtime: str = "onnxruntime"
    threads: int = 1
    precision: str = "fp32"
    device: str = "cpu"
    ssh: str | None = None
    port: int | None = None
    ssh_config: str | None = None
    ray: bool = False
    python: str | None = None
    exclusive: bool = False
    postprocess: bool = False

    @property
    def is_local(self) -> bool:
        """Whether it is measured on the machine, and by the Python, that asks."""
        return self.ssh is None and not self.ray

    @property
    def settings(self) -> dict[str, Any]:
        """What a runtime file is given."""
        return {name: getattr(self, name) for name in ("threads", "precision", "device", "exclusive")}

    @property
    def where(self) -> str:
        """Where it is, for people."""
        return f"ssh {self.ssh}" if self.ssh else f"the Ray node that owns target:{self.name}" if self.ray else "here"

    def __str__(self) -> str:
        kind = "" if self.device == "cpu" else f" on {self.device}"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.runtime} {self.precision}{kind}, {threads}, {self.where}"


def timed_text(target: Target) -> str:
    """What latencies on a target are of."""
    return "network, decoding and NMS" if target.postprocess else "the network alone"


BUILT_IN = {
    target.name: target
    for target in (
        Target("cpu"),
        Target("openvino", "openvino"),
        Target("ncnn", "ncnn"),
        Target("cuda", "torch", device="cuda"),
    )
}
KEYS = tuple(field.name for field in fields(Target) if field.name not in ("name", "postprocess"))


class TargetError(UserError, ValueError):
    """A target that is not known or not well described; one line that says what to do."""


def targets_file() -> Path:
    """The user's own targets: a mapping of name to the attributes of a `Target`."""
    return Path(platformdirs.user_config_dir("nas-yolo")) / "targets.yaml"


def list_runtimes() -> tuple[str, ...]:
    """Names of all runtimes, sorted."""
    import evaluators.runtimes as package

    return tuple(sorted(found.name for found in pkgutil.iter_modules(package.__path__)))


def get_runtime(name: str) -> Any:
    """A runtime's file as a module; the runtime itself is not imported."""
    return importlib.import_module(f"evaluators.runtimes.{name}")


def load_targets(path: Path | None = None) -> dict[str, Target]:
    """Built-in targets and the user's.

    Raises:
        TargetError: If the file does not describe targets, or is named but not there.
    """
    return dict(BUILT_IN) | own_targets(path)


def own_targets(path: Path | None = None) -> dict[str, Target]:
    """The user's own targets.

    Raises:
        TargetError: As `load_targets`.
    """
    if path is not None and not path.is_file():
        raise TargetError(f"targets file {path} does not exist")
    path = path or targets_file()
    if not path.is_file():
        return {}
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TargetError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise TargetError(f"{path} must be a mapping of target names, e.g. cpu4: {{threads: 4}}")
    try:
        return {str(name): make_target(str(name), given) for name, given in document.items()}
    except TargetError as error:
        raise TargetError(f"{path}: {error}") from error


def save_targets(targets: dict[str, Target], path: Path | None = None) -> Path:
    """Replace the user's own targets; the path of the file.

    Comments in it are lost.
    """
    path = path or targets_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {}
    for name, target in targets.items():
        default = asdict(Target(name))
        document[name] = {key: value for key, value in asdict(target).items() if key in KEYS and value != default[key]}
        # What `make_target` has other defaults for than the class is always written.
        always = {"runtime": target.runtime, "device": target.device, "exclusive": target.exclusive}
        document[name] = {**always, **document[name]}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    temporary.replace(path)
    return path


def get_target(name: str, path: Path | None = None) -> Target:
    """The target of that name.

    Raises:
        TargetError: If there is none; the message lists those there are and says how to add one.
    """
    targets = load_targets(path)
    if name not in targets:
        raise TargetError(
            f"unknown target {name!r}; known: {', '.join(sorted(targets))}. To add a device: "
            f"nas-yolo target add {name} --ssh user@host --runtime onnxruntime"
        )
    return targets[name]


def make_target(name: str, given: Any) -> Target:
    """A target from plain data.

    Raises:
        TargetError: If it is not one; names the key.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", name):
        raise TargetError(f"target name {name!r} may have letters, digits, '.', '_' and '-', and 50 of them")
    if not isinstance(given, dict):
        raise TargetError(f"target {name!r} must be a mapping with {', '.join(KEYS)}")
    for key in given:
        if key not in KEYS:
            raise TargetError(unknown(f"key in target {name!r}:", str(key), KEYS))
    given = {key: value for key, value in given.items() if value is not None or key in ("runtime", "threads")}
    runtime = given.get("runtime", Target.runtime)
    if runtime not in list_runtimes():
        raise TargetError(unknown("runtime", str(runtime), list_runtimes()))
    file = get_runtime(runtime)
    remote = bool(given.get("ssh") or given.get("ray"))
    target = Target(**{"name": name, "device": file.DEVICES[0], "exclusive": remote, **given})
    for key, known in (("precision", file.PRECISIONS), ("device", file.DEVICES)):
        if getattr(target, key) not in known:
            raise TargetError(f"{key} of target {name!r} must be {' or '.join(known)} with {runtime}")
    if type(target.threads) is not int or not 1 <= target.threads <= MAX_THREADS:
        raise TargetError(f"threads of target {name!r} must be a whole number from 1 to {MAX_THREADS}")
    for key in ("ray", "exclusive"):
        if type(getattr(target, key)) is not bool:
            raise TargetError(f"{key} of target {name!r} must be true or false")
    if target.ray and target.ssh:
        raise TargetError(f"target {name!r} is reached by ssh or by ray, not both")
    # No option of ssh, and nothing that a shell reads, can hide in these.
    for key, pattern, example in (
        ("ssh", r"(?!-)[\w.@:%\[\]-]+", "user@host"),
        ("python", r"(?!-)[\w./~+-]+", "/opt/venv/bin/python3"),
    ):
        value = getattr(target, key)
        if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII)):
            raise TargetError(f"{key} of target {name!r} must be like {example}, not {value!r}")
    if target.port is not None and not (type(target.port) is int and 0 < target.port < 65536):
        raise TargetError(f"port of target {name!r} must be a whole number from 1 to 65535")
    if target.ssh_config is not None and not Path(str(target.ssh_config)).expanduser().is_file():
        raise TargetError(f"ssh_config of target {name!r}: {target.ssh_config} does not exist")
    if not target.ssh:
        for key in ("port", "ssh_config"):
            if getattr(target, key) is not None:
                raise TargetError(f"{key} of target {name!r} needs ssh")
    if runtime == "torch" and target.ssh:
        raise TargetError("runtime torch measures on this machine or a Ray node only: its models are code, not data")
    return target

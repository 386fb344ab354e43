"""`target add`, `list`, `check` and `remove`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from nas_yolo.cli.options import (
    console,
    imgsz_option,
    json_option,
    open_repository,
    print_json,
    storage_option,
    targets_option,
)

if TYPE_CHECKING:
    from evaluators.errors import LatencyError
    from evaluators.latency import Session
    from evaluators.target import Target
    from search_spaces.image_size import ImageSize

EXTRAS = ("ncnn", "openvino")  # of this package: with what converts models for them
WARM_C = 75.0  # from here to where measurements wait for a device to cool is a matter of minutes


@click.group("target")
def target_command() -> None:
    """Add, list, check and remove devices to measure on.

    \b
    Examples:
      nas-yolo target add jetson --ssh user@host --runtime tensorrt --precision fp16
      nas-yolo target add rpi5 --ssh pi@host --runtime ncnn --threads 4
      nas-yolo target add nuc --ssh user@host --runtime openvino
      nas-yolo target check rpi5 --imgsz 320
    """


@target_command.command("add")
@click.argument("name")
@click.option("--ssh", metavar="USER@HOST", help="Reached by SSH, with a key: no password is asked for.")
@click.option("--port", type=int, help="Of the SSH server.")
@click.option("--ssh-config", type=click.Path(path_type=Path), metavar="FILE", help="In place of ~/.ssh/config.")
@click.option("--ray", is_flag=True, help="The node of a Ray cluster that owns the resource target:NAME.")
@click.option("--runtime", metavar="NAME", help="What runs the network there.  [default: onnxruntime]")
@click.option("--precision", metavar="P", help="fp32, fp16, bf16 or int8, as the runtime has it.  [default: fp32]")
@click.option("--threads", type=int, metavar="N", help="Of a CPU.  [default: 1]")
@click.option("--device", metavar="NAME", help="What the runtime computes on, if it has several: cpu, cuda, tensorrt.")
@click.option("--python", metavar="PATH", help="The interpreter there.")
@click.option(
    "--exclusive/--shared",
    default=None,
    help="Whether nothing else runs on it.  [default: exclusive if it is another machine]",
)
@click.option("--replace", is_flag=True, help="Overwrite your target of that name.")
@targets_option
def add_command(name: str, ssh_config: Path | None, replace: bool, targets_file: Path | None, **given: Any) -> None:
    """Describe a device to measure on. It is not connected to yet.

    \b
    Examples:
      nas-yolo target add jetson --ssh user@host --runtime tensorrt --precision fp16
      nas-yolo target add rpi5 --ssh pi@host --runtime ncnn --threads 4
      nas-yolo target add nuc --ssh user@host --runtime openvino --python /opt/venv/bin/python3
      nas-yolo target add cpu2 --threads 2
    """
    from evaluators.target import BUILT_IN, TargetError, make_target, own_targets

    if name in BUILT_IN:
        raise TargetError(f"target {name!r} is built in; choose another name")
    own = own_targets(targets_file) if targets_file is None or targets_file.exists() else {}
    if name in own and not replace:
        raise TargetError(f"there is a target {name!r} ({own[name]}); to overwrite it, give --replace")
    given = {key: value for key, value in given.items() if value is not None}
    if ssh_config:
        given["ssh_config"] = str(ssh_config.expanduser().absolute())
    target = make_target(name, given)
    path = _save({**own, name: target}, targets_file)
    screen = console()
    screen.print(f"{name}: {target}, in {path}", soft_wrap=True)
    option = f" --targets {targets_file}" if targets_file else ""
    screen.print(f"check it with: nas-yolo target check {name}{option}", soft_wrap=True)


@target_command.command("list")
@targets_option
@json_option
def list_command(targets_file: Path | None, as_json: bool) -> None:
    """List all targets, those that are built in and yours."""
    from rich.table import Table

    from evaluators.target import load_targets, own_targets
    from evaluators.target import targets_file as default_file

    own = own_targets(targets_file)
    file = str(targets_file or default_file())
    rows = [
        asdict(target) | {"where": target.where, "from": file if name in own else "built in"}
        for name, target in load_targets(targets_file).items()
    ]
    if as_json:
        return print_json(rows)
    table = Table("name", "runtime", "precision", "threads", "where", "from")
    for row in rows:
        runtime = row["runtime"] if row["device"] == "cpu" else f"{row['runtime']} on {row['device']}"
        table.add_row(row["name"], runtime, row["precision"], str(row["threads"]), row["where"], row["from"])
    console().print(table)
    return None


@target_command.command("remove")
@click.argument("name")
@targets_option
def remove_command(name: str, targets_file: Path | None) -> None:
    """Forget a target of yours. What was measured on it stays in the database."""
    from evaluators.target import BUILT_IN, TargetError, own_targets
    from search_spaces.names import unknown

    own = own_targets(targets_file)
    if name not in own:
        if name in BUILT_IN:
            raise TargetError(f"target {name!r} is built in and stays")
        raise TargetError(unknown("target", name, own) if own else f"unknown target {name!r}; you have added none")
    del own[name]
    console().print(f"{name} removed from {_save(own, targets_file)}", soft_wrap=True)


def _save(own: dict[str, Target], targets_file: Path | None) -> Path:
    from evaluators.target import TargetError, save_targets

    try:
        return save_targets(own, targets_file)
    except OSError as error:
        raise TargetError(f"{error.filename} cannot be written: {error.strerror}") from error


@target_command.command("check")
@click.argument("name")
@imgsz_option(320)
@click.option("--recalibrate", is_flag=True, help="Keep what the reference takes now as what it takes there.")
@targets_option
@storage_option
@json_option
def check_command(
    name: str, imgsz: ImageSize, recalibrate: bool, targets_file: Path | None, url: str | None, as_json: bool
) -> None:
    """Connect to a target, show what it is, and see how well measurements repeat there.

    The reference model is timed against itself in fresh sessions and compared with the calibration in the database,
    which is made if there is none. Exit 1, with one line that says why, if nothing can be measured there.

    \b
    Examples:
      nas-yolo target check jetson
      nas-yolo target check rpi5 --imgsz 640 --recalibrate
    """
    from evaluators import latency
    from evaluators.errors import LatencyError
    from evaluators.target import get_target
    from search_spaces import UserError

    target = get_target(name, targets_file)
    repository = open_repository(url)
    try:
        with console(as_json=True).status(f"connecting to {name}") as progress:
            identity = latency.identify(target)
            sessions: list[Session] = []
            progress.update("timing the reference")
            for session in latency.reference_sessions(target, imgsz):
                sessions.append(session)
                progress.update(
                    f"timing the reference: {len(sessions)} of {latency.CALIBRATION_SESSIONS} sessions done"
                )
        measured = latency.calibration_from(target, imgsz, sessions)
    except LatencyError as error:
        raise UserError(f"target {name} cannot be measured: {error}{_advice(target, error)}") from error
    stored = repository.calibration(measured.fingerprint, imgsz)
    if recalibrate or stored is None:
        repository.add_calibration(measured)
    off = measured.reference_ms / stored.reference_ms - 1 if stored else None
    warnings = _warnings(identity, sessions)
    if off is not None and abs(off) > latency.DRIFTED and not recalibrate:
        warnings.append(latency.off_text(target, off))
    document = {
        "target": asdict(target),
        "identity": identity,
        "fingerprint": measured.fingerprint,
        "imgsz": imgsz.plain,
        "reference_ms": measured.reference_ms,
        "reference_spread": measured.spread,
        "ratio_spread": latency.spread([session.ratio for session in sessions]),
        "sessions": [session.model_dump(include={"reference_ms", "ratio", "load", "flags"}) for session in sessions],
        "before": sessions[0].before,
        "after": sessions[-1].after,
        "calibration": {
            "stored_ms": stored.reference_ms if stored else None,
            "off": off,
            "written": recalibrate or stored is None,
        },
        "warnings": warnings,
    }
    if as_json:
        print_json(document)
    else:
        for line in _lines(target, document):
            console().print(line.replace("\n", " "), soft_wrap=True, markup=False)


def how_to_install(runtime: str) -> str:
    """The command that installs a runtime beside nas-yolo."""
    return f"pip install 'nas-yolo[{runtime}]'" if runtime in EXTRAS else f"pip install {runtime}"


def _advice(target: Target, error: LatencyError) -> str:
    """What to install, if that is what is missing."""
    missing = re.search(r"No module named '(\w+)", str(error))
    if not missing:
        return ""
    if target.is_local and target.python is None:
        return f"; install it: {how_to_install(missing[1])}"
    place = "" if target.is_local else f" there ({target.where})"
    return f"; install it{place}: {target.python or 'python3'} -m pip install {missing[1]}"


def _warnings(identity: dict[str, Any], sessions: list[Session]) -> list[str]:
    """What makes times there slower, or less repeatable, than they need be; and what a user can do about it."""
    from evaluators.evaluation import TIE
    from evaluators.latency import spread

    found = []
    mode = str(identity.get("power_mode", ""))
    if mode and "MAXN" not in mode:
        found.append(f"the power mode is {mode}, not MAXN; to choose it: sudo nvpmodel -m ID, often 0")
    governor = identity.get("governor", "performance")
    if governor != "performance" and not identity.get("clocks_locked"):
        found.append(f"the governor is {governor}; for steady clocks: sudo cpupower frequency-set -g performance")
    busy = [session.load or 0.0 for session in sessions if "foreign_load" in session.flags]
    if busy:
        found.append(f"other processes kept up to {max(busy):.1f} cores busy; end them, or come back later")
    hottest = max(sessions[-1].after.get("temperature_c", {}).values(), default=0.0)
    if hottest > WARM_C:
        found.append(f"it is at {hottest:.0f} °C after {len(sessions)} sessions; cool it better, or it will slow down")
    counts = Counter(flag for session in sessions for flag in session.flags if flag != "foreign_load")
    if counts:
        flags = ", ".join(f"{flag} in {count}" for flag, count in sorted(counts.items()))
        found.append(f"of {len(sessions)} sessions some are doubtful: {flags}")
    differ = spread([session.ratio for session in sessions])
    if differ > TIE:
        found.append(f"the ratio differs by {differ:.1%} between sessions: so much is needed to call a model faster")
    return found


def _lines(target: Target, document: dict[str, Any]) -> list[str]:
    """The document for people."""
    asked = {*target.settings, "postprocess", "reference", "protocol"}
    said = {name: value for name, value in document["identity"].items() if name not in asked}
    lines = [f"{target.name}: {target}"]
    for when in ("before", "after"):
        state = document[when]
        temperatures, clocks = (state.get(name, {}).values() for name in ("temperature_c", "clocks"))
        parts = [f"{max(temperatures):.0f} °C"] if temperatures else []
        # The kernel counts processor clocks in kHz and those of other devices in Hz.
        parts += [f"{max(value * 1e3 if value < 1e8 else value for value in clocks) / 1e9:.2f} GHz"] if clocks else []
        if parts:
            said[when] = ", ".join(parts)
    lines += [f"  {name.replace('_', ' '):<12} {value}" for name, value in said.items()]
    times = [session["reference_ms"] for session in document["sessions"]]
    lines.append(
        f"reference at {document['imgsz']} px: {median(times):.3g} ms in {len(times)} fresh sessions, within "
        f"±{document['reference_spread']:.1%}; its ratio to itself within ±{document['ratio_spread']:.1%}"
    )
    calibration = document["calibration"]
    if calibration["off"] is None:
        lines.append("calibration: there was none; this is it now")
    else:
        became = "; replaced, and what was measured is given anew" if calibration["written"] else ""
        lines.append(f"calibration: {calibration['stored_ms']:.3g} ms, now {calibration['off']:+.1%}{became}")
    return [*lines, *(f"warning: {warning}" for warning in document["warnings"])]

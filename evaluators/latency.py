"""Latency of one network on one target: the one timing protocol, whatever the runtime and the connection.

The candidate and a frozen reference, yolov8n at the same image size, are timed in interleaved blocks by a fresh process
on the device (`probe.py`), which has the device to itself meanwhile. The latency is the ratio of the two times the
reference's calibrated time, which is measured once per target and image size and kept.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluators import probe
from evaluators.connections import connection
from evaluators.errors import LatencyError
from evaluators.evaluation import Latency
from evaluators.export import export
from evaluators.host_lock import training
from evaluators.target import Target, get_runtime
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from torch import nn

PROTOCOL = "2"
REFERENCE = "yolov8n"
CALIBRATION_SESSIONS = 5
BRIEF_S = 1.0  # of timing: what a median of milliseconds needs; that of a ratio takes as long as the ratio does
RETRIES = 2  # of a session that should be repeated
PAUSE_S = 3.0  # before the first of them; longer before the next
COOL_S = 30.0  # likewise, for a device that was throttled
DRIFTED = 0.05  # how far the reference may be off its calibrated time before a session says so ...
OFF = 0.15  # ... and beyond which it tells nothing, nor do others since the reference was last where it should be
LIMITS_S = {"waiting": 900.0, "loading": 120.0, "measuring": 120.0}
BUILD_S = 900.0  # in place of the limit of loading, for a runtime that builds an engine
DOUBTFUL = frozenset({"wide_interval", "drift", "foreign_load", "few_samples", "unstable", "enqueue_bound"})

Time = Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)]
State = dict[str, dict[str, float]]  # as `probe.machine_state` gives it
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Calibration:
    """The reference's time on a target when it was set up.

    Attributes:
        fingerprint: Of the target (see `fingerprint`).
        imgsz: Size of the image.
        reference_ms: Median over fresh sessions of the reference's median time.
        spread: Largest relative deviation among these sessions: how far raw milliseconds can be trusted here.
        identity: What the fingerprint is of, for saying what changed; empty where it is not known.
    """

    fingerprint: str
    imgsz: ImageSize
    reference_ms: float
    spread: float
    identity: Mapping[str, Any] = field(default_factory=dict, compare=False)


class Session(BaseModel):
    """What a probe may answer; anything else is refused."""

    model_config = ConfigDict(strict=True, extra="ignore")

    ratio: Positive
    ratio_low: Positive
    ratio_high: Positive
    median_ms: Time
    p90_ms: Time | None
    reference_ms: Time
    first_ms: Time
    samples: Annotated[int, Field(ge=1)]
    drift: Share
    load: Share | None
    flags: list[Annotated[str, Field(max_length=40)]]
    load_s: Share
    seconds: Share
    settings: dict[str, Any]
    identity: dict[str, Any]
    before: State = {}
    after: State = {}
    throttled_by: list[str] = []


def identify(target: Target) -> dict[str, Any]:
    """Everything that latency depends on besides the model, as the device says: machine, system, runtime, settings.

    Raises:
        LatencyError: If it does not answer, or lacks the runtime.
    """
    return identity_of(target, connection(target)(target, _job(target, "identify"), {}))


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """Hash of an identity: sixteen hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(target: Target) -> str:
    """That of the device as it is now.

    Raises:
        LatencyError: As `identify`.
    """
    return fingerprint_of(identify(target))


def read_identity(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored identity as the device tells it now: earlier ones have the whole text of programs and files."""
    read = dict(stored)
    for name, parse in (("power_mode", probe.power_mode), ("l4t", probe.l4t_version)):
        if name in read:
            read[name] = parse(str(read[name])) or read[name]
    if (gpu := probe.gpus(str(read.pop("gpu", "")))) is not None:
        read["gpu"] = gpu
    return read


def is_same(before: Mapping[str, Any], fingerprint: str, now: Mapping[str, Any]) -> bool:
    """Whether a device tells of itself now what it told then.

    Args:
        before: What that was, by `read_identity`; empty where it is not known.
        fingerprint: Of what it was, as it was told.
        now: What it tells now.
    """
    return fingerprint_of(now) == fingerprint or before == now


def is_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two identities contradict each other. What only one of them tells does not count as changed."""
    return any(before[name] != after[name] for name in before.keys() & after.keys())


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What is not the same in two identities, for people."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    was = {name: f"was {before[name]}" if name in before else "was not told" for name in names}
    now = {name: f"is {after[name]}" if name in after else "is not told now" for name in names}
    return ", ".join(f"{name} {was[name]}, {now[name]}" for name in names)[:300]


def calibrate(target: Target, imgsz: ImageSize) -> Calibration:
    """Time the reference in fresh sessions. Do it once per target and image size, on a quiet machine.

    Raises:
        LatencyError: If it cannot be timed, or the device changed or was throttled meanwhile.
    """
    return calibration_from(target, imgsz, list(reference_sessions(target, imgsz, BRIEF_S)))


def reference_sessions(target: Target, imgsz: ImageSize, timing_s: float | None = None) -> Iterator[Session]:
    """Time the reference against itself in fresh sessions, as many as a calibration needs.

    Args:
        target: Where.
        imgsz: Size of the image.
        timing_s: As of `time_files`; by default the ratios are as good as those of candidates.

    Raises:
        LatencyError: If it cannot be timed.
    """
    files = reference_files(target, imgsz)
    for _ in range(CALIBRATION_SESSIONS):
        yield time_files(target, files, files, timing_s)


def calibration_from(target: Target, imgsz: ImageSize, sessions: Sequence[Session]) -> Calibration:
    """What sessions of the reference with itself say.

    Raises:
        LatencyError: If the device changed or was throttled meanwhile, or did not always tell the same.
    """
    if slowed := sorted({name for session in sessions for name in session.throttled_by}):
        raise LatencyError("throttled", f"target {target.name} was throttled while it was calibrated: {slowed}")
    times = [session.reference_ms for session in sessions]
    identity, *others = (identity_of(target, session.identity) for session in sessions)
    calibration = Calibration(fingerprint_of(identity), imgsz, statistics.median(times), spread(times), identity)
    for other in others:
        check_same(target, other, calibration)
    return calibration


def spread(values: Sequence[float]) -> float:
    """Largest relative deviation from the median."""
    middle = statistics.median(values)
    return max(abs(value / middle - 1) for value in values)


def measure_latency(
    network: nn.Module, target: Target, calibration: Calibration, scratch: Path, sessions: int = 1
) -> Iterator[Latency]:
    """Export a network and time it, in fresh processes until `sessions` of them were good, or there were too many.

    Args:
        network: A detector as Ultralytics builds it; left unchanged.
        target: Where.
        calibration: Of that target and the image size to use.
        scratch: An existing folder for the exported file.
        sessions: Good ones that are wanted.

    Yields:
        Each session, the doubtful and the invalid too; see `combine`.

    Raises:
        LatencyError: If it cannot be timed: the device is away or another one, the runtime crashed, hung, or would not
            do what was asked.
    """
    reference = reference_files(target, calibration.imgsz)
    with exported(network, target, calibration.imgsz, scratch) as (files, export_s):
        good = retries = usable = 0
        while good < sessions:
            session = time_files(target, files, reference)
            check_session(target, session, calibration)
            latency = _latency(session, target, calibration, export_s)
            again = retries < RETRIES and should_repeat(latency, target)
            off = "off_calibration" in latency.flags
            if off and not again and target.exclusive:
                raise LatencyError("drifted", off_text(target, session.reference_ms / calibration.reference_ms - 1))
            yield latency
            usable += latency.quality != "invalid"
            if not usable and not again:
                why = ", ".join(session.throttled_by)
                raise LatencyError("throttled", f"{target.name} slowed down in each session ({why}); let it cool down")
            if again:
                retries += 1
                time.sleep(retries * (COOL_S if "throttled" in latency.flags else PAUSE_S))
            else:
                good += 1


def should_repeat(latency: Latency, target: Target) -> bool:
    """Whether a session is to be repeated after a pause.

    A reference that is somewhat off its calibrated time is corrected for by the ratio. It calls for another look at a
    device of its own, whose clock should stay where it is; a shared machine is faster and slower all the time.
    """
    return latency.quality != "good" or (target.exclusive and "drifted" in latency.flags)


def off_text(target: Target, off: float) -> str:
    """That a device is not as fast as it was, and what to do."""
    return (
        f"the reference takes {off:+.0%} of its calibrated time on {target.name} (heat, power mode, other work?); see "
        f"nas-yolo target check {target.name}, and give it --recalibrate if that is how the device is from now on"
    )


def check_same(target: Target, identity: Mapping[str, Any], calibration: Calibration) -> None:
    """Refuse to compare devices that are not the same.

    Raises:
        LatencyError: `device_changed`; `unreachable` if it only does not tell all that it told, or more: that may pass.
    """
    before = calibration.identity
    if is_same(before, calibration.fingerprint, identity):
        return
    told = f" ({differences(before, identity)})" if before else ""
    if before and not is_changed(before, identity):
        raise LatencyError(
            "unreachable", f"target {target.name} does not tell the same of itself as before{told}: it may have changed"
        )
    raise LatencyError("device_changed", f"target {target.name} is not the device, or not set up, as it was{told}")


def check_session(target: Target, session: Session, calibration: Calibration) -> None:
    """The same for the device of a session. A throttled one, whose clocks are not what they are set to, is no other.

    Raises:
        LatencyError: As `check_same`.
    """
    if not session.throttled_by:
        check_same(target, identity_of(target, session.identity), calibration)


@contextmanager
def exported(
    network: nn.Module, target: Target, imgsz: ImageSize, scratch: Path
) -> Iterator[tuple[dict[str, Path], float]]:
    """The files that the target's runtime reads, by their names in a job, and the seconds that it took."""
    started = time.monotonic()
    format = _format(target)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="export-") as folder:
        with training():  # it computes, which must not disturb a measurement on this machine
            files = export(network, imgsz, format, Path(folder))
        yield files, time.monotonic() - started


def reference_files(target: Target, imgsz: ImageSize) -> dict[str, Path]:
    """The frozen reference model in the target's format, made once per image size and kept in the user's cache.

    Its weights are random but always the same; time does not depend on them.
    """
    format = _format(target)
    folder = Path(platformdirs.user_cache_dir("nas-yolo")) / "reference" / f"{REFERENCE}-{imgsz}-{format}-{PROTOCOL}"
    if not folder.exists():
        import torch

        from search_spaces import hook
        from search_spaces.presets import load_preset

        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = hook.build(hook.model_file(load_preset(REFERENCE), nc=80))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            with training():
                export(network, imgsz, format, new)
            try:
                new.rename(folder)
            except OSError:  # another process was first
                if not folder.exists():
                    raise
    return {path.name: path for path in sorted(folder.iterdir())}


@lru_cache
def _format(target: Target) -> str:
    """What the target's runtime reads; asked once per process, since every session says whether the device changed."""
    format: str = get_runtime(target.runtime).model_format(target.precision, identify(target))
    return format


def time_files(
    target: Target, files: Mapping[str, Path], reference: Mapping[str, Path], timing_s: float | None = None
) -> Session:
    """One session on the device, in a fresh process.

    Args:
        target: Where.
        files: Of the candidate: `model` with the suffixes of the format.
        reference: Of the reference, likewise.
        timing_s: Seconds after which timing ends once it has enough samples; None: when the ratio is known well.

    Raises:
        LatencyError: If there is no figure, or none that can be believed.
    """
    named = dict(files) | {path.name.replace("model.", "reference."): path for path in reference.values()}
    answer = connection(target)(target, _job(target, "measure") | {"timing_s": timing_s}, named)
    try:
        return Session.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LatencyError("garbage", f"the device's {where} makes no sense: {first['msg']}", str(error)) from error


def _job(target: Target, action: str) -> dict[str, Any]:
    runtime = get_runtime(target.runtime)
    loading = BUILD_S if target.runtime == "tensorrt" else LIMITS_S["loading"]
    return {
        "action": action,
        "runtime": target.runtime,
        "runtime_source": Path(runtime.__file__).read_text(encoding="utf-8"),
        "settings": target.settings,
        "postprocess": target.postprocess,
        "limits": LIMITS_S | {"loading": loading},
    }


def identity_of(target: Target, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the device says of itself, with what is asked of it."""
    asked = target.settings | {"postprocess": target.postprocess, "reference": REFERENCE, "protocol": PROTOCOL}
    return dict(said) | asked


def _latency(session: Session, target: Target, calibration: Calibration, export_s: float) -> Latency:
    reference_ms = calibration.reference_ms
    off = abs(session.reference_ms / reference_ms - 1)
    flags = [*session.flags, *(["off_calibration"] if off > OFF else ["drifted"] if off > DRIFTED else [])]
    doubtful = off > OFF or not DOUBTFUL.isdisjoint(flags)
    return Latency(
        target=target.name,
        fingerprint=calibration.fingerprint,
        imgsz=calibration.imgsz,
        latency_ms=session.ratio * reference_ms,
        ci_low_ms=session.ratio_low * reference_ms,
        ci_high_ms=session.ratio_high * reference_ms,
        ratio=session.ratio,
        reference_ms=reference_ms,
        median_ms=session.median_ms,
        p90_ms=session.p90_ms,
        samples=session.samples,
        drift=session.drift,
        load=session.load,
        quality="invalid" if "throttled" in flags else "noisy" if doubtful else "good",
        flags=tuple(flags),
        conditions={
            "settings": session.settings,
            "exclusive": target.exclusive,
            "first_ms": session.first_ms,
            "reference_off": round(session.reference_ms / reference_ms - 1, 4),
            "seconds": {"export": round(export_s, 3), "load": round(session.load_s, 3), "time": session.seconds},
            **({"before": session.before, "after": session.after} if session.before else {}),
            **({"throttled_by": session.throttled_by} if session.throttled_by else {}),
        },
    )

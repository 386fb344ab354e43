"""Measured values, with units and what they depend on; and failures, with their cause."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal

from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize

Quality = Literal["good", "noisy", "invalid"]
Cause = Literal[
    "build",
    "export",
    "timeout",
    "nan",
    "diverged",
    "oom",
    "crash",
    "error",
    "unsupported",
    "config_mismatch",
    "garbage",
    "unreachable",
    "device_busy",
    "device_changed",
    "throttled",
    "drifted",
    "disk_full",
    "data_changed",
    "storage",
    "environment",
]
TIE = 0.03
"""Relative difference of two latencies under which neither is called faster: what sessions differ by, at most."""


@dataclass(frozen=True)
class Complexity:
    """Size of a network. Lower is cheaper; neither figure says how fast it runs on a device.

    Attributes:
        params: Number of weights, as Ultralytics counts them before fusing.
        gflops: Billions of floating-point operations for one image at the image size of the evaluation, by thop, as
            Ultralytics counts them (two per multiply-add, batch normalisation included).
        params_fused: After batch normalisation is folded into the convolutions: what is deployed.
        gflops_fused: Likewise.
        layers: Number of modules, containers included.
    """

    params: int
    gflops: float
    params_fused: int
    gflops_fused: float
    layers: int


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass, batch 1, without decoding or NMS, on one target. Lower is better.

    Attributes:
        target: The target's name.
        fingerprint: Hash of all that the time depends on besides the model: machine, runtime and version, precision,
            threads, protocol. Two latencies are comparable only if it is equal.
        imgsz: Size of the image.
        latency_ms: `ratio` times the calibrated time of the reference: the figure to compare.
        ci_low_ms: Lower end of its 95 % interval.
        ci_high_ms: Upper end.
        ratio: Median over interleaved blocks of candidate time / reference time.
        reference_ms: The calibrated time of the frozen reference model, yolov8n at this image size.
        median_ms: Raw median of the candidate in this session.
        p90_ms: Raw 90th percentile; None from fewer than 64 samples.
        samples: Timed runs of the candidate.
        drift: Relative change of the ratio between the halves of the session.
        load: Cores kept busy by other processes meanwhile; None where the system does not tell.
        quality: `good`; `noisy` if a flag is up that makes it doubtful; `invalid` if it is not to be used.
        flags: `wide_interval` and `drift` (of the ratio), `foreign_load`, `few_samples`, `unstable` and `enqueue_bound`
            (trtexec's own alarms): noisy. `throttled`: invalid. `drifted`: the reference was 5 to 15 % off its
            calibrated time, which the ratio corrects; `off_calibration`: more than that.
        sessions: Fresh processes that it is the median of.
        conditions: For the record: settings read back, state of the device before and after, seconds of each phase.
    """

    target: str
    fingerprint: str
    imgsz: ImageSize
    latency_ms: float
    ci_low_ms: float
    ci_high_ms: float
    ratio: float
    reference_ms: float
    median_ms: float
    p90_ms: float | None
    samples: int
    drift: float
    load: float | None
    quality: Quality
    flags: tuple[str, ...] = ()
    sessions: int = 1
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def error_ms(self) -> float:
        """Half the width of its interval."""
        return (self.ci_high_ms - self.ci_low_ms) / 2


def combine(sessions: Sequence[Latency]) -> Latency | None:
    """One latency from several sessions of the same network on the same target; None if none may be used.

    Good sessions count, noisy ones where there is no good one. Its interval is the widest of: that within a session,
    and what the sessions differ by.

    Args:
        sessions: Oldest first.
    """
    good = [one for one in sessions if one.quality == "good"] or [one for one in sessions if one.quality == "noisy"]
    if len(good) < 2:
        return good[0] if good else None
    middle = median(one.latency_ms for one in good)
    apart = max(abs(one.latency_ms - middle) for one in good)
    half = max(apart, median(one.error_ms for one in good))
    return replace(
        good[-1],
        latency_ms=middle,
        ratio=middle / good[-1].reference_ms,
        ci_low_ms=max(middle - half, 0.0),
        ci_high_ms=middle + half,
        median_ms=median(one.median_ms for one in good),
        samples=sum(one.samples for one in good),
        sessions=len(good),
    )


@dataclass(frozen=True)
class DeployedAccuracy:
    """Accuracy of the file that is deployed, on the validation images, beside that of the network it was made from.

    Attributes:
        target: The target's name.
        fingerprint: Of the target.
        precision: That the runtime computes in.
        epochs: That the network was trained for.
        images: Validation images.
        map50_95: In [0, 1]. Higher is better.
        map50: At IoU 0.50.
        torch_map50_95: Of PyTorch in fp32, by the same validation.
        torch_map50: Likewise.
    """

    target: str
    fingerprint: str
    precision: str
    epochs: int
    images: int
    map50_95: float
    map50: float
    torch_map50_95: float
    torch_map50: float


@dataclass(frozen=True)
class Epoch:
    """One epoch of training; the last of a rung is reported once its checkpoint is on disk.

    Attributes:
        epoch: Counted from 1.
        map50_95: Mean average precision over IoU 0.50 to 0.95 on the validation images, in [0, 1]. Higher is better.
            None where no decision needs it: only the ends of rungs are validated.
        map50: At IoU 0.50; likewise.
        loss: Mean training loss of the epoch (sum of its parts).
        seconds: Wall-clock seconds since the previous epoch (the first includes set-up), without waiting for latency
            measurements.
    """

    epoch: int
    map50_95: float | None
    map50: float | None
    loss: float
    seconds: float


@dataclass(frozen=True)
class Pace:
    """How fast a training runs, known some seconds into its first epoch.

    Attributes:
        steps: Batches that were timed; none of the first, which also set up what the others use.
        epoch_steps: Batches in an epoch.
        seconds: Wall-clock seconds of the timed ones, without waiting for latency measurements.
    """

    steps: int
    epoch_steps: int
    seconds: float

    @property
    def epoch_s(self) -> float:
        """Seconds that an epoch is predicted to take: all its batches, but no set-up and no validation."""
        return self.seconds / self.steps * self.epoch_steps


@dataclass(frozen=True)
class LibraryEntry:
    """Weights of a block that imitates the parent at a place.

    Attributes:
        place: Where, e.g. `P2.block`.
        block: Which; `-` where there is nothing to choose.
        widen: Of a stage, by how much it widens what it reads.
        error: How far it was from the parent in its last steps, lower is better; None: it could not be trained.
        seconds: That it took to make; 0 if another search had made it.
        problem: Why it could not be trained; empty otherwise.
    """

    place: str
    block: str
    widen: int
    error: float | None
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class AssembledScore:
    """What a design finds that was put together from a library, with no training of its own.

    Attributes:
        architecture: The design.
        map50_95: On a fixed part of the validation images, in [0, 1]; None: it could not be put together.
        seconds: That it took.
        problem: Why it could not be put together; empty otherwise.
    """

    architecture: Architecture
    map50_95: float | None
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class FirstWeights:
    """Where the first weights of a training came from.

    Attributes:
        parents: Trained networks, by name; none where all weights were drawn at random.
        share: Of the network's parameters that were taken from these, 0 to 1.
    """

    parents: tuple[str, ...] = ()
    share: float = 0.0


@dataclass(frozen=True)
class Scores:
    """What may tell the accuracy of a network before it is trained; see `evaluators/zero_cost`.

    Attributes:
        values: By name; higher is meant to be better. What could not be computed is left out.
        seconds: Wall-clock seconds that they took together.
    """

    values: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class HandedOver:
    """The checkpoint of one training is now that of another, too."""


@dataclass(frozen=True)
class Failure:
    """Why an evaluation has no value.

    Attributes:
        cause: A word to count by.
        message: One line for people.
        detail: Traceback or output, its end, for developers.
        target: Name of the target on which it happened; empty where none had to do with it.
    """

    cause: Cause
    message: str
    detail: str = ""
    target: str = ""


MACHINES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO})
"""Errors of the system that every other trial would meet as well: disk full, too many open files ..."""


def failure_from(error: BaseException, cause: Cause = "error") -> Failure:
    """Turn an exception into data; memory exhaustion is recognised whatever the library calls it."""
    message = " ".join(str(error).split()) or type(error).__name__
    words = (
        "out of memory",
        "can't allocate memory",
        "cannot allocate memory",
        *("cublas_status_alloc_failed", "cudnn_status_internal_error", "unable to find an engine"),
    )  # CUDA's, torch's on a CPU, the kernel's; and as Ultralytics knows, those of CUDA's libraries
    if isinstance(error, MemoryError) or any(word in message.lower() for word in words):
        cause = "oom"
    if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno in MACHINES):
        cause = "environment"
    detail = "".join(traceback.format_exception(error))
    return Failure(cause, f"{type(error).__name__}: {message}"[:300], detail[-4000:])

"""Everything that is known of an architecture before its first epoch: size, then latency on each target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluators.evaluation import Complexity, Failure, Latency, failure_from
from evaluators.latency import Calibration, LatencyError, calibrate, measure_latency
from evaluators.memory import release_memory
from evaluators.target import Target
from search_spaces.architecture import Architecture

SESSIONS = 2  # a noisy measurement is repeated once


@dataclass(frozen=True)
class MeasurementRequest:
    """What a worker needs to know.

    Attributes:
        architecture: What to measure.
        classes: Number of classes, which the head's size depends on.
        imgsz: Pixels.
        targets: Those on which no latency is known yet, each with its calibration.
        scratch: A folder for the exported file.
    """

    architecture: Architecture
    classes: int
    imgsz: int
    targets: tuple[tuple[Target, Calibration], ...]
    scratch: Path


def measure(request: MeasurementRequest) -> Iterator[Complexity | Latency | Failure]:
    """Yield the size, then the latencies; or, last, what went wrong."""
    try:
        import torch

        from evaluators.complexity import measure_complexity
        from search_spaces import hook

        torch.set_num_threads(1)
        model = hook.build(hook.model_file(request.architecture, request.classes))
    except Exception as error:
        yield failure_from(error, "build")
        return
    try:
        yield measure_complexity(model, request.imgsz)
        request.scratch.mkdir(parents=True, exist_ok=True)
        for target, calibration in request.targets:
            for _ in range(SESSIONS):
                latency = measure_latency(model, target, calibration, request.scratch)
                yield latency
                if latency.quality == "good":
                    break
    except LatencyError as error:
        yield failure_from(error, "latency")
    except Exception as error:
        yield failure_from(error, "export")
    finally:
        release_memory()


def calibrate_target(target: Target, imgsz: int) -> Iterator[Calibration | Failure]:
    """Yield the reference's time on a target, or what went wrong."""
    try:
        yield calibrate(target, imgsz)
    except Exception as error:
        yield failure_from(error, "latency")

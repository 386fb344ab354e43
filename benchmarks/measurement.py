"""What a measurement in a search takes, by part, and whether the error that it states is right.

    python -m benchmarks.measurement --json measurement.json

The same network is measured again and again by a search's workers, with pauses as between designs: on a quiet machine,
then beside a training. `--one-core` keeps all of it on one core. Needs a machine that nobody else uses meanwhile.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.report import report
from evaluators.accuracy.request import TrainingRequest
from evaluators.accuracy.training import train
from evaluators.dataset import Dataset, load_dataset, spread_images
from evaluators.evaluation import Complexity, Failure, Latency, Scores, combine
from evaluators.latency import Calibration, fingerprint_of, identify
from evaluators.measurement import MeasurementRequest, calibrate_target, measure
from evaluators.target import BUILT_IN
from evaluators.zero_cost import IMAGES
from nas_yolo.digits import write_digits
from nas_yolo.runners import Runner, Work
from nas_yolo.runners.ray import RayRunner
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset

MODEL, TARGET, IMAGE_SIZE = "yolov8n", BUILT_IN["cpu"], ImageSize(96, 96)
PAUSE_S = 5.0  # between two measurements, in which a search trains on
SETTLE_S = 40.0  # until a training has begun and its first batches are over
PARTS = ("worker", "build, count, scores", "export", "session", "loading", "timing", "sessions again", "rest")


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        seconds: From its request to its end.
        parts: Of these, by `PARTS`.
        sessions: Its sessions.
    """

    seconds: float
    parts: dict[str, float]
    sessions: tuple[Latency, ...]


def stamped(work: Work) -> Iterator[tuple[float, Any]]:
    """What a piece of work yields, each with when; first that it was begun."""
    yield time.time(), None
    for item in work():
        yield time.time(), item


def done(runner: Runner, key: str, work: Work) -> list[tuple[float, Any]]:
    """Do a measurement and wait for its end; what `stamped` yields, with its request before and its end behind."""
    found: list[tuple[float, Any]] = [(time.time(), None)]
    runner.submit(key, "measure", partial(stamped, work))
    while True:
        for one in runner.poll(1.0):
            if one.key == key and one.item is None:
                return [*found, (time.time(), None)]
            if isinstance(one.item, Failure):
                raise click.ClickException(f"{one.key}: {one.item.message}")
            if one.key == key:
                found.append(one.item)


def parts_of(stamps: Sequence[tuple[float, Any]]) -> Measured:
    """The parts of a measurement, from when it yielded what."""
    (asked, _), (begun, _), *items, (ended, _) = stamps
    sized = max(when for when, item in items if isinstance(item, Complexity | Scores))
    timed = [(when, item) for when, item in items if isinstance(item, Latency)]
    first, seconds = timed[0][1], timed[0][1].conditions["seconds"]
    parts = {
        "worker": begun - asked,
        "build, count, scores": sized - begun,
        "export": seconds["export"],
        "session": timed[0][0] - sized - sum(seconds[name] for name in ("export", "load", "time")),
        "loading": seconds["load"],
        "timing": seconds["time"],
        "sessions again": timed[-1][0] - timed[0][0],
        "rest": ended - timed[-1][0],
    }
    assert first.target == TARGET.name
    return Measured(ended - asked, parts, tuple(item for _, item in timed))


def figures(measured: Sequence[Measured]) -> dict[str, Any]:
    """Medians of the seconds, and what the latencies differ by against what they state."""
    first, *later = measured
    latencies = [latency for one in measured if (latency := combine(one.sessions))]
    values, halves = [one.latency_ms for one in latencies], [one.error_ms / one.latency_ms for one in latencies]
    middle = statistics.median(values)
    return {
        "first_s": round(first.seconds, 1),
        "seconds": round(statistics.median(one.seconds for one in later), 1),
        "seconds_max": round(max(one.seconds for one in later), 1),
        "parts_s": {name: round(statistics.median(one.parts[name] for one in later), 2) for name in PARTS},
        "sessions": [len(one.sessions) for one in measured],
        "latency_ms": round(middle, 3),
        "cv_percent": round(100 * statistics.stdev(values) / statistics.fmean(values), 2),
        "stated_percent": round(100 * statistics.median(halves), 2),
        "covered": f"{sum(one.ci_low_ms <= middle <= one.ci_high_ms for one in latencies)} of {len(latencies)}",
        "values_ms": [round(value, 4) for value in values],
        "halves_percent": [round(100 * half, 2) for half in halves],
        "session_ms": [[round(one.latency_ms, 4) for one in some.sessions] for some in measured],
        "session_halves_percent": [
            [round(100 * one.error_ms / one.latency_ms, 2) for one in some.sessions] for some in measured
        ],
        "reference_off": [[one.conditions["reference_off"] for one in some.sessions] for some in measured],
        "all_parts": [{part: round(seconds, 2) for part, seconds in one.parts.items()} for one in measured],
        "flags": [sorted({flag for session in one.sessions for flag in session.flags}) for one in measured],
    }


def measure_often(
    runner: Runner, calibration: Calibration, dataset: Dataset, folder: Path, repeats: int, name: str
) -> dict[str, Any]:
    """The figures of one condition."""
    request = MeasurementRequest(
        architecture=load_preset(MODEL),
        classes=len(dataset.names),
        imgsz=IMAGE_SIZE,
        targets=((TARGET, calibration),),
        scratch=folder / "scratch",
        images=tuple(map(str, spread_images(dataset, IMAGES))),
    )
    found = []
    for number in range(repeats + 1):
        found.append(parts_of(done(runner, f"{name} {number}", partial(measure, request))))
        print(f"{name}: {found[-1].seconds:.1f} s, {len(found[-1].sessions)} sessions", file=sys.stderr)
        end = time.monotonic() + PAUSE_S
        while (left := end - time.monotonic()) > 0:
            runner.poll(left)
    return figures(found)


def calibrated(runner: Runner, name: str) -> tuple[float, Calibration]:
    """Seconds that a calibration takes, and what it says."""
    identity = identify(TARGET)
    work = partial(calibrate_target, TARGET, IMAGE_SIZE, fingerprint_of(identity), identity)
    stamps = done(runner, f"calibrate {name}", work)
    return stamps[-1][0] - stamps[0][0], stamps[2][1]


def training(dataset: Dataset, folder: Path) -> TrainingRequest:
    """One that does not end by itself."""
    return TrainingRequest(
        architecture=load_preset(MODEL),
        dataset=dataset,
        imgsz=IMAGE_SIZE,
        epochs=300,
        until=300,
        seed=0,
        checkpoint=folder / "training.pt",
        scratch=folder / "training",
        arguments={"batch": 16, "nbs": 16},
    )


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Measurements in each condition, after a first.")
@click.option("--one-core", is_flag=True, help="Keep workers and sessions on one core.")
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(repeats: int, one_core: bool, file: Path | None) -> None:
    """Print seconds of a measurement by part, quiet and beside a training, and of a calibration."""
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    document: dict[str, Any] = {"repeats": repeats, "imgsz": IMAGE_SIZE.plain, "one_core": one_core}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # the reference is to be made, too
        dataset = load_dataset(write_digits(folder / "data"))
        runner = RayRunner(1, 0.0, folder)
        try:
            document["calibration_s"] = {}
            document["calibration_s"]["quiet"], calibration = calibrated(runner, "quiet")
            document["quiet"] = measure_often(runner, calibration, dataset, folder, repeats, "quiet")
            runner.submit("training", "train", partial(train, training(dataset, folder)))
            runner.poll(SETTLE_S)
            document["beside a training"] = measure_often(
                runner, calibration, dataset, folder, repeats, "beside a training"
            )
            document["calibration_s"]["beside a training"], _ = calibrated(runner, "beside a training")
        finally:
            runner.close()
    rows = []
    for condition in ("quiet", "beside a training"):
        found = document[condition]
        parts = ", ".join(f"{part} {seconds}" for part, seconds in found["parts_s"].items())
        rows += [
            (f"{condition}: seconds", f"{found['seconds']} (at most {found['seconds_max']}, first {found['first_s']})"),
            (f"{condition}: parts", parts),
            (f"{condition}: latency", f"{found['latency_ms']} ms, CV {found['cv_percent']} %"),
            (f"{condition}: stated", f"±{found['stated_percent']} %, right in {found['covered']}"),
            (f"{condition}: calibration", f"{document['calibration_s'][condition]:.1f} s"),
        ]
    report(f"Measurements of {MODEL} at {IMAGE_SIZE} px", rows, document, file)


if __name__ == "__main__":
    main()

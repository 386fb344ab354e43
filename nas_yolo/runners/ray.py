"""Work on Ray: worker processes stay warm between trainings, and survive one another's deaths."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Before Ray is imported: it reads these once. No usage statistics; no advice about GPUs that are not there.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from evaluators.evaluation import Failure, failure_from
from nas_yolo.environment import ultralytics_environment
from nas_yolo.runners import Kind, Report, Work
from nas_yolo.runners.clock import AwakeClock

OBJECT_STORE_BYTES = 100 * 2**20  # results are a few hundred bytes each
MEASURING = 1  # processes that stay for measurements, besides those of trainings


class RayRunner:
    """A Ray cluster on this machine for the duration of a search.

    Args:
        slots: Trainings at once.
        gpus_per_trial: GPUs that each holds; 0 on a machine without.
        folder: The search's own folder. Ray would otherwise put the caller's working directory on the workers'
            module path, ahead of everything installed.
    """

    def __init__(self, slots: int, gpus_per_trial: float, folder: Path):
        self.slots = slots
        self._gpus_per_trial = gpus_per_trial
        empty = folder / "ray"
        empty.mkdir(parents=True, exist_ok=True)
        logging.getLogger("ray").setLevel(logging.ERROR)
        ray.init(
            address="local",  # never a cluster that happens to run here, or that RAY_ADDRESS names
            num_cpus=slots,
            num_gpus=None if gpus_per_trial else 0,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Of processes that have nothing to do Ray ends all beyond this number within seconds. A new one takes
            # seconds to import what a measurement needs, and more on a core that also trains.
            _system_config={"num_workers_soft_limit": slots + MEASURING},
            runtime_env={"working_dir": str(empty), "env_vars": ultralytics_environment()},
        )
        self._running: dict[Any, str] = {}
        self._clock = AwakeClock()
        self._one_gpu = ray.cluster_resources().get("GPU", 0) <= 1

    @property
    def now(self) -> float:
        """Seconds."""
        return self._clock.now

    def submit(self, key: str, kind: Kind, work: Work) -> None:
        """Hand it to Ray, which queues it until its resources are free."""
        resources: dict[str, Any] = {"num_cpus": 0}
        if kind == "train":
            resources = {"num_cpus": 1, "num_gpus": self._gpus_per_trial}
        task = _run if kind == "measure" or self._one_gpu else _run_and_exit
        self._running[task.options(**resources).remote(work)] = key

    def poll(self, timeout_s: float) -> Sequence[Report]:
        """What the workers have reported."""
        if not self._running:
            self._clock.wait(timeout_s)
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        more, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [report for results in {*ready, *more} for report in self._next(results)]

    def cancel(self, key: str) -> None:
        """End its process."""
        for results, other in list(self._running.items()):
            if other == key:
                ray.cancel(results, force=True)
                del self._running[results]

    def close(self) -> None:
        """End the cluster with everything that runs on it."""
        self._running.clear()
        self._clock.close()
        ray.shutdown()

    def _next(self, results: Any) -> list[Report]:
        key = self._running[results]
        try:
            return [Report(key, ray.get(next(results)))]
        except StopIteration:
            del self._running[results]
            return [Report(key, None)]
        except RayTaskError as error:
            del self._running[results]
            return [Report(key, failure_from(error.cause)), Report(key, None)]
        except RayError as error:
            del self._running[results]
            cause = "oom" if isinstance(error, OutOfMemoryError) else "crash"
            message = " ".join(str(error).split())[:300]
            failure = Failure(cause, f"the worker process died: {message}")  # type: ignore[arg-type]
            return [Report(key, failure), Report(key, None)]


def _results(work: Work) -> Iterator[Any]:
    # Not "yield from": Ray sends to what it delegates to, and not every iterator can be sent to.
    for item in work():  # noqa: UP028
        yield item


# No retries by Ray: whether to try again is the search's decision, and is recorded.
_run = ray.remote(max_retries=0, num_returns="streaming")(_results)
# Ray gives a process another GPU with every task, but CUDA keeps to the one that it saw first.
_run_and_exit = ray.remote(max_retries=0, num_returns="streaming", max_calls=1)(_results)

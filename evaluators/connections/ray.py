"""The node of a Ray cluster that owns the custom resource `target:NAME`. nas-yolo is installed there.

A process can belong to one cluster only, and whoever asks may belong to another: a search has one of its own. So each
job is handed over by a process of its own, which talks to Ray on one side, and on the other as a probe does.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluators.connections import local
from evaluators.connections._exchange import exchange
from evaluators.errors import LatencyError
from evaluators.target import Target

START = "import sys;sys.path[:]=sys.argv[1:];from evaluators.connections.ray import hand_over;sys.exit(hand_over())"
CLUSTER_S = 20.0  # until Ray has connected; it would try for minutes
NODE_S = 5.0  # how long a node may take to appear in the cluster
SHARE = 0.001  # of the resource: it says where, the lock on the device says when
POLL_S = 0.5

# A search starts a cluster, which sets this for its workers; the cluster of the target may be without. So it is noted
# here, in a variable that workers inherit: a search asks its targets who they are before it starts anything.
GIVEN = "NAS_YOLO_RAY_AUTH_MODE"
os.environ.setdefault(GIVEN, os.environ.get("RAY_AUTH_MODE", ""))


def perform(target: Target, job: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """One job.

    Raises:
        LatencyError: If there is no result; `unreachable` without a cluster, or a node of it that is the target.
    """
    request = {
        "target": asdict(target),
        "job": job,
        "sizes": {name: path.stat().st_size for name, path in files.items()},
        "limits": {"waiting": sum(job["limits"].values())},  # phases on the node are kept there
    }
    path = [str(Path(entry).absolute()) for entry in sys.path]
    return exchange([sys.executable, "-c", START, *path], request, files, _explain)


def _explain(status: int, said: str) -> LatencyError:
    last = (said.splitlines() or ["it said nothing"])[-1]
    return LatencyError("unreachable", f"the connection to Ray ended with status {status}: {last[:200]}", said)


def hand_over() -> int:
    """In the process of its own: read one request and its files, have it done, say what came of it."""
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print there

    def say(event: Mapping[str, Any]) -> None:
        answers.write(json.dumps(event) + "\n")
        answers.flush()

    # Before Ray is imported: it reads these once. No usage statistics; no advice about GPUs that are not there.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    os.environ.pop("RAY_AUTH_MODE", None)
    if os.environ[GIVEN]:
        os.environ["RAY_AUTH_MODE"] = os.environ[GIVEN]
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

    source.read(int(source.readline()))  # a probe: the node has its own
    request = json.loads(source.readline())
    answers.write(f"\n{request['marker']}\n")
    resource = f"target:{request['target']['name']}"
    # No retries by Ray: whether to try again is the search's decision. No processors: see SHARE.
    remote = ray.remote(max_retries=0, num_cpus=0, resources={resource: SHARE})(_do)
    with tempfile.TemporaryDirectory(prefix="nas-yolo-") as empty:
        os.chdir(empty)  # Ray puts the working directory on the workers' module path, ahead of everything installed
        try:
            _connect(resource, say)
            say({"event": "missing", "files": list(request["sizes"])})
            contents = {name: source.read(size) for name, size in request["sizes"].items()}
            say({"event": "phase", "phase": "waiting"})
            result = remote.remote(request["target"], request["job"], contents)
            while not ray.wait([result], timeout=POLL_S)[0]:
                if select.select([source], [], [], 0)[0]:  # nothing is sent after the files: it was closed
                    return 1
            say(ray.get(result))
        except LatencyError as error:
            say(_failure(error))
        except RayTaskError as error:
            cause, message = "error", f"on the Ray node: {error.cause}"
            if "failed to import" in message:
                cause, message = (
                    "unsupported",
                    "the Ray node has no nas-yolo, or another version: install this one there",
                )
            say(_failure(LatencyError.said(cause, message, str(error))))
        except RayError as error:
            cause = "oom" if isinstance(error, OutOfMemoryError) else "unreachable"
            say(_failure(LatencyError.said(cause, f"the Ray node was lost: {error}", str(error))))
        finally:
            ray.shutdown()
            os.chdir("/")
    return 0


def _connect(resource: str, say: Callable[[Mapping[str, Any]], None]) -> None:
    """Join the cluster that runs here, or that RAY_ADDRESS names, and wait for the node.

    Raises:
        LatencyError: `unreachable`.
    """
    import ray

    start = f"""on the device: ray start --address=HOST:6379 --resources='{{"{resource}": 1}}'"""
    none = LatencyError(
        "unreachable", f"no Ray cluster answers here or at RAY_ADDRESS; start one (ray start --head), then {start}"
    )

    def give_up() -> None:
        say(_failure(none))
        os._exit(1)

    logging.getLogger("ray").setLevel(logging.ERROR)
    patience = threading.Timer(CLUSTER_S, give_up)
    patience.start()
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds
        raise LatencyError("unreachable", f"{none}; Ray says: {error}", str(error)) from error
    finally:
        patience.cancel()
    deadline = time.monotonic() + NODE_S
    while not any(node["Alive"] and resource in node["Resources"] for node in ray.nodes()):
        if time.monotonic() > deadline:
            raise LatencyError("unreachable", f"no node of the Ray cluster has the resource {resource}; {start}")
        time.sleep(POLL_S)


def _failure(error: LatencyError) -> dict[str, Any]:
    return {"event": "failure", "cause": error.cause, "message": str(error), "detail": error.detail}


def _do(target: dict[str, Any], job: dict[str, Any], contents: dict[str, bytes]) -> dict[str, Any]:
    """On the node: one job with the probe that is installed there; what came of it, as a probe says it."""
    with tempfile.TemporaryDirectory(prefix="nas-yolo-") as folder:
        for name, content in contents.items():
            (Path(folder) / name).write_bytes(content)
        files = {name: Path(folder) / name for name in contents}
        try:
            return {"event": "result", "result": local.perform(Target(**target), job, files)}
        except LatencyError as error:
            return _failure(error)

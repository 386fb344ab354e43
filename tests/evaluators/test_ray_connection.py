"""Jobs on a real cluster of two nodes, one of which is the target. Ray itself runs in other processes only."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators import latency
from evaluators.connections import ray as connection
from evaluators.errors import LatencyError
from evaluators.target import Target
from search_spaces.image_size import ImageSize

pytestmark = pytest.mark.ray
ROOT = Path(connection.__file__).parents[2]
LONG_S = 60.0  # what must happen, happens long before

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
node = cluster.add_node(**small, resources={"target:far": 1})
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(node, allow_graceful=False)
cluster.shutdown()
"""
SEARCH = """
import json, ray
from evaluators import latency
from evaluators.connections import connection
from evaluators.target import Target
from search_spaces.image_size import ImageSize
target = Target("far", ray=True)
connection(target)
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
work = ray.remote(lambda: latency.identify(target))
print("json", json.dumps(ray.get(work.remote())))
"""
ASK = """
from evaluators import latency
from evaluators.target import Target
from search_spaces.image_size import ImageSize
latency.identify(Target("far", ray=True, python={python!r}))
"""
WAITER = """#!{python}
import os, sys
from pathlib import Path
Path({path!r}).write_text(str(os.getpid()))
sys.stdin.buffer.read()
"""
QUICK = """#!{python}
import sys
from search_spaces.image_size import ImageSize
source = sys.stdin.buffer
source.read(int(source.readline()))
names = {{"__name__": "probe", "__file__": "probe.py"}}
exec(open({path!r}).read(), names)
sys.exit(names["serve"]())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a user who has nas-yolo installed, and starts Ray as it is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", connection.GIVEN))}
    return kept | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CLUSTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        environment["RAY_ADDRESS"] = process.stdout.readline().strip()
        assert environment["RAY_ADDRESS"]
        yield process
        process.stdin.close()
        assert process.wait(LONG_S) == 0


@pytest.fixture
def far(cluster: object, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Target:
    """The target, reached as the environment says."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(connection.GIVEN, "")
    monkeypatch.setenv("RAY_ADDRESS", environment["RAY_ADDRESS"])
    return Target("far", ray=True)


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + LONG_S
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.05)
    return int(path.read_text())


def wait_for_end(process: int) -> None:
    deadline = time.monotonic() + LONG_S
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.1)


def test_the_node_says_who_it_is(far: Target) -> None:
    here = latency.identify(Target("cpu"))
    assert latency.identify(far) == here
    assert here["runtime"] == "onnxruntime"


def test_models_are_measured_on_the_node(
    far: Target, quick_probe: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = QUICK.format(python=sys.executable, path=str(tmp_path / "quick_probe.py"))
    target = Target("far", ray=True, python=program(tmp_path / "python", probe))
    files = latency.reference_files(Target("cpu"), ImageSize(64, 64))
    session = latency.time_files(target, files, files)
    assert 0.2 < session.ratio < 5
    assert session.settings["provider"] == "CPUExecutionProvider"


def test_a_failure_on_the_node_arrives_with_its_cause(far: Target) -> None:
    with pytest.raises(LatencyError, match=r"^this ONNX Runtime has no CUDAExecutionProvider$") as caught:
        latency.identify(Target("far", ray=True, device="cuda"))
    assert caught.value.cause == "unsupported"
    assert "Traceback" in caught.value.detail


def test_a_search_that_has_a_cluster_of_its_own_reaches_the_node(far: Target, environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", SEARCH], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (answer,) = [line.removeprefix("json ") for line in done.stdout.splitlines() if line.startswith("json ")]
    assert json.loads(answer) == latency.identify(Target("cpu"))


def test_a_target_that_no_node_is(far: Target) -> None:
    with pytest.raises(LatencyError) as caught:
        latency.identify(Target("nobody", ray=True))
    assert caught.value.cause == "unreachable"
    assert str(caught.value) == (
        "no node of the Ray cluster has the resource target:nobody; "
        "on the device: ray start --address=HOST:6379 --resources='{\"target:nobody\": 1}'"
    )


def test_no_cluster(far: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no address")
    with pytest.raises(LatencyError, match="no Ray cluster answers here or at RAY_ADDRESS; start one") as caught:
        latency.identify(far)
    assert caught.value.cause == "unreachable"


def test_whoever_asked_dies_and_the_work_on_the_node_ends(far: Target, tmp_path: Path) -> None:
    python = program(tmp_path / "python", WAITER.format(python=sys.executable, path=str(tmp_path / "pid")))
    with subprocess.Popen(
        [sys.executable, "-c", ASK.format(python=python)], env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        worker = wait_for(tmp_path / "pid")
        process.kill()
    wait_for_end(worker)


def test_the_node_dies(far: Target, cluster: subprocess.Popen[str], tmp_path: Path) -> None:
    """Last: there is no such node afterwards."""
    python = program(tmp_path / "python", WAITER.format(python=sys.executable, path=str(tmp_path / "pid")))

    def kill() -> None:
        wait_for(tmp_path / "pid")
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(LatencyError, match="the Ray node was lost") as caught:
        latency.identify(Target("far", ray=True, python=python))
    thread.join()
    assert caught.value.cause == "unreachable"
    wait_for_end(wait_for(tmp_path / "pid"))


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(LatencyError("throttled", "too hot", "85 degrees")))
    assert (type(error), error.cause, str(error), error.detail) == (LatencyError, "throttled", "too hot", "85 degrees")

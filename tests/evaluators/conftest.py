from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.ssh_server import PROGRAM, SshServer
from evaluators import latency, probe

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

    from evaluators.accuracy.request import DeployedRequest
    from evaluators.dataset import Dataset

SCRIPTED = """
import json, os, sys, time
from math import inf, nan

def say(**event):
    print(json.dumps(event), flush=True)

def serve():
    job = json.loads(sys.stdin.buffer.readline())
    print("\\n" + job["marker"], flush=True)
{code}
"""
FIGURES = {
    **{"ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.7, "median_ms": 3.0, "p90_ms": 3.5, "reference_ms": 8.0},
    **{"samples": 100, "drift": 0.01, "load": 0.0, "flags": [], "first_ms": 9.0, "load_s": 0.1, "seconds": 2.0},
    **{"settings": {"threads": 1}, "identity": {"machine": "made up"}},
}


@pytest.fixture
def scripted_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the probe's place that does what it is told: a fault, or a machine of known speed."""
    from evaluators.connections import _exchange

    def script(code: str) -> None:
        path = tmp_path / "scripted_probe.py"
        path.write_text(SCRIPTED.format(code=textwrap.indent(textwrap.dedent(code).strip() or "pass", "    ")))
        monkeypatch.setattr(_exchange, "PROBE", path)

    return script


@pytest.fixture
def probe_that_prints(scripted_probe: Callable[[str], None]) -> Callable[..., None]:
    """Like `scripted_probe`: one that answers good figures, with some of them changed."""

    def script(**changed: Any) -> None:
        scripted_probe(f"say(event='result', result={FIGURES | changed!r})")

    return script


@pytest.fixture
def session() -> Callable[..., latency.Session]:
    """Good figures of a session, with some of them changed."""
    return lambda **changed: latency.Session.model_validate(FIGURES | changed)


@pytest.fixture
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine for this test alone, as far as locks say."""
    monkeypatch.setattr(probe, "LOCKS", tmp_path / "locks")
    return tmp_path / "locks"


@pytest.fixture
def quick_probe(quick_probe: None, own_locks: Path) -> None:
    """With locks of its own."""
    from evaluators.connections import _exchange

    with open(_exchange.PROBE, "a") as program:
        program.write(f"\nLOCKS = Path({str(own_locks)!r})\n")


@pytest.fixture
def any_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the probe does not read them, models need not be exported."""

    def write(network: object, imgsz: object, format: str, folder: Path) -> dict[str, Path]:
        (folder / "model.onnx").write_text("not read")
        return {"model.onnx": folder / "model.onnx"}

    monkeypatch.setattr(latency, "export", write)
    monkeypatch.setattr(latency, "_format", lambda target: "onnx")


@pytest.fixture
def own_cache(own_locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache folder for this test alone: no reference model yet, and nobody else's locks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nas-yolo"


@pytest.fixture
def small_detector() -> DetectionModel:
    """About a quarter of yolov8n, for two classes."""
    from search_spaces import Architecture, Level, Neck, Stage, Stem, hook

    p2, p3, p4, p5 = (Stage("Conv", "C2f", width, 1) for width in (16, 24, 32, 48))
    architecture = Architecture(
        "yolov8",
        Stem("Conv", 8),
        (p2, p3, p4, p5),
        Neck("Conv", (Level("C2f", 24, 1), Level("C2f", 32, 1), Level("C2f", 48, 1))),
    )
    return hook.build(hook.model_file(architecture, nc=2))


@pytest.fixture
def change_probe(quick_probe: None) -> Callable[[str], None]:
    """Adds to the quick probe's program; from the start it looks around often."""
    from evaluators.connections import _exchange

    def change(code: str) -> None:
        with open(_exchange.PROBE, "a") as program:
            program.write(f"\n{textwrap.dedent(code)}\n")

    change("POLL_S = 0.02")
    return change


RUNTIME = """
import os, subprocess, time
from pathlib import Path

def identity(settings):
    return {{"runtime": "made up", "version": "1"}}

class Network:
    settings = {{"threads": 1}}

    def infer(self, image):
        import numpy
        return [numpy.zeros((1, 84, 100))]

    def run(self):
        end = time.process_time() + 0.0005  # so that it takes a believable time on every machine
        while time.process_time() < end:
            pass
{run}

def load(model, settings):
{load}
    return Network()
"""


@pytest.fixture
def scripted_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a runtime in the place of all others that does what it is told when it loads a network, or runs it."""

    def script(load: str = "pass", run: str = "pass") -> None:
        path = tmp_path / "scripted_runtime.py"
        code = {"load": textwrap.indent(textwrap.dedent(load), " " * 4), "run": textwrap.indent(run, " " * 8)}
        path.write_text(RUNTIME.format(**code))
        file = SimpleNamespace(__file__=str(path), model_format=lambda precision, identity: "onnx")
        monkeypatch.setattr(latency, "get_runtime", lambda name: file)

    return script


@pytest.fixture
def tiny_model(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Writes an ONNX model of one operator; its weights take `size` numbers."""
    import onnx
    from onnx import TensorProto, helper

    def write(name: str = "tiny", operator: str = "Relu", domain: str = "", size: int = 1) -> dict[str, Path]:
        shape = (1, 3, 512, 512)  # so that it takes a believable time
        image = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
        output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)
        weight = helper.make_tensor("weight", TensorProto.FLOAT, (size,), os.urandom(4 * size), raw=True)
        node = helper.make_node(operator, ["images"], ["output0"], domain=domain)
        graph = helper.make_graph([node], name, [image], [output], [weight])
        opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
        folder = tmp_path / name
        folder.mkdir()
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "model.onnx")
        return {"model.onnx": folder / "model.onnx"}

    return write


@pytest.fixture
def ssh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    from evaluators.connections import ssh

    if not PROGRAM or not shutil.which("ssh"):
        pytest.skip("OpenSSH's client and server are not installed: apt-get install openssh-server")
    (tmp_path / "device").mkdir()
    server = SshServer(tmp_path / "device")
    with tempfile.TemporaryDirectory(prefix="ssh-", dir="/tmp") as sockets:  # their paths must be short
        monkeypatch.setattr(ssh, "SOCKETS", Path(sockets))
        server.start()
        yield server
        server.stop()  # the client's master process ends with its connection


SQUARES_EPOCHS = 6
SQUARES_ARGUMENTS = {
    **{"batch": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.01, "mosaic": 0.0, "hsv_h": 0.0, "warmup_epochs": 0},
}


@pytest.fixture(scope="session")
def squares() -> Dataset:
    """Red and blue squares on grey, higher or wider images among them: learned in seconds, by their colour."""
    import fcntl

    import numpy as np
    import yaml
    from PIL import Image

    from evaluators.dataset import load_dataset

    folder = Path(os.environ["NAS_YOLO_TEST_HOME"]) / "squares"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:  # several test processes may come here at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "data.yaml").exists():
            rng = np.random.default_rng(0)
            for split, count in (("train", 96), ("val", 40)):
                for kind in ("images", "labels"):
                    (folder / kind / split).mkdir(parents=True)
                for number in range(count):
                    height, width = ((64, 64), (64, 48), (40, 64))[number % 3]
                    canvas = rng.integers(90, 110, (height, width, 3)).astype(np.uint8)
                    side, color = int(rng.integers(14, 30)), int(rng.integers(2))
                    top, left = int(rng.integers(height - side)), int(rng.integers(width - side))
                    canvas[top : top + side, left : left + side] = ((220, 30, 30), (30, 30, 220))[color]
                    Image.fromarray(canvas).save(folder / "images" / split / f"{number:03d}.png")
                    box = ((left + side / 2) / width, (top + side / 2) / height, side / width, side / height)
                    line = f"{color} {' '.join(f'{value:.6f}' for value in box)}\n"
                    (folder / "labels" / split / f"{number:03d}.txt").write_text(line)
            document = {"train": "images/train", "val": "images/val", "names": ["red", "blue"]}
            (folder / "data.yaml").write_text(yaml.safe_dump(document))
    return load_dataset(folder / "data.yaml")


@pytest.fixture(scope="session")
def trained_on_squares(squares: Dataset) -> Callable[[str], DeployedRequest]:
    """A small `yolov8`, also `at 96x64`, or an NMS-free `yolo26`, trained for some seconds, for the target `cpu`."""
    from evaluators.accuracy.request import DeployedRequest, TrainingRequest
    from evaluators.accuracy.training import train
    from evaluators.evaluation import Epoch
    from evaluators.target import Target
    from search_spaces import Architecture, Level, Neck, Stage, Stem
    from search_spaces.image_size import ImageSize

    @cache
    def make(name: str) -> DeployedRequest:
        family, _, size = name.partition(" at ")
        imgsz = ImageSize.parse(size or 64)
        block = {"yolov8": "C2f", "yolo26": "C3k2"}[family]
        p2, p3, p4, p5 = (Stage("Conv", block, width, 1) for width in (16, 24, 32, 48))
        levels = (Level(block, 24, 1), Level(block, 32, 1), Level(block, 48, 1))
        architecture = Architecture(family, Stem("Conv", 16), (p2, p3, p4, p5), Neck("Conv", levels))
        folder = Path(os.environ["NAS_YOLO_TEST_HOME"]) / f"squares-{family}-{imgsz}"
        checkpoint, scratch = folder / "checkpoint.pt", folder / "scratch"
        folder.mkdir(exist_ok=True)
        asked = TrainingRequest(
            *(architecture, squares, imgsz, SQUARES_EPOCHS, SQUARES_EPOCHS, 0, checkpoint, scratch),
            arguments=SQUARES_ARGUMENTS,
        )
        reports = list(train(asked))  # another process waits, and finds it done
        assert isinstance(reports[-1], Epoch), reports[-1]
        return DeployedRequest(
            architecture, checkpoint, SQUARES_EPOCHS, squares, imgsz, Target("cpu"), 1, SQUARES_ARGUMENTS
        )

    return make

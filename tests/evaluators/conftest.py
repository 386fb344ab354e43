from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaluators import latency

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

SCRIPTED = """
import sys
print("ready", flush=True)
sys.stdin.readline()
{code}
"""
FIGURES = {
    **{"ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.7, "median_ms": 3.0, "p90_ms": 3.5, "reference_ms": 2.0},
    **{"samples": 100, "drift": 0.01, "load": 0.0, "flags": [], "finite": True},
}


@pytest.fixture
def scripted_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a process in the probe's place that does what it is told: a fault, or a machine of known speed."""

    def script(code: str) -> None:
        path = tmp_path / "scripted_probe.py"
        path.write_text(SCRIPTED.format(code=code))
        monkeypatch.setattr(latency, "PROBE", path)

    return script


@pytest.fixture
def probe_that_prints(scripted_probe: Callable[[str], None]) -> Callable[..., None]:
    """Like `scripted_probe`: one that prints good figures, with some of them changed."""

    def script(**changed: Any) -> None:
        scripted_probe(f"print({json.dumps(FIGURES | changed)!r})")

    return script


@pytest.fixture
def any_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the probe does not read them, models need not be exported."""
    monkeypatch.setattr(latency, "export_onnx", lambda model, imgsz, path: path.write_text("not read"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache folder for this test alone: nobody else's locks, no reference model yet."""
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

"""Of TensorRT only what does not take a GPU is tested: options, exit codes, files and texts, with a stand-in."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest

from evaluators import latency
from evaluators.connections.local import perform
from evaluators.errors import LatencyError
from evaluators.runtimes import tensorrt
from evaluators.target import make_target

TARGET = make_target("gpu", {"runtime": "tensorrt", "precision": "fp16"})
CALLED = ("--onnx", "--saveEngine", "--timingCacheFile", "--exportLayerInfo", "--loadEngine", "--exportTimes")

# The layouts in which versions print their figures. Other times than the GPU's are never to be taken for it.
IN_ONE_LINE = """\
[05/27/2024-16:38:42] [I] === Performance summary ===
[05/27/2024-16:38:42] [I] Throughput: 32.7261 qps
[05/27/2024-16:38:42] [I] Latency: min = 30.1348 ms, max = 30.887 ms, mean = 30.7571 ms, median = 30.7585 ms, \
percentile(90%) = 30.8303 ms, percentile(95%) = 30.8396 ms, percentile(99%) = 30.8523 ms
[05/27/2024-16:38:42] [I] Enqueue Time: min = 29.4951 ms, max = 31.1035 ms, mean = 30.2854 ms, median = 30.2815 ms, \
percentile(90%) = 30.5007 ms
[05/27/2024-16:38:42] [I] GPU Compute Time: min = 29.8193 ms, max = 30.4572 ms, mean = 30.3322 ms, \
median = 30.333 ms, percentile(90%) = 30.4037 ms, percentile(95%) = 30.4156 ms, percentile(99%) = 30.4204 ms
[05/27/2024-16:38:42] [I] Total Host Walltime: 3.08622 s"""
END_TO_END = """\
[05/27/2022-16:38:42] [I] === Performance summary ===
[05/27/2022-16:38:42] [I] Throughput: 72.25 qps
[05/27/2022-16:38:42] [I] Latency: min = 13.7 ms, max = 14.8 ms, mean = 13.8 ms, median = 13.79 ms, \
percentile(99%) = 14.81 ms
[05/27/2022-16:38:42] [I] End-to-End Host Latency: min = 13.71 ms, max = 14.9 ms, mean = 13.83 ms, \
median = 13.81 ms, percentile(99%) = 14.83 ms
[05/27/2022-16:38:42] [I] GPU Compute Time: min = 13.5 ms, max = 14.7 ms, mean = 13.6 ms, median = 13.67 ms, \
percentile(99%) = 14.68 ms
[05/27/2022-16:38:42] [I] D2H Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(99%) = 0 ms"""
IN_SEVERAL_LINES = """\
[05/27/2021-16:38:42] [I] Host Latency
[05/27/2021-16:38:42] [I] min: 35.335 ms (end to end 35.3481 ms)
[05/27/2021-16:38:42] [I] max: 36.1 ms (end to end 36.12 ms)
[05/27/2021-16:38:42] [I] mean: 35.4 ms (end to end 35.41 ms)
[05/27/2021-16:38:42] [I] median: 35.39 ms (end to end 35.4 ms)
[05/27/2021-16:38:42] [I] percentile: 35.6085 ms at 99% (end to end 35.61 ms at 99%)
[05/27/2021-16:38:42] [I] throughput: 0 qps
[05/27/2021-16:38:42] [I] walltime: 3.00956 s
[05/27/2021-16:38:42] [I] Enqueue Time
[05/27/2021-16:38:42] [I] min: 2.38 ms
[05/27/2021-16:38:42] [I] max: 4.89 ms
[05/27/2021-16:38:42] [I] median: 2.64 ms
[05/27/2021-16:38:42] [I] GPU Compute
[05/27/2021-16:38:42] [I] min: 35.2 ms
[05/27/2021-16:38:42] [I] max: 35.9 ms
[05/27/2021-16:38:42] [I] mean: 35.25 ms
[05/27/2021-16:38:42] [I] median: 35.24 ms
[05/27/2021-16:38:42] [I] percentile: 35.6 ms at 99%
[05/27/2021-16:38:42] [I] total compute time: 2.93 s"""
SCIENTIFIC = """\
[05/27/2024-16:38:42] [I] Throughput: 2.54521e+06 qps
[05/27/2024-16:38:42] [I] GPU Compute Time: min = 1e-02 ms, max = 1.2e+03 ms, mean = 4e+00 ms, median = 2.5e-02 ms"""

UNSUPPORTED_IN_8 = """\
[02/03/2022-06:14:51] [I] [TRT] No importer registered for op: Round. Attempting to import as plugin.
[02/03/2022-06:14:51] [E] [TRT] 3: getPluginCreator could not find plugin: Round version: 1
[02/03/2022-06:14:51] [E] [TRT] ModelImporter.cpp:720: While parsing node number 2 [Round -> "41"]:
[02/03/2022-06:14:51] [E] Failed to parse onnx file
[02/03/2022-06:14:51] [E] Parsing model failed
[02/03/2022-06:14:51] [E] Engine set up failed
&&&& FAILED TensorRT.trtexec [TensorRT v8502] # trtexec"""
UNSUPPORTED_IN_10 = """\
[06/11/2025-07:46:17] [E] [TRT] In node 5 with name: /m/Round and operator: Round (checkFallbackPluginImporter): \
INVALID_NODE: creator && "Plugin not found, are the plugin name, version, and namespace correct?"
[06/11/2025-07:46:17] [E] Failed to parse onnx file
&&&& FAILED TensorRT.trtexec [TensorRT v101303] # trtexec"""

# Memory lacks, in the words of several versions: a kernel after the other is skipped until there is none left.
NO_KERNEL = "[06/11/2025-07:46:17] [E] Error[10]: Could not find any implementation for node /m/Conv + PWN(/m/Sigmoid)."
SKIPPED = """\
[09/26/2023-18:37:19] [W] [TRT] Tactic Device request: 4229MB Available: 2658MB. Device memory is insufficient to use \
tactic."""
NO_ENGINE = """\
[09/26/2023-18:37:22] [E] Error[2]: [builder.cpp::buildSerializedNetwork::751] Error Code 2: Internal Error (Assertion \
engine != nullptr failed. )
[09/26/2023-18:37:22] [E] Engine could not be created from network
[09/26/2023-18:37:22] [E] Building engine failed
[09/26/2023-18:37:22] [E] Failed to create engine from model or file.
[09/26/2023-18:37:22] [E] Engine set up failed
&&&& FAILED TensorRT.trtexec [TensorRT v8502] # trtexec"""
ALLOCATOR_IN_10 = """\
[11/22/2024-13:40:47] [E] Error[9]: Error Code: 9: Skipping tactic 0x0000000000000000 due to exception \
[tunable_graph.cpp:create:117] autotuning: User allocator error allocating 15485030400-byte buffer"""
WITHOUT_MEMORY = {
    "tactics": f"{SKIPPED}\n{NO_KERNEL}\n{NO_ENGINE}",
    "misspelt": "[W] [TRT] Skipping tactic 3 due to insuficient memory on requested size of 4461 detected for tactic "
    f"4.\nTry decreasing the workspace size with IBuilderConfig::setMaxWorkspaceSize().\n{NO_KERNEL}\n{NO_ENGINE}",
    "state": "[W] [TRT] UNSUPPORTED_STATE: Skipping tactic 53 due to insufficient memory on requested size of "
    f"629145600 detected for tactic 0xf79479a62ea9f901.\n{NO_KERNEL}\n{NO_ENGINE}",
    "requested": "[W] [TRT] Requested amount of GPU memory (17179869184 bytes) could not be allocated. There may not "
    f"be enough free memory for allocation to succeed.\n{NO_ENGINE}",
    "runtime": "[E] Error[1]: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)\n"
    f"{NO_KERNEL}\n{NO_ENGINE}",
    "allocator": f"{ALLOCATOR_IN_10}\n{NO_KERNEL}\n{NO_ENGINE}",
    "jetson": "NvMapMemAllocInternalTagged: 1075072515 error 12\nNvMapMemHandleAlloc: error 0\n"
    f"{NO_KERNEL}\n{NO_ENGINE}",
    "cudnn": f"[E] Error[1]: [cudnn.cpp::execute::1] Error Code 1: Cudnn (CUDNN_STATUS_ALLOC_FAILED)\n{NO_ENGINE}",
    "engine": "[E] Error[2]: [executionContext.cpp::initializeExecutionContext::560] Error Code 2: OutOfMemory "
    "(Requested size was 8323072 bytes.)\n&&&& FAILED TensorRT.trtexec",
}
WITH_MEMORY = {
    "no kernel": f"{NO_KERNEL}\n{NO_ENGINE}",
    # Said of nets of which no kernel is known, on GPUs with any amount of memory; and of most builds that pass.
    "workspace": "[E] Error[10]: Could not find any implementation for node {ForeignNode[a...b]} due to insufficient "
    f"workspace. See verbose log for requested sizes.\n{NO_ENGINE}",
    "some tactics": "[I] [TRT] Some tactics do not have sufficient workspace memory to run. Increasing workspace size "
    f"will enable more tactics, please check verbose output for requested sizes.\n{NO_KERNEL}\n{NO_ENGINE}",
    "another reason": f"{SKIPPED}\n[E] Error[1]: [resizingAllocator.cpp::deallocate::105] Error Code 1: Cuda Runtime "
    f"(an illegal memory access was encountered)\n{NO_KERNEL}\n{NO_ENGINE}",
}


@pytest.fixture
def trtexec(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts the stand-in on PATH, of a version, with what is to go wrong; the folder that it is in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "trtexec"
    source = Path(__file__).with_name("trtexec.py").read_text()
    program.write_text(f"#!{sys.executable} -IS\n{source}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def configure(version: int = 100300, **config: Any) -> Path:
        (folder / "trtexec.json").write_text(json.dumps({"version": version, **config}))
        return folder

    configure()
    return configure


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """Loads a "model" that takes so long, in this process."""

    def build(ms: float = 5.0, precision: str = "fp32", size: int = 0) -> Any:
        model = write_model(tmp_path / "model.onnx", ms, size)
        return tensorrt.load(str(model), {"precision": precision, "folder": str(tmp_path)})

    return build


def write_model(path: Path, ms: float, size: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(f"{ms:g}\n".encode().ljust(size, b"\0"))
    return path


def calls(folder: Path) -> list[list[str]]:
    """Arguments of all calls but those for the version; of paths, that there was one."""
    lines = [json.loads(line) for line in (folder / "calls.json").read_text().splitlines()]
    for line in lines:
        assert all(Path(argument.partition("=")[2]).is_absolute() for argument in line if argument.startswith(CALLED))
    return [
        [name if name in CALLED else argument for argument in line for name in [argument.partition("=")[0]]]
        for line in lines
        if line != ["--help"]
    ]


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def detail(error: BaseException) -> str:
    """What a traceback shows below the error: the log."""
    return str(error.__cause__)


# Versions and options


@pytest.mark.parametrize(
    ("number", "version", "formats"),
    [
        (8502, "8.5.2", ["onnx", "onnx", "onnx"]),
        (8601, "8.6.1", ["onnx", "onnx", "onnx"]),
        (100300, "10.3.0", ["onnx", "onnx", "onnx"]),
        (101303, "10.13.3", ["onnx", "onnx", "onnx"]),
        (110100, "11.1.0", ["onnx", "onnx-fp16", "onnx-int8"]),
    ],
)
def test_the_version_is_read_from_the_banner_and_decides_what_is_sent(
    trtexec: Callable[..., Path], number: int, version: str, formats: list[str]
) -> None:
    trtexec(number)
    identity = tensorrt.identity({})
    assert identity == {"runtime": "tensorrt", "version": version}
    assert [tensorrt.model_format(precision, identity) for precision in tensorrt.PRECISIONS] == formats


@pytest.mark.parametrize(
    ("number", "build", "graphs"),
    [
        (8502, ["--buildOnly", "--fp16"], True),
        (8601, ["--skipInference", "--fp16"], True),
        (100300, ["--skipInference", "--fp16"], True),
        (101303, ["--skipInference", "--fp16"], True),
        (110100, ["--skipInference"], False),
    ],
)
def test_each_version_gets_options_that_it_knows(
    trtexec: Callable[..., Path], load: Callable[..., Any], number: int, build: list[str], graphs: bool
) -> None:
    folder = trtexec(number, layers=["Half"])
    load(precision="fp16").samples()
    paths = ["--onnx", "--saveEngine", "--timingCacheFile"]
    timing = ["--warmUp=1000", "--duration=3", "--iterations=200", "--avgRuns=1", "--percentile=50,90,99"]
    assert calls(folder) == [
        [*paths, "--profilingVerbosity=detailed", "--exportLayerInfo", *build],
        [
            *("--loadEngine", *timing, "--exportTimes"),
            *(["--useCudaGraph", "--useSpinWait", "--noDataTransfers"] if graphs else []),
        ],
    ]


@pytest.mark.parametrize(("precision", "flags"), [("fp32", []), ("int8", ["--int8"])])
def test_other_precisions_than_fp16(
    trtexec: Callable[..., Path], load: Callable[..., Any], precision: str, flags: list[str]
) -> None:
    folder = trtexec(layers=["Float", "Int8"])
    load(precision=precision)
    assert calls(folder)[0][6:] == flags


def test_an_option_that_a_version_does_not_know_is_named(
    trtexec: Callable[..., Path], load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trtexec(110100)
    monkeypatch.setattr(tensorrt, "_version", lambda _: (10, 3, 0))  # what a mistake of ours would be like
    with pytest.raises(RuntimeError, match=r"^config_mismatch: .* does not know --fp16$") as caught:
        load(precision="fp16")
    assert "[E] Unknown option: --fp16" in detail(caught.value)


def test_where_there_is_none_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tensorrt, "PLACES", (str(tmp_path / "trtexec"),))
    with pytest.raises(RuntimeError, match=r"^unsupported: there is no trtexec on PATH.*install TensorRT"):
        tensorrt.identity({})


def test_it_is_found_where_jetpack_puts_it(trtexec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trtexec(8502)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(tensorrt, "PLACES", ("/nonexistent/trtexec", str(folder / "trtexec")))
    assert tensorrt.identity({})["version"] == "8.5.2"


def test_one_that_does_not_start_is_told(trtexec: Callable[..., Path]) -> None:
    program = trtexec() / "trtexec"
    program.write_text("#!/bin/sh\necho 'error while loading shared libraries: libnvinfer.so.8' >&2\nexit 127\n")
    with pytest.raises(RuntimeError, match=r"^unsupported: .* libnvinfer\.so\.8$"):
        tensorrt.identity({})


# Builds


def test_timings_of_kernels_are_kept_from_build_to_build(
    trtexec: Callable[..., Path], load: Callable[..., Any], own_cache: Path
) -> None:
    load(5.0)
    load(6.0)
    (kept,) = (own_cache / "tensorrt").iterdir()
    assert (kept.name, kept.read_text()) == ("10.3.0.cache", "5\n6\n")
    trtexec(build={"say": "[E] Engine set up failed", "status": 1})
    with pytest.raises(RuntimeError):
        load(7.0)
    assert kept.read_text() == "5\n6\n"


MB = 1_000_000


@pytest.mark.parametrize(
    ("precision", "config", "model_mb", "engine_mb", "share"),
    [
        # Of yolo11n, as published for an Orin Nano: 10.2 MB in ONNX; engines of 11.9 (fp32), 8.3 (fp16), 5.6 (int8).
        ("fp32", {"layers": ["Float"]}, 10.2, 11.9, None),
        ("fp16", {}, 10.2, 8.3, None),
        ("int8", {}, 10.2, 5.6, None),
        ("fp16", {}, 3.0, 4.8, None),  # too small to tell
        ("fp16", {"version": 110100}, 10.2, 11.9, None),  # reads a model that is fp16 itself
        ("fp16", {"layers": ["Float", "Half", "Half", "Half"]}, 10.2, 11.9, 0.75),
        ("fp16", {"layers": ["Two wide channel vectorized row major FP16 format"]}, 3.0, 4.8, 1.0),
        ("int8", {"layers": ["Thirty-two wide channel vectorized row major Int8 format", "FP32"]}, 3.0, 4.8, 0.5),
    ],
)
def test_an_engine_in_the_right_precision(
    trtexec: Callable[..., Path],
    load: Callable[..., Any],
    precision: str,
    config: dict[str, Any],
    model_mb: float,
    engine_mb: float,
    share: float | None,
) -> None:
    trtexec(engine_bytes=int(engine_mb * MB), **config)
    network = load(precision=precision, size=int(model_mb * MB))
    known = {"precision": precision, "engine_bytes": int(engine_mb * MB)}
    assert network.settings == known | ({} if share is None else {"tensors_in_precision": share})


@pytest.mark.parametrize(
    ("precision", "config", "message"),
    [
        ("fp16", {"engine_bytes": int(11.9 * MB)}, "the engine has 11.9 MB, more than the 10.2 MB of the weights"),
        ("fp16", {"layers": ["Float", "Row major linear FP32"]}, "no tensor of the engine has that type"),
        ("int8", {"layers": ["Float", "Half"]}, "no tensor of the engine has that type"),
        ("fp16", {"version": 110100, "layers": ["Float"]}, "no tensor of the engine has that type"),
    ],
)
def test_an_engine_that_is_silently_in_fp32_is_refused(
    trtexec: Callable[..., Path], load: Callable[..., Any], precision: str, config: dict[str, Any], message: str
) -> None:
    trtexec(**config)
    with pytest.raises(RuntimeError, match=rf"^config_mismatch: asked for {precision}, but {message}"):
        load(precision=precision, size=int(10.2 * MB))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ({"say": UNSUPPORTED_IN_8, "status": 1}, "unsupported: TensorRT 10.3.0 cannot do operator Round"),
        ({"say": UNSUPPORTED_IN_10, "status": 1}, "unsupported: TensorRT 10.3.0 cannot do operator Round"),
        (
            {"say": "[E] [TRT] ModelImporter.cpp:688: corrupt\n[E] Failed to parse onnx file", "status": 1},
            "unsupported: TensorRT 10.3.0 cannot read the model: [TRT] ModelImporter.cpp:688: corrupt",
        ),
        (
            {"say": "[E] Error[2]: Error Code 2: OutOfMemory (no further information)", "status": 1},
            "oom: trtexec had not enough memory: Error[2]: Error Code 2: OutOfMemory",
        ),
        ({"say": "Cuda failure: out of memory", "signal": "SIGABRT"}, "oom: trtexec had not enough memory"),
        (
            {"say": "terminate called after throwing an instance of 'std::bad_alloc'", "signal": "SIGABRT"},
            "oom: trtexec had not enough memory: terminate called after throwing an instance of 'std::bad_alloc'",
        ),
        ({"signal": "SIGKILL"}, "oom: trtexec had not enough memory: it was killed"),
        ({"say": "Building", "signal": "SIGSEGV"}, "crash: trtexec ended by SIGSEGV: Building"),
        (
            {"say": "[E] Cannot build\n[E] Engine set up failed\n&&&& FAILED TensorRT.trtexec", "status": 1},
            "crash: trtexec failed with status 1: Cannot build",
        ),
        # The word and the exit status must agree.
        ({"say": "[E] Cannot build\n&&&& FAILED TensorRT.trtexec", "status": 0}, "crash: trtexec failed with status 0"),
        ({"say": "&&&& PASSED TensorRT.trtexec", "status": 3}, "crash: trtexec failed with status 3"),
        ({"say": "Building", "status": 0}, "garbage: trtexec ended without saying whether it passed: Building"),
        ({"say": "&&&& PASSED TensorRT.trtexec", "status": 0}, "garbage: trtexec passed and left no engine"),
    ],
)
def test_why_a_build_failed(
    trtexec: Callable[..., Path], load: Callable[..., Any], script: dict[str, Any], message: str
) -> None:
    trtexec(build=script)
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}") as caught:
        load()
    assert str(script.get("say", "")) in detail(caught.value) or "left no engine" in message


@pytest.mark.parametrize("log", WITHOUT_MEMORY.values(), ids=WITHOUT_MEMORY.keys())
def test_a_build_without_enough_memory_is_told_from_a_crash(
    trtexec: Callable[..., Path], load: Callable[..., Any], log: str
) -> None:
    trtexec(build={"say": log, "status": 1})
    with pytest.raises(RuntimeError, match=r"^oom: trtexec had not enough memory: ") as caught:
        load()
    assert str(caught.value).partition("memory: ")[2] in log
    assert not re.search("could not find any implementation|engine", str(caught.value), re.I)  # but why there is none


@pytest.mark.parametrize("log", WITH_MEMORY.values(), ids=WITH_MEMORY.keys())
def test_a_build_that_fails_with_enough_memory_is_a_crash(
    trtexec: Callable[..., Path], load: Callable[..., Any], log: str
) -> None:
    trtexec(build={"say": log, "status": 1})
    with pytest.raises(RuntimeError, match=r"^crash: trtexec failed with status 1: Error\["):
        load()


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGABRT"])
def test_kernels_that_were_skipped_do_not_explain_a_signal(
    trtexec: Callable[..., Path], load: Callable[..., Any], signal: str
) -> None:
    trtexec(build={"say": f"{SKIPPED}\n[I] Building", "signal": signal})
    with pytest.raises(RuntimeError, match=rf"^crash: trtexec ended by {signal}"):
        load()


def test_a_network_that_does_not_fit_when_it_is_timed(trtexec: Callable[..., Path], load: Callable[..., Any]) -> None:
    trtexec(inference={"say": WITHOUT_MEMORY["engine"], "status": 1})
    with pytest.raises(RuntimeError, match=r"^oom: .* OutOfMemory \(Requested size was 8323072 bytes"):
        load().samples()


# Times


def test_the_times_are_those_of_the_file(trtexec: Callable[..., Path], load: Callable[..., Any]) -> None:
    trtexec(summary=IN_ONE_LINE)
    times, flags = load(5.0).samples()
    assert len(times) == 600
    assert (min(times), median(times), max(times)) == pytest.approx((4.99, 5.0, 5.01))
    assert flags == []


def test_a_slow_network_is_timed_for_longer(trtexec: Callable[..., Path], load: Callable[..., Any]) -> None:
    assert len(load(300.0).samples()[0]) == 200


def test_runs_of_the_warm_up_do_not_count(trtexec: Callable[..., Path], load: Callable[..., Any]) -> None:
    trtexec(times_of_warm_up=True)
    times, _ = load(5.0).samples()
    assert (len(times), max(times)) == (600, pytest.approx(5.01))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"samples": 189}, "trtexec timed 189 runs; 200 were asked for"),
        ({"compute_ms": "NaN"}, "a time of nan ms is not believable"),
        ({"compute_ms": "nan"}, "trtexec's file of times cannot be read: JSONDecodeError"),  # as C++ prints it
        ({"compute_ms": "inf"}, "trtexec's file of times cannot be read: JSONDecodeError"),
        ({"compute_ms": "null"}, "trtexec's file of times cannot be read: TypeError"),
        ({"compute_ms": "0"}, "a time of 0 ms is not believable"),
        ({"compute_ms": "-5"}, "a time of -5 ms is not believable"),
        ({"compute_ms": "0.009"}, "a time of 0.009 ms is not believable"),
        ({"compute_ms": "60001"}, "a time of 60001 ms is not believable"),
        ({"writes_times": False, "summary": "[I] GPU Compute Time: n/a"}, "trtexec wrote no times and printed no"),
        ({"writes_times": False, "summary": "[I] GPU Compute Time: median = nan ms"}, "trtexec wrote no times and"),
        ({"writes_times": False, "summary": "[I] GPU Compute Time: median = 0 ms"}, "a time of 0 ms is not believable"),
        ({"writes_times": False, "summary": "[I] Latency: median = 5 ms"}, "trtexec wrote no times and printed no"),
    ],
)
def test_times_that_make_no_sense_are_refused(
    trtexec: Callable[..., Path], load: Callable[..., Any], config: dict[str, Any], message: str
) -> None:
    trtexec(**config)
    network = load()
    with pytest.raises(RuntimeError, match=f"^garbage: {re.escape(message)}") as caught:
        network.samples()
    assert "&&&& PASSED" in detail(caught.value)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [(IN_ONE_LINE, 30.333), (END_TO_END, 13.67), (IN_SEVERAL_LINES, 35.24), (SCIENTIFIC, 0.025)],
    ids=["one line", "end to end", "several lines", "scientific"],
)
def test_without_a_file_of_times_the_printed_median_counts(
    trtexec: Callable[..., Path], load: Callable[..., Any], summary: str, expected: float
) -> None:
    network = load()
    assert len(network.samples()[0]) > 1
    trtexec(writes_times=False, summary=summary)
    assert network.samples()[0] == [expected]  # and not those of the file of the time before


@pytest.mark.parametrize(
    ("warning", "flags"),
    [
        ("[W] * GPU compute time is unstable, with coefficient of variance = 4.75734%.", ["unstable"]),
        ("[W] * GPU compute time is unstable, with coefficient of variance = 1.08662%.", []),
        ("[W] * Throughput may be bound by Enqueue Time rather than GPU Compute", ["enqueue_bound"]),
    ],
)
def test_its_own_warnings_become_flags(
    trtexec: Callable[..., Path], load: Callable[..., Any], warning: str, flags: list[str]
) -> None:
    trtexec(summary=warning)
    assert load().samples()[1] == flags


# From end to end


def session(tmp_path: Path) -> latency.Session:
    """A network of 8 ms against one of 5 ms, files of the same name, by the real probe in a process of its own."""
    candidate, reference = (write_model(tmp_path / str(ms) / "model.onnx", ms) for ms in (8.0, 5.0))
    return latency.time_files(TARGET, {"model.onnx": candidate}, {"model.onnx": reference})


@pytest.mark.usefixtures("quick_probe")
def test_reference_candidate_reference(trtexec: Callable[..., Path], tmp_path: Path) -> None:
    folder = trtexec(8502, layers=["Half"])
    found = session(tmp_path)
    assert found.ratio == pytest.approx(1.6)
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert (found.median_ms, found.reference_ms) == pytest.approx((8.0, 5.0))
    assert (found.samples, found.flags) == (375, [])
    assert found.p90_ms is not None
    assert found.identity["version"] == "8.5.2"
    assert found.settings["tensors_in_precision"] == 1.0
    builds, timings = calls(folder)[:2], calls(folder)[2:]
    assert ["--buildOnly" in call for call in builds] == [True, True]
    assert ["--loadEngine" in call for call in timings] == [True, True, True]


@pytest.mark.usefixtures("quick_probe")
def test_from_printed_medians_there_is_a_ratio_that_is_doubtful(trtexec: Callable[..., Path], tmp_path: Path) -> None:
    trtexec(writes_times=False)
    found = session(tmp_path)
    assert found.ratio == pytest.approx(1.6)
    assert (found.samples, found.flags, found.p90_ms) == (1, ["few_samples"], None)
    assert "few_samples" in latency.DOUBTFUL


@pytest.mark.usefixtures("quick_probe", "trtexec")
def test_the_device_says_which_tensorrt_it_has() -> None:
    assert latency.identify(TARGET)["version"] == "10.3.0"


@pytest.mark.usefixtures("quick_probe")
def test_a_failure_on_the_device_has_its_cause_and_the_log(trtexec: Callable[..., Path], tmp_path: Path) -> None:
    trtexec(build={"say": UNSUPPORTED_IN_10, "status": 1})
    with pytest.raises(LatencyError, match=r"^TensorRT 10\.3\.0 cannot do operator Round") as caught:
        session(tmp_path)
    assert caught.value.cause == "unsupported"
    assert UNSUPPORTED_IN_10 in caught.value.detail


@pytest.mark.usefixtures("quick_probe")
@pytest.mark.parametrize(("phase", "limit"), [("build", "loading"), ("inference", "measuring")])
def test_a_hang_is_ended_with_all_its_processes(
    trtexec: Callable[..., Path], tmp_path: Path, phase: str, limit: str
) -> None:
    pid_file = tmp_path / "pid"
    trtexec(**{phase: {"say": "[I] Searching for tactics", "pid_file": str(pid_file)}})
    model = write_model(tmp_path / "model.onnx", 5.0)
    job = {
        **{"action": "measure", "runtime": "tensorrt", "settings": TARGET.settings, "postprocess": False},
        **{"runtime_source": Path(tensorrt.__file__).read_text(), "limits": {**latency.LIMITS_S, limit: 2.0}},
    }
    with pytest.raises(LatencyError, match=rf"^{limit} did not end within 2 s$") as caught:
        perform(TARGET, job, {"model.onnx": model, "reference.onnx": model})
    assert caught.value.cause == "timeout"
    assert "[I] Searching for tactics" in caught.value.detail
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)

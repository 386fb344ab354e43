from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg

import evaluators.runtimes
from evaluators import probe
from evaluators.export import export
from evaluators.target import list_runtimes
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultralytics.nn.tasks import DetectionModel

    from evaluators.accuracy.request import DeployedRequest

FOLDER = Path(evaluators.runtimes.__file__).parent
SQUARE = ImageSize(64, 64)
ARGUMENTS = get_cfg(overrides={"imgsz": SQUARE.width})
# Mean error of boxes, as a share of the image, and of scores. Half precision has 11 bits, bf16 has 8.
TOLERANCE = {"fp32": (1e-4, 1e-5), "fp16": (6e-3, 3e-3), "bf16": (5e-2, 2e-2)}
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


@lru_cache
def runtime_file(name: str) -> ModuleType:
    """As the probe loads it."""
    return probe.load_runtime((FOLDER / f"{name}.py").read_text())


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


CLAIMED = [
    pytest.param(name, precision, id=f"{name}-{precision}")
    for name in list_runtimes()
    if installed(name)
    for precision in runtime_file(name).PRECISIONS
]
EXACT = [case for case in CLAIMED if case.values[1] in TOLERANCE]
COARSE = [name for name, precision in (case.values for case in CLAIMED) if precision == "int8"]
EVERY = [name for name in list_runtimes() if installed(name)]


@pytest.fixture(scope="module")
def lively_detector() -> DetectionModel:
    """A detector whose outputs differ from place to place and from image to image, as those of a trained one do."""
    from search_spaces import Architecture, Level, Neck, Stage, Stem, hook

    stages = tuple(Stage("Conv", "C2f", width, 1) for width in (16, 24, 32, 48))
    neck = Neck("Conv", (Level("C2f", 24, 1), Level("C2f", 32, 1), Level("C2f", 48, 1)))
    network = hook.build(hook.model_file(Architecture("yolov8", Stem("Conv", 8), stages, neck), nc=2))
    network.train()
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.requires_grad:
            module.reset_parameters()
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all that it sees, from here on
            module.reset_running_stats()
    with torch.no_grad():
        for seed in range(8):  # normalisation learns the ranges, so that signals neither fade nor grow
            network(torch.from_numpy(np.concatenate([image(10 * seed + i) for i in range(4)])))
        for branch in (*network.model[-1].cv2, *network.model[-1].cv3):
            branch[-1].weight.div_(4 * branch[-1].weight.std())
            branch[-1].bias.zero_()
    return network.eval()


@pytest.fixture(scope="module")
def files(lively_detector: DetectionModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The detector in a format, exported once."""

    @lru_cache
    def write(format: str, size: ImageSize = SQUARE) -> str:
        folder = tmp_path_factory.mktemp(format)
        images = [image(seed, size) for seed in range(4)]
        return model_of(export(lively_detector, size, format, folder, images))

    return write


def model_of(files: dict[str, Path]) -> str:
    return str(next(path for name, path in files.items() if name != "model.bin"))


def image(seed: int, size: ImageSize = SQUARE) -> Any:
    return np.random.default_rng(seed).random((1, 3, *size.shape), dtype=np.float32)


def errors(output: Any, expected: Any) -> tuple[float, float]:
    """Of boxes, as a share of the image, and of scores."""
    error = np.abs(output - expected)[0]
    return error[:4].mean() / SQUARE.width, error[4:].mean()


def settings(folder: Path, precision: str = "fp32", threads: int = 1) -> dict[str, Any]:
    return {"threads": threads, "precision": precision, "device": "cpu", "exclusive": False, "folder": str(folder)}


def load(name: str, files: Any, asked: dict[str, Any]) -> Any:
    """The network; the test ends here where the runtime says that it would do something else."""
    runtime = runtime_file(name)
    format = runtime.model_format(asked["precision"], runtime.identity(asked))
    try:
        return runtime.load(files(format), asked)
    except RuntimeError as error:
        assert asked["precision"] != "fp32"
        if not str(error).startswith(("config_mismatch: ", "unsupported: ")):
            raise
        pytest.skip(f"{name} says: {error}")


@pytest.mark.parametrize("name", EVERY)
def test_identity_can_be_printed(name: str, tmp_path: Path) -> None:
    identity = runtime_file(name).identity(settings(tmp_path))
    assert {"runtime": name, "version": identity["version"]}.items() <= identity.items()
    assert json.loads(json.dumps(identity)) == identity


@pytest.mark.parametrize(("name", "precision"), EXACT)
def test_computes_the_same_detections_as_torch(
    name: str, precision: str, files: Any, lively_detector: DetectionModel, tmp_path: Path
) -> None:
    network = load(name, files, settings(tmp_path, precision))
    for seed in (0, 1):
        with torch.no_grad():
            expected = lively_detector(torch.from_numpy(image(seed)))[0].numpy()
        (output,) = network.infer(image(seed))
        assert output.shape == expected.shape
        boxes, scores = errors(output, expected)
        assert boxes < TOLERANCE[precision][0]
        assert scores < TOLERANCE[precision][1]


@pytest.mark.parametrize("name", EVERY)
def test_an_image_need_not_be_square(name: str, files: Any, lively_detector: DetectionModel, tmp_path: Path) -> None:
    runtime, wide = runtime_file(name), ImageSize(96, 64)
    format = runtime.model_format("fp32", runtime.identity(settings(tmp_path)))
    network = runtime.load(files(format, wide), settings(tmp_path))
    assert tuple(network.image.shape)[-3:] == (3, 64, 96)  # that it is timed with
    with torch.no_grad():
        expected = lively_detector(torch.from_numpy(image(0, wide)))[0].numpy()
    (output,) = network.infer(image(0, wide))
    assert output.shape == expected.shape
    boxes, scores = errors(output, expected)
    assert boxes < TOLERANCE["fp32"][0]
    assert scores < TOLERANCE["fp32"][1]


def test_the_detector_of_these_tests_tells_images_and_places_apart(lively_detector: DetectionModel) -> None:
    with torch.no_grad():
        first, second = (lively_detector(torch.from_numpy(image(seed)))[0] for seed in (0, 1))
    boxes, scores = errors(first.numpy(), second.numpy())
    assert boxes > 4 * TOLERANCE["bf16"][0]
    assert scores > 4 * TOLERANCE["bf16"][1]
    assert first[0, 4:].std() > 0.05


@pytest.mark.parametrize("name", COARSE)
def test_int8_computes_nearly_what_a_trained_network_does(
    name: str, trained_on_squares: Callable[[str], DeployedRequest], tmp_path: Path
) -> None:
    """A made-up network at the edge of its ranges says little about eight bits; one that was trained does."""
    detector, train, val = trained(trained_on_squares("yolov8"))

    def error(ranges: list[Any] = train, network: DetectionModel = detector) -> tuple[float, float]:
        """Of boxes and of scores, over some images of the validation; eight bits span what `ranges` cause."""
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        deployed = load(name, lambda format: model_of(export(network, SQUARE, format, folder, ranges)), asked)
        with torch.no_grad():
            found = [errors(deployed.infer(x)[0], detector(torch.from_numpy(x))[0].numpy()) for x in val]
        return tuple(np.mean(found, axis=0))

    asked = settings(tmp_path, "int8")
    boxes, scores = error()
    assert boxes < 0.03
    assert scores < 0.001
    boxes, scores = error([x / 4 for x in train])
    assert boxes > 0.1
    assert scores > 0.003
    wrecked = deepcopy(detector)
    weight = wrecked.model[4].cv2.conv.weight  # one layer is enough
    weight.data = weight.data.flip(1)
    boxes, scores = error(network=wrecked)
    assert boxes > 0.1
    assert scores > 0.003


def trained(request: DeployedRequest) -> tuple[DetectionModel, list[Any], list[Any]]:
    """The network of a training; some of its images, of the training and of the validation."""
    from evaluators.accuracy.checkpoints import trained_weights
    from evaluators.accuracy.validation import LetterboxedImages
    from search_spaces import hook

    weights = trained_weights(request.checkpoint)
    assert weights is not None
    detector = hook.build(hook.model_file(request.architecture, 2))
    detector.load_state_dict(weights)
    train, val = (
        [images[number]["img"][None].float().div(255).numpy() for number in range(0, len(images), 3)]
        for split in ("train", "val")
        for images in [LetterboxedImages(request.dataset, split, SQUARE, ARGUMENTS)]
    )
    return detector.eval(), train, val


@pytest.mark.parametrize(("name", "precision"), CLAIMED)
@pytest.mark.parametrize("threads", [1, 2])
def test_says_what_is_really_used(name: str, precision: str, threads: int, files: Any, tmp_path: Path) -> None:
    network = load(name, files, settings(tmp_path, precision, threads))
    used = network.settings
    assert json.loads(json.dumps(used)) == used
    assert used["precision"] == precision
    assert threads in (used.get("threads"), used.get("INFERENCE_NUM_THREADS"))
    assert [network.run() for _ in range(3)] == [None, None, None]


@pytest.mark.parametrize("name", EVERY)
def test_the_fixed_image_is_always_the_same_and_no_constant(name: str, files: Any, tmp_path: Path) -> None:
    first, second = (load(name, files, settings(tmp_path)) for _ in range(2))
    network_output = first.infer(None)[0]
    np.testing.assert_array_equal(network_output, second.infer(None)[0])
    first.infer(image(7))
    np.testing.assert_array_equal(network_output, first.infer(None)[0])
    assert np.abs(network_output - first.infer(np.zeros_like(image(0)))[0])[0, 4:].max() > 0.05


@pytest.mark.parametrize("name", EVERY)
def test_values_that_are_not_finite_are_seen(name: str, small_detector: DetectionModel, tmp_path: Path) -> None:
    small_detector.model[0].conv.weight.data.fill_(float("nan"))
    runtime = runtime_file(name)
    format = runtime.model_format("fp32", runtime.identity(settings(tmp_path)))
    (tmp_path / "model").mkdir()
    files = export(small_detector, SQUARE, format, tmp_path / "model")
    network = runtime.load(model_of(files), settings(tmp_path))
    assert not np.isfinite(network.infer(None)[0]).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_file_that_is_no_model_is_an_error(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix in ("onnx", "param", "bin", "torchscript"):
        (tmp_path / f"model.{suffix}").write_bytes(b"garbage")
    suffix = {"ncnn": "param", "torch": "torchscript"}.get(name, "onnx")
    with pytest.raises(Exception, match=r"model\.|archive|read"):
        runtime_file(name).load(str(tmp_path / f"model.{suffix}"), settings(tmp_path))


@pytest.mark.parametrize("name", EVERY)
def test_an_image_may_lie_in_memory_in_any_order(name: str, files: Any, tmp_path: Path) -> None:
    network, plain = load(name, files, settings(tmp_path)), image(1)
    across = np.ascontiguousarray(plain.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not across.flags.c_contiguous
    # PyTorch adds up in another order then; memory that was not read right would be off by half the image.
    np.testing.assert_allclose(network.infer(across)[0], network.infer(plain)[0], rtol=1e-3, atol=1e-2)


def test_ncnn_takes_either_of_its_files(files: Any, tmp_path: Path) -> None:
    """A job names only one of them: the first."""
    weights = str(Path(files("ncnn")).with_suffix(".bin"))
    (output,) = runtime_file("ncnn").load(weights, settings(tmp_path)).infer(image(0))
    (expected,) = runtime_file("ncnn").load(files("ncnn"), settings(tmp_path)).infer(image(0))
    np.testing.assert_array_equal(output, expected)


def test_a_network_that_lacks_weights_is_an_error(files: Any, tmp_path: Path) -> None:
    (tmp_path / "model.param").write_bytes(Path(files("ncnn")).read_bytes())
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"ncnn cannot read model\.bin"):
        runtime_file("ncnn").load(str(tmp_path / "model.param"), settings(tmp_path))


@pytest.mark.parametrize(
    ("name", "precision", "format"),
    [
        ("onnxruntime", "fp16", "onnx-fp16"),
        ("onnxruntime", "int8", "onnx"),
        ("openvino", "int8", "onnx"),
        ("torch", "fp16", "torchscript"),
    ],
)
def test_what_would_not_be_used_is_refused(name: str, precision: str, format: str, files: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^(config_mismatch|unsupported): .+"):
        runtime_file(name).load(files(format), settings(tmp_path, precision))


x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="about x86 processors")


@x86
def test_onnxruntime_refuses_signed_activations_which_x86_would_compute_in_fp32(files: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^config_mismatch: .* in fp32"):
        runtime_file("onnxruntime").load(files("onnx-int8"), settings(tmp_path, "int8"))


@x86
def test_ncnn_refuses_fp16_on_x86_where_its_options_do_nothing(files: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^config_mismatch: ncnn has no fp16"):
        runtime_file("ncnn").load(files("ncnn"), settings(tmp_path, "fp16"))


@x86
def test_openvino_refuses_fp16_on_a_processor_that_has_none(files: Any, tmp_path: Path) -> None:
    """OpenVINO would take bf16 or fp32 without a word. The variable hides what this processor may have."""
    code = (
        "import runpy, sys\n"
        f"runpy.run_path({str(FOLDER / 'openvino.py')!r})['load']({files('onnx')!r}, {settings(tmp_path, 'fp16')!r})"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    done = subprocess.run([sys.executable, "-I", "-c", code], env=environment, capture_output=True, text=True)
    assert "config_mismatch: OpenVINO uses INFERENCE_PRECISION_HINT" in done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_gpu_computes_the_same_and_times_itself(
    precision: str, files: Any, lively_detector: DetectionModel, tmp_path: Path
) -> None:
    asked = settings(tmp_path, precision) | {"device": "cuda"}
    network = load("torch", files, asked)
    with torch.no_grad():
        expected = lively_detector(torch.from_numpy(image(0)))[0].numpy()
    boxes, scores = errors(network.infer(image(0))[0], expected)
    assert boxes < TOLERANCE[precision][0]
    assert scores < TOLERANCE[precision][1]
    assert all(0 < network.run() < 1000 for _ in range(3))
    assert network.settings["cuda_graph"]


@pytest.mark.parametrize("path", [Path(probe.__file__), *sorted(FOLDER.glob("[!_]*.py"))], ids=lambda path: path.name)
def test_a_device_needs_python_3_8_and_nothing_else_to_read_it(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= sys.stdlib_module_names
    assert "evaluators" not in path.read_text().split('"""', 2)[2]

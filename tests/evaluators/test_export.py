from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import onnxslim
import openvino
import pytest
import torch
from torch import nn

from evaluators import export_ncnn
from evaluators.errors import LatencyError
from evaluators.export import FORMATS, check_onnx, export, export_onnx
from search_spaces import hook
from search_spaces.activation import ACTIVATIONS
from search_spaces.contract import randomise
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

FILES = {"ncnn": ["model.bin", "model.param"], "torchscript": ["model.torchscript"]}


def nms_free(detector: DetectionModel) -> DetectionModel:
    """The same with a head like yolo26's."""
    from copy import deepcopy

    head = detector.model[-1]
    head.one2one_cv2, head.one2one_cv3 = deepcopy(head.cv2), deepcopy(head.cv3)
    head.end2end = True
    return detector


def test_one_input_and_one_output_of_fixed_shape(small_detector: DetectionModel, tmp_path: Path) -> None:
    path = tmp_path / "detector.onnx"
    export_onnx(small_detector, ImageSize(64, 64), path)
    assert list(tmp_path.iterdir()) == [path]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape, image.type) == ("images", [1, 3, 64, 64], "tensor(float)")
    assert (output.name, output.shape) == ("output0", [1, 4 + 2, 8 * 8 + 4 * 4 + 2 * 2])


def test_normalisation_is_fused_and_the_graph_simplified(small_detector: DetectionModel, tmp_path: Path) -> None:
    export_onnx(small_detector, ImageSize(64, 64), tmp_path / "detector.onnx")
    graph = onnx.load(tmp_path / "detector.onnx")
    operators = {node.op_type for node in graph.graph.node}
    assert "Conv" in operators
    assert operators.isdisjoint({"BatchNormalization", "Identity", "Shape", "Constant"})
    assert [opset.version for opset in graph.opset_import if not opset.domain] == [17]


def test_boxes_are_centre_and_size_in_pixels(small_detector: DetectionModel, tmp_path: Path) -> None:
    """What another program that reads the file relies on; equality with torch is in the block contract."""
    head = small_detector.model[-1]
    for branch in head.cv2:  # every side is one cell away from the anchor
        nn.init.zeros_(branch[-1].weight)
        bias = torch.full((4, head.reg_max), -50.0)
        bias[:, 1] = 50.0
        branch[-1].bias.data = bias.flatten()
    export_onnx(small_detector, ImageSize(64, 64), tmp_path / "detector.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "detector.onnx"), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": np.zeros((1, 3, 64, 64), np.float32)})
    first_cells = {0: 8, 64: 16, 80: 32}  # of each level: its index, its stride
    for index, stride in first_cells.items():
        np.testing.assert_allclose(output[0, :4, index], [stride / 2, stride / 2, 2 * stride, 2 * stride], rtol=1e-4)


def test_leaves_the_model_as_it_was(small_detector: DetectionModel, tmp_path: Path) -> None:
    small_detector.train()
    structure = str(small_detector)
    before = {key: value.clone() for key, value in small_detector.state_dict().items()}
    export_onnx(small_detector, ImageSize(32, 32), tmp_path / "detector.onnx")
    assert small_detector.training
    assert str(small_detector) == structure
    assert not any("forward" in vars(module) for module in small_detector.modules())
    assert not small_detector.model[-1].export
    after = small_detector.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_failed_export_leaves_the_old_file(
    small_detector: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault")

    (tmp_path / "detector.onnx").write_text("the old one")
    monkeypatch.setattr(onnxslim, "slim", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        export_onnx(small_detector, ImageSize(32, 32), tmp_path / "detector.onnx")
    assert (tmp_path / "detector.onnx").read_text() == "the old one"


@pytest.mark.parametrize("head", ["yolov8", "yolo26"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_takes_every_head_without_a_word(
    format: str,
    head: str,
    small_detector: DetectionModel,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, elsewhere = tmp_path / "files", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    files = export(nms_free(small_detector) if head == "yolo26" else small_detector, ImageSize(64, 64), format, folder)
    assert list(files) == FILES.get(format, ["model.onnx"])
    assert sorted(files.values()) == sorted(folder.iterdir())
    assert list(elsewhere.iterdir()) == []
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
    if format.startswith("onnx"):
        session = onnxruntime.InferenceSession(str(files["model.onnx"]), providers=["CPUExecutionProvider"])
        (image,), (output,) = session.get_inputs(), session.get_outputs()
        assert (image.name, image.type, output.type) == ("images", "tensor(float)", "tensor(float)")
        assert output.shape == ([1, 84, 6] if head == "yolo26" else [1, 6, 84])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_onnx_runtime_openvino_and_ncnn_compute_every_activation(
    name: str, small_detector: DetectionModel, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = randomise(hook.build({**small_detector.yaml, "activation": name})).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(image)[0].numpy()
    (tmp_path / "ncnn").mkdir()
    export(network, ImageSize(64, 64), "ncnn", tmp_path / "ncnn")  # which compares what ncnn computes
    export_onnx(network, ImageSize(64, 64), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    other = openvino.Core().compile_model(str(tmp_path / "model.onnx"), "CPU", hints)
    for output in (session.run(None, {"images": image.numpy()})[0], other(image.numpy())[0]):
        np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-3)


# A gate (GhostNetV2), GELU (ConvNeXt), SiLU that Ultralytics' key does not reach (YOLOv9).
@pytest.mark.parametrize("preset", ["yolov8n-ghostv2", "yolov8n-convnext", "yolov9t"])
def test_with_relu_no_other_activation_is_in_the_file(preset: str, tmp_path: Path) -> None:
    def operators(activation: str | None) -> Counter[str]:
        network = hook.build(hook.model_file(replace(load_preset(preset), activation=activation), nc=2))
        export_onnx(network, ImageSize(64, 64), tmp_path / "model.onnx")
        graph = onnx.load(tmp_path / "model.onnx").graph
        made = {name: node for node in graph.node for name in node.output}
        found = Counter(node.op_type for node in graph.node)
        for node in graph.node:
            factors = [made[name] for name in node.input if name in made] if node.op_type == "Mul" else []
            found["SiLU"] += any(one.op_type == "Sigmoid" and one.input[0] in node.input for one in factors)
        return found

    own, relu = operators(None), operators("ReLU")
    assert own["SiLU"] > 0 == own["Relu"]
    assert relu["Relu"] == own["SiLU"] + own["Erf"]
    assert relu["SiLU"] == relu["Erf"] == 0
    assert relu["Sigmoid"] == own["Sigmoid"] - own["SiLU"] > 0  # gates and the classes' scores


def test_half_precision_is_in_the_weights_and_between_all_operators(
    small_detector: DetectionModel, tmp_path: Path
) -> None:
    path = export(small_detector, ImageSize(64, 64), "onnx-fp16", tmp_path)["model.onnx"]
    graph = onnx.load(path).graph
    wide = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert wide == {node.input[2] for node in graph.node if node.op_type == "Resize"}  # its scales must be float32
    assert [node.op_type for node in graph.node].count("Cast") == 2


@pytest.mark.parametrize(
    ("format", "kind"), [("onnx-int8", onnx.TensorProto.INT8), ("onnx-uint8", onnx.TensorProto.UINT8)]
)
def test_only_convolutions_are_quantised(
    format: str, kind: int, small_detector: DetectionModel, tmp_path: Path
) -> None:
    path = export(small_detector, ImageSize(64, 64), format, tmp_path)["model.onnx"]
    graph = onnx.load(path).graph
    made = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and "/dfl/" not in node.name]
    for node in convolutions:
        image, weights = made[node.input[0]], made[node.input[1]]
        assert image.op_type == weights.op_type == "DequantizeLinear"
        assert constants[image.input[2]].data_type == kind
        assert onnx.numpy_helper.to_array(constants[weights.input[1]]).shape == (node_channels(node, constants, made),)
        if format == "onnx-int8":  # as TensorRT wants it: zero is zero, and biases stay as they are
            assert not onnx.numpy_helper.to_array(constants[image.input[2]]).any()
            assert node.input[2] in constants
    pairs = sum(node.op_type == "QuantizeLinear" for node in graph.node)
    assert pairs <= 2 * len(convolutions)
    assert made["output0"].op_type == "Concat"


def node_channels(node: onnx.NodeProto, constants: Any, made: Any) -> int:
    source = made[node.input[1]].input[0]
    while source not in constants:
        source = made[source].input[0]
    return int(constants[source].dims[0])


def test_int8_takes_its_ranges_from_the_images_that_it_is_given(small_detector: DetectionModel, tmp_path: Path) -> None:
    found = []
    for value in (0.5, 1.0):
        (tmp_path / str(value)).mkdir()
        images = [np.full((1, 3, 64, 64), value, np.float32)]
        path = export(small_detector, ImageSize(64, 64), "onnx-int8", tmp_path / str(value), images)["model.onnx"]
        constants = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
        found.append(float(onnx.numpy_helper.to_array(constants["images_scale"])))
    assert found == pytest.approx([0.5 / 127, 1 / 127], rel=0.02)


def test_an_unknown_format_is_refused(small_detector: DetectionModel, tmp_path: Path) -> None:
    with pytest.raises(LatencyError, match="there is no format 'tflite'; known: onnx, ") as caught:
        export(small_detector, ImageSize(64, 64), "tflite", tmp_path)
    assert caught.value.cause == "unsupported"


class Unknown(nn.Module):
    """A layer with an operator that neither ONNX nor ncnn has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.cummax(x, dim=-1).values


@pytest.mark.parametrize(("format", "name"), [("onnx", "cummax"), ("ncnn", "cummax")])
def test_an_operator_that_a_format_lacks_is_named(
    format: str, name: str, small_detector: DetectionModel, tmp_path: Path
) -> None:
    layer = small_detector.model[0]
    layer.act = nn.Sequential(layer.act, Unknown())
    with pytest.raises(LatencyError, match=name) as caught:
        export(small_detector, ImageSize(64, 64), format, tmp_path)
    assert caught.value.cause == "unsupported"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["pnnx", "ncnn"])
def test_a_missing_converter_is_said_with_what_to_do(
    missing: str, small_detector: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "pnnx":
        monkeypatch.setitem(sys.modules, "pnnx", None)
    else:
        monkeypatch.setattr(export_ncnn, "RUN", "import sys; sys.modules['ncnn'] = None" + export_ncnn.RUN)
    with pytest.raises(LatencyError, match=r"pip install 'nas-yolo\[ncnn\]'") as caught:
        export(small_detector, ImageSize(64, 64), "ncnn", tmp_path)
    assert caught.value.cause == "unsupported"


def test_a_converter_that_crashes_is_an_error_with_its_last_words(
    small_detector: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pnnx

    program = tmp_path / "pnnx"
    program.write_text("#!/bin/sh\necho broken here >&2\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(program))
    with pytest.raises(LatencyError, match="pnnx ended with status -11: broken here") as caught:
        export(small_detector, ImageSize(64, 64), "ncnn", tmp_path)
    assert caught.value.cause == "export"


def test_what_ncnn_computes_is_compared_with_the_network(
    small_detector: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = export_ncnn._convert

    def drop(work: Path, imgsz: ImageSize) -> None:
        convert(work, imgsz)
        param = work / "net.ncnn.param"
        param.write_text(param.read_text().replace("Sigmoid ", "ReLU ", 1))

    monkeypatch.setattr(export_ncnn, "_convert", drop)
    for branch in small_detector.model[-1].cv3:
        nn.init.constant_(branch[-1].bias, 1000.0)
    with pytest.raises(LatencyError, match="computes something else") as caught:
        export(small_detector, ImageSize(64, 64), "ncnn", tmp_path)
    assert caught.value.cause == "export"


def made_up(tmp_path: Path, node: onnx.NodeProto, **kinds: Any) -> Path:
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    weights = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:], [weights])
    onnx.save(onnx.helper.make_model(graph, **kinds), tmp_path / "made.onnx")
    return tmp_path / "made.onnx"


def test_a_standard_file_that_is_whole_may_be_sent(tmp_path: Path) -> None:
    check_onnx(made_up(tmp_path, onnx.helper.make_node("Add", ["x", "w"], ["y"])))


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    path = made_up(tmp_path, onnx.helper.make_node("Add", ["x", "w"], ["y"]))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").exists()
    with pytest.raises(LatencyError, match="keeps w in another file"):
        check_onnx(path)


def test_foreign_operators_are_refused_wherever_they_hide(tmp_path: Path) -> None:
    foreign = onnx.helper.make_node("Gadget", ["x"], ["y"], domain="com.example")
    with pytest.raises(LatencyError, match=r"needs the operator com\.example\.Gadget"):
        check_onnx(made_up(tmp_path, foreign))
    branch = onnx.helper.make_graph([foreign], "b", [], [])
    condition = onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(LatencyError, match=r"needs the operator com\.example\.Gadget"):
        check_onnx(made_up(tmp_path, condition))


def test_functions_of_a_file_are_refused(tmp_path: Path) -> None:
    inner = onnx.helper.make_node("Relu", ["x"], ["y"])
    opset = [onnx.helper.make_opsetid("", 17)]
    function = onnx.helper.make_function("local", "Mine", ["x"], ["y"], [inner], opset)
    with pytest.raises(LatencyError, match="operator of its own, Mine"):
        check_onnx(made_up(tmp_path, onnx.helper.make_node("Relu", ["x"], ["y"]), functions=[function]))

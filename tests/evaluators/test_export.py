from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import onnxslim
import pytest
import torch
from torch import nn

from evaluators.export import export_onnx

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel


def test_one_input_and_one_output_of_fixed_shape(small_detector: DetectionModel, tmp_path: Path) -> None:
    path = tmp_path / "detector.onnx"
    export_onnx(small_detector, 64, path)
    assert list(tmp_path.iterdir()) == [path]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape, image.type) == ("images", [1, 3, 64, 64], "tensor(float)")
    assert (output.name, output.shape) == ("output0", [1, 4 + 2, 8 * 8 + 4 * 4 + 2 * 2])


def test_normalisation_is_fused_and_the_graph_simplified(small_detector: DetectionModel, tmp_path: Path) -> None:
    export_onnx(small_detector, 64, tmp_path / "detector.onnx")
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
    export_onnx(small_detector, 64, tmp_path / "detector.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "detector.onnx"), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": np.zeros((1, 3, 64, 64), np.float32)})
    first_cells = {0: 8, 64: 16, 80: 32}  # of each level: its index, its stride
    for index, stride in first_cells.items():
        np.testing.assert_allclose(output[0, :4, index], [stride / 2, stride / 2, 2 * stride, 2 * stride], rtol=1e-4)


def test_leaves_the_model_as_it_was(small_detector: DetectionModel, tmp_path: Path) -> None:
    small_detector.train()
    structure = str(small_detector)
    before = {key: value.clone() for key, value in small_detector.state_dict().items()}
    export_onnx(small_detector, 32, tmp_path / "detector.onnx")
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
        export_onnx(small_detector, 32, tmp_path / "detector.onnx")
    assert (tmp_path / "detector.onnx").read_text() == "the old one"

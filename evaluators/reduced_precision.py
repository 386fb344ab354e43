"""An ONNX file in half precision, or quantised to eight bits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = Iterable[NDArray[np.float32]]

RANDOM_IMAGES = 2
EXACT = "/dfl/"  # no layer of weights but a mean over distances, which boxes are as exact as


def to_fp16(path: Path) -> None:
    """Convert a file in place: all weights and operators, so that strongly typed runtimes obey.

    Image and output stay float32: no application has to be changed, and what stands in the file is what is timed.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _silence():
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


def to_int8(path: Path, images: Images | None, signed: bool) -> None:
    """Quantise the convolutions of a file, in place: weights per channel, ranges of activations from images.

    Nothing else is quantised: boxes in pixels and scores share tensors, and would share a range.

    Args:
        path: The file.
        images: Arrays of the input's shape, in [0, 1]; None: random ones.
        signed: Whether zero stays zero, and the outputs of convolutions are left alone, as TensorRT has it. On x86,
            ONNX Runtime computes in 8 bits only with activations that are unsigned, in and out, and OpenVINO only so
            computes the same on all processors.
    """
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    graph = onnx.load(path).graph
    (node,) = graph.input
    if images is None:
        shape = [size.dim_value for size in node.type.tensor_type.shape.dim]
        rng = np.random.default_rng(0)
        images = [rng.random(shape, dtype=np.float32) for _ in range(RANDOM_IMAGES)]
    feeds: Iterator[dict[str, Any]] = ({node.name: image} for image in images)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    options = {
        "ActivationSymmetric": signed,
        "WeightSymmetric": True,
        # TensorRT takes no 32-bit biases, and in its older releases no 8-bit weights, but quantises both by itself.
        "QuantizeBias": not signed,
        "AddQDQPairToWeight": signed,
        "OpTypesToExcludeOutputQuantization": ["Conv"] if signed else [],
    }
    with _silence():
        quantize_static(
            path,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[node.name for node in graph.node if EXACT in node.name],
            per_channel=True,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options=options,
        )


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing below an error is logged meanwhile: these tools warn of what is done on purpose."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime


def identity() -> dict[str, str]:
    """What the times depend on: runtime, version, execution provider."""
    return {"runtime": "onnxruntime", "version": onnxruntime.__version__, "provider": "CPUExecutionProvider"}


def load(model: str, threads: int) -> Callable[[], bool]:
    """A function that runs the model once on a fixed input and says whether all outputs are finite.

    Args:
        model: Path of an ONNX file with one float32 input of a fixed shape.
        threads: Threads within an operator; operators run one after another.

    Raises:
        RuntimeError: If ONNX Runtime chose another provider than the CPU.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if session.get_providers() != ["CPUExecutionProvider"]:
        raise RuntimeError(f"config_mismatch: asked for the CPU, got {session.get_providers()}")
    (node,) = session.get_inputs()
    image = np.random.default_rng(0).random(node.shape, dtype=np.float32)

    def run() -> bool:
        return all(bool(np.isfinite(output).all()) for output in session.run(None, {node.name: image}))

    return run

"""ONNX Runtime, on a CPU, or on a GPU by its CUDA or TensorRT provider."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PRECISIONS = ("fp32", "fp16", "int8")
DEVICES = ("cpu", "cuda", "tensorrt")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Runtime, version, execution provider."""
    import onnxruntime

    provider = PROVIDERS[settings["device"]]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"unsupported: this ONNX Runtime has no {provider}")
    return {"runtime": "onnxruntime", "version": onnxruntime.__version__, "provider": provider}


def model_format(precision: str, identity: dict[str, Any]) -> str:
    """ONNX, in the precision that it is to be computed in."""
    if precision == "int8" and identity["provider"] == PROVIDERS["cpu"]:
        return "onnx-uint8"  # on x86, signed activations would be computed in fp32, or slower
    return "onnx" if precision == "fp32" else f"onnx-{precision}"


def load(model: str, settings: dict[str, Any]) -> Network:
    """A network on one provider.

    Raises:
        RuntimeError: `config_mismatch` if ONNX Runtime chose another provider, or would compute in fp32.
    """
    return Network(model, settings)


class Network:
    """A session with a fixed image."""

    def __init__(self, model: str, settings: dict[str, Any]):
        import numpy as np
        import onnxruntime

        provider = PROVIDERS[settings["device"]]
        if settings["precision"] == "fp16" and settings["device"] == "cpu":
            raise RuntimeError("config_mismatch: on a CPU ONNX Runtime computes in fp32 whatever the file holds")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # On a machine of its own it may wait for work by spinning; elsewhere that takes the time of others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings["exclusive"] else "0")
        options.log_severity_level = 3
        quantised = settings["precision"] == "int8" and settings["device"] == "cpu"
        optimised = Path(settings["folder"]) / "optimised.onnx"
        if quantised:
            options.optimized_model_filepath = str(optimised)
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=[provider])
        except Exception as error:
            lacks = r"\S+ is not a registered function|No Op registered for \S+|NOT_IMPLEMENTED.*"
            reason = re.search(lacks, str(error))
            if not reason:
                raise
            raise RuntimeError(f"unsupported: ONNX Runtime cannot run an operator: {reason[0]}") from error
        if self.session.get_providers()[0] != provider:
            raise RuntimeError(f"config_mismatch: asked for {provider}, got {self.session.get_providers()}")
        if quantised:
            content = optimised.read_bytes()  # names of operators stand there in plain text, after tag and length
            if content.count(b'"\x0bQLinearConv') <= content.count(b'"\x04Conv'):
                raise RuntimeError("config_mismatch: ONNX Runtime would compute most convolutions of this file in fp32")
        (node,) = self.session.get_inputs()
        dtype = np.float16 if node.type == "tensor(float16)" else np.float32
        self.name, self.dtype = node.name, dtype
        self.image = np.random.default_rng(0).random(node.shape, dtype=np.float32).astype(dtype)
        self.settings = {"provider": provider, "threads": settings["threads"], "precision": settings["precision"]}

    def run(self) -> None:
        """Once, on the fixed image."""
        self.session.run(None, {self.name: self.image})

    def infer(self, image: Any) -> list[Any]:
        """The outputs for an image."""
        image = self.image if image is None else image.astype(self.dtype)
        return list(self.session.run(None, {self.name: image}))

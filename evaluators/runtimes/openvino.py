"""OpenVINO on a CPU."""

from __future__ import annotations

from typing import Any

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
DEVICES = ("cpu",)
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}  # int8 is in the file; the hint is for the rest
COMPUTED = {"fp32": ("f32",), "fp16": ("f16",), "bf16": ("bf16",), "int8": ("i8", "u8")}


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Runtime and version, and what int8 means: in earlier releases of nas-yolo activations were signed."""
    import openvino

    found = {"runtime": "openvino", "version": openvino.__version__}
    return {**found, "activations": "unsigned"} if settings["precision"] == "int8" else found


def model_format(precision: str, identity: dict[str, Any]) -> str:
    """ONNX; other floating-point precisions are a setting, not another file.

    On processors without AMX, OpenVINO computes something else where signed activations are concatenated.
    """
    return "onnx-uint8" if precision == "int8" else "onnx"


def load(model: str, settings: dict[str, Any]) -> Network:
    """A network compiled for one request at a time.

    Raises:
        RuntimeError: `config_mismatch` if OpenVINO would compute in another precision, or with other threads.
    """
    return Network(model, settings)


class Network:
    """A request with a fixed image."""

    def __init__(self, model: str, settings: dict[str, Any]):
        import numpy as np
        import openvino

        precision = settings["precision"]
        asked = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],  # the default is bf16 where the CPU has it
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": settings["threads"],
            # Two processes that pin their threads get the same core, and leave another idle.
            "ENABLE_CPU_PINNING": settings["exclusive"],
        }
        compiled = openvino.Core().compile_model(model, "CPU", asked)
        used = {name: compiled.get_property(name) for name in asked}
        used["INFERENCE_PRECISION_HINT"] = used["INFERENCE_PRECISION_HINT"].get_type_name()
        used["PERFORMANCE_HINT"] = str(used["PERFORMANCE_HINT"]).rpartition(".")[2]  # an enumeration in some releases
        for name in ("INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS"):
            if used[name] != asked[name]:
                raise RuntimeError(f"config_mismatch: OpenVINO uses {name} {used[name]}, not {asked[name]}, here")
        layers = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
        computed = [
            layer["runtimePrecision"].astype(str) for layer in layers if layer["layerType"].astype(str) == "Convolution"
        ]
        as_asked = sum(name in COMPUTED[precision] for name in computed)
        if 2 * as_asked <= len(computed):  # a few layers have no kernel in every precision
            raise RuntimeError(
                f"config_mismatch: OpenVINO computes {as_asked} of {len(computed)} convolutions in {precision} here"
            )
        self.request = compiled.create_infer_request()
        self.image = np.random.default_rng(0).random(tuple(compiled.input().shape), dtype=np.float32)
        self.settings = {**used, "precision": precision, "convolutions": f"{as_asked} of {len(computed)}"}

    def run(self) -> None:
        """Once, on the fixed image."""
        self.request.infer([self.image], share_inputs=True, share_outputs=True)

    def infer(self, image: Any) -> list[Any]:
        """The outputs for an image."""
        return list(self.request.infer([self.image if image is None else image]).values())

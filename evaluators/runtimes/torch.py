"""PyTorch, on a CPU or an NVIDIA GPU, from TorchScript."""

from __future__ import annotations

import re
from typing import Any

PRECISIONS = ("fp32", "fp16", "bf16")
DEVICES = ("cpu", "cuda")
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
WARM_UP_RUNS = 10  # TorchScript optimises itself during the first runs, and cuDNN tries its algorithms


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Runtime and version, and on a GPU: which, CUDA and cuDNN."""
    import torch

    found: dict[str, Any] = {"runtime": "torch", "version": torch.__version__}
    if settings["device"] == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError("unsupported: this PyTorch finds no CUDA device")
        device = torch.cuda.get_device_name()
        found.update(device=device, cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    return found


def model_format(precision: str, identity: dict[str, Any]) -> str:
    """TorchScript in fp32, converted when it is loaded."""
    return "torchscript"


def load(model: str, settings: dict[str, Any]) -> Network:
    """A network on a device.

    Raises:
        RuntimeError: `config_mismatch` if PyTorch would compute in another precision, or with other threads.
    """
    return OnGPU(model, settings) if settings["device"] == "cuda" else OnCPU(model, settings)


class Network:
    """A frozen network with a fixed image."""

    def __init__(self, model: str, settings: dict[str, Any]):
        import torch

        device, precision = settings["device"], settings["precision"]
        dtype = getattr(torch, DTYPES[precision])
        torch.set_num_threads(settings["threads"])
        if torch.get_num_threads() != settings["threads"]:
            raise RuntimeError(f"config_mismatch: PyTorch uses {torch.get_num_threads()} threads here")
        about = {"imgsz": ""}
        script = torch.jit.load(model, map_location=device, _extra_files=about).eval().to(dtype)
        self.script = torch.jit.freeze(script)
        sides = [int(side) for side in re.findall(r"\d+", str(about["imgsz"]))]  # `640`, or `640x384`: width and height
        shape = (1, 3, sides[-1], sides[0])
        self.image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        self.settings = {"device": device, "precision": precision, "threads": torch.get_num_threads()}

    def compute(self, image: Any) -> Any:
        """The output, on the device."""
        import torch

        with torch.inference_mode():
            return self.script(image)


class OnCPU(Network):
    """Timed by the probe."""

    def __init__(self, model: str, settings: dict[str, Any]):
        import torch

        if settings["precision"] == "fp16":
            raise RuntimeError("unsupported: on a CPU PyTorch is slower in fp16 than in fp32; choose fp32 or bf16")
        if settings["precision"] == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            raise RuntimeError("config_mismatch: PyTorch has no bf16 for this CPU")
        super().__init__(model, settings)

    def run(self) -> None:
        """Once, on the fixed image."""
        self.compute(self.image)

    def infer(self, image: Any) -> list[Any]:
        """The outputs for an image."""
        import torch

        chosen = self.image if image is None else torch.from_numpy(image).to(self.image.dtype)
        return [self.compute(chosen).float().numpy()]


class OnGPU(Network):
    """One CUDA graph: the time is the GPU's own, without that of launching kernels and of copying the image."""

    def __init__(self, model: str, settings: dict[str, Any]):
        import torch

        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        if torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32:
            raise RuntimeError("config_mismatch: PyTorch uses TF32 in place of fp32 here")
        super().__init__(model, settings)
        # Capturing wants all lazy work done, and done on another stream than the default one.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                self.compute(self.image)
        torch.cuda.current_stream().wait_stream(side)
        self.fixed = self.image.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = self.compute(self.image)
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.settings.update(cuda_graph=True, cudnn_benchmark=torch.backends.cudnn.benchmark, tf32=False)

    def run(self) -> float:
        """Once, on the image that is there; milliseconds by the GPU's clock."""
        self.start.record()
        self.graph.replay()
        self.end.record()
        self.end.synchronize()
        return float(self.start.elapsed_time(self.end))

    def infer(self, image: Any) -> list[Any]:
        """The outputs for an image."""
        import torch

        self.image.copy_(self.fixed if image is None else torch.from_numpy(image))
        self.run()
        outputs = [self.output.float().cpu().numpy()]
        self.image.copy_(self.fixed)
        return outputs

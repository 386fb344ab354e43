"""ncnn on a CPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PRECISIONS = ("fp32", "fp16")
DEVICES = ("cpu",)
REDUCED = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
SPIN_MS = 20  # that a thread waits for work before it sleeps, as ncnn's default


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Runtime and version."""
    import ncnn

    return {"runtime": "ncnn", "version": ncnn.__version__}


def model_format(precision: str, identity: dict[str, Any]) -> str:
    """Structure and fp32 weights; ncnn converts these when it loads them."""
    return "ncnn"


def load(model: str, settings: dict[str, Any]) -> Network:
    """A network, from either of its two files; the other lies beside it.

    Raises:
        RuntimeError: `config_mismatch` if ncnn would compute in another precision; likewise if it cannot read a file.
    """
    return Network(model, settings)


class Network:
    """A network with a fixed image."""

    def __init__(self, model: str, settings: dict[str, Any]):
        import ncnn
        import numpy as np

        precision = settings["precision"]
        self.net = ncnn.Net()
        option = self.net.opt
        option.use_vulkan_compute = False
        option.num_threads = settings["threads"]
        # On a machine of its own it may wait for work by spinning; elsewhere that takes the time of others.
        option.openmp_blocktime = SPIN_MS if settings["exclusive"] else 0
        for name in REDUCED:  # some are on by default
            setattr(option, name, precision == "fp16" and "fp16" in name)
        structure, weights = Path(model).with_suffix(".param"), Path(model).with_suffix(".bin")
        for read, path in ((self.net.load_param, structure), (self.net.load_model, weights)):
            if read(str(path)) != 0:
                raise RuntimeError(f"unsupported: ncnn cannot read {path.name}")
        option = self.net.opt
        layers = [layer for layer in self.net.layers() if layer.type.startswith("Convolution")]
        # The options are mere permissions: on x86 no layer makes use of them.
        if precision == "fp16" and not (option.use_fp16_storage and all(one.support_fp16_storage for one in layers)):
            raise RuntimeError("config_mismatch: ncnn has no fp16 for this CPU, and would compute in fp32")
        if option.num_threads != settings["threads"]:
            raise RuntimeError(f"config_mismatch: ncnn uses {option.num_threads} threads, not {settings['threads']}")
        (self.input,), (self.output,) = self.net.input_names(), self.net.output_names()
        size = re.search(r"^Input .* 0=(\d+) 1=(\d+) 2=(\d+)", structure.read_text(), re.M)
        if not size:
            raise RuntimeError(f"unsupported: {structure.name} does not give its image size: 0=WIDTH 1=HEIGHT 2=3")
        width, height, channels = map(int, size.groups())
        self.image = np.random.default_rng(0).random((channels, height, width), dtype=np.float32)
        self.mat = ncnn.Mat(self.image)  # shares the memory
        self.settings = {
            "threads": option.num_threads,
            "precision": precision,
            **{name: getattr(option, name) for name in (*REDUCED, "use_vulkan_compute", "openmp_blocktime")},
        }

    def run(self) -> None:
        """Once, on the fixed image."""
        self._extract(self.mat)

    def infer(self, image: Any) -> list[Any]:
        """The outputs for an image."""
        import ncnn
        import numpy as np

        given = self.image if image is None else np.ascontiguousarray(image[0])
        return [np.array(self._extract(ncnn.Mat(given)))[None]]  # ncnn has no batches

    def _extract(self, image: Any) -> Any:
        with self.net.create_extractor() as extractor:
            extractor.input(self.input, image)
            status, output = extractor.extract(self.output)
        if status != 0:
            raise RuntimeError(f"ncnn could not run the network: status {status}")
        return output

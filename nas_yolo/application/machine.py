"""What this machine has, and what of it each training of a search gets."""

from __future__ import annotations

from dataclasses import dataclass

from evaluators.packing import trainings_at_once
from nas_yolo.config import SearchConfig


@dataclass(frozen=True)
class Allotment:
    """What the trainings of a search get.

    Attributes:
        slots: Trainings at once.
        threads: Of each.
        gpus_per_trial: GPUs, or a share of one, that each holds; 0 where there is none.
    """

    slots: int
    threads: int
    gpus_per_trial: float

    @property
    def on_gpu(self) -> bool:
        """Whether they use a GPU."""
        return self.gpus_per_trial > 0


def allot(config: SearchConfig, gpus: int, cores: int) -> Allotment:
    """Divide a machine among the trainings of a search."""
    if config.runner == "local":
        slots = 1
    elif gpus:
        fit = trainings_at_once(gpus, config.gpus_per_trial)
        slots = min(config.workers or fit, fit)
    else:
        slots = config.workers or cores
    return Allotment(slots, max(cores // slots, 1), config.gpus_per_trial if gpus else 0.0)


def count_gpus() -> int:
    """GPUs that PyTorch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_name() -> str:
    """Of the first."""
    import torch

    return torch.cuda.get_device_name(0)

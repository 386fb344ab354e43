"""Ultralytics' trainer, reduced to what a search needs: pause, continue, report; no plots, no final evaluation.

Order of the images and random augmentation are a function of the seed and the epoch, so a training that was paused and
continued elsewhere takes the same steps as one that was not.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Sampler
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER, SETTINGS
from ultralytics.utils.torch_utils import unwrap_model

from evaluators.accuracy.training import TrainingRequest
from evaluators.dataset import Dataset
from evaluators.evaluation import Epoch
from evaluators.host_lock import TrainingSlot
from search_spaces import hook

hook.install()

# Ultralytics reports to whichever of these services it finds, Ray Tune by default. Only this process is concerned.
dict.update(SETTINGS, dict.fromkeys(("sync", "clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune"), False))
dict.update(SETTINGS, dict.fromkeys(("tensorboard", "wandb"), False))

CHECKPOINT_FORMAT = 1


class EpochOrder(Sampler[int]):
    """A random order of the images that depends on the seed and the epoch only."""

    def __init__(self, images: int, seed: int, epoch: int):
        self.images, self.seed, self.epoch = images, seed, epoch

    def __len__(self) -> int:
        return self.images

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.images)
        self.epoch += 1
        return iter(order.tolist())


class ProxyTrainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
    """Trains one architecture from its checkpoint, if there is one, to the end of a rung."""

    def __init__(
        self,
        request: TrainingRequest,
        checkpoint: dict[str, Any] | None,
        slot: TrainingSlot,
        report: Callable[[Epoch], None],
        stop: threading.Event,
    ):
        self.request, self.slot, self.report, self.stop_request = request, slot, report, stop
        self._checkpoint = checkpoint
        self._history: list[Epoch] = [Epoch(**epoch) for epoch in checkpoint["history"]] if checkpoint else []
        self._reported_at, self._waited_before = time.monotonic(), slot.waited_s
        overrides = {**base_arguments(request.imgsz, request.scratch), **request.arguments}
        overrides |= {
            "epochs": request.epochs,
            "seed": request.seed,
            "device": "0" if request.gpu else "cpu",
            # A CPU gives the same result without being asked; asking costs 2 s of imports in every process.
            "deterministic": request.gpu,
            # A tenth of the schedule at most, so that short ones are not all warm-up; Ultralytics' 3 from 30 epochs.
            "warmup_epochs": request.arguments.get("warmup_epochs", min(3.0, request.epochs / 10)),
        }
        self._file = hook.model_file(request.architecture, len(request.dataset.names))
        if self._file.get("end2end"):
            overrides["nms"] = False  # else the half of the head that needs NMS is validated, which is not deployed
        super().__init__(overrides=overrides, _callbacks={})
        for event, callback in {
            "on_train_epoch_start": ProxyTrainer._begin_epoch,
            "on_train_batch_start": ProxyTrainer._begin_batch,
            "on_val_batch_start": lambda _: slot.give_way(),
            "on_train_batch_end": ProxyTrainer._end_batch,
            "on_fit_epoch_end": ProxyTrainer._end_epoch,
        }.items():
            self.callbacks.setdefault(event, []).append(callback)

    def get_dataset(self) -> dict[str, Any]:
        """The checked data set; Ultralytics' own check could download one."""
        return data_document(self.request.dataset)

    def setup_model(self) -> None:
        """Build the architecture; weights are random, or come with the checkpoint."""
        model = hook.build(self._file)
        if not self.request.gpu and channels_last_is_safe(model):
            # 7 to 15 % faster on a CPU, by measurement; on a GPU Ultralytics does this itself.
            model = model.to(memory_format=torch.channels_last)
        self.model = self.set_model_names_for_load(model)

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Ultralytics' loader; the training images come in the epoch's order."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "train":
            batches = loader.batch_sampler.sampler
            start = self._checkpoint["epoch"] if self._checkpoint else 0
            batches.sampler = EpochOrder(len(loader.dataset), self.request.seed, start)
            # A last batch of one image has no variance to normalise by where the map is a single pixel.
            batches.drop_last = len(loader.dataset) % batches.batch_size == 1 and len(loader.dataset) > 1
        return loader

    def build_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Ultralytics' choice; Adam's and AdamW's fused kernel also on a CPU, where it takes half the time."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(*args, **kwargs)
        if isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
            for group in optimizer.param_groups:
                group["fused"] = True
        return optimizer

    def resume_training(self, ckpt: Any) -> None:
        """Put the training where the checkpoint left it, in full precision."""
        saved, self._checkpoint = self._checkpoint, None
        if saved is None:
            return
        model = unwrap_model(self.model)
        model.load_state_dict(saved["model"])
        if self._file.get("end2end"):
            # The weight of the half that needs NMS falls from epoch to epoch.
            model.criterion = model.init_criterion()
            model.criterion.updates = saved["epoch"] - 1
            model.criterion.update()
        self.ema.ema.load_state_dict(saved["ema"])
        self.ema.updates = saved["ema_updates"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.best_fitness = saved["best_fitness"]
        self.start_epoch = saved["epoch"]

    def save_model(self) -> bool:
        """Write the checkpoint: tensors and plain values, no pickled classes; replaced as a whole."""
        now, waited = time.monotonic(), self.slot.waited_s
        epoch = Epoch(
            epoch=self.epoch + 1,
            map50_95=float(self.metrics["metrics/mAP50-95(B)"]),
            map50=float(self.metrics["metrics/mAP50(B)"]),
            loss=float(sum(self.tloss.values())),
            seconds=(now - self._reported_at) - (waited - self._waited_before),
        )
        self._reported_at, self._waited_before = now, waited
        self._history.append(epoch)
        path = self.request.checkpoint
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        document = {
            "format": CHECKPOINT_FORMAT,
            "architecture": self.request.architecture.document,
            "epoch": epoch.epoch,
            "history": [asdict(past) for past in self._history],
            "model": unwrap_model(self.model).state_dict(),
            "ema": self.ema.ema.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_fitness": float(self.best_fitness),
        }
        torch.save(document, temporary)
        temporary.replace(path)
        return True

    def final_eval(self) -> None:
        """Nothing: the last epoch was validated, and Ultralytics would strip the checkpoint of its optimizer."""

    def save_metrics(self, metrics: Any) -> None:
        """Nothing: metrics are reported."""

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Stop at values that are not finite, where Ultralytics would go back and try another three times.

        Raises:
            FloatingPointError: If the loss or the fitness is not finite.
        """
        if not torch.isfinite(self.loss).all() or not np.isfinite(self.fitness):
            raise FloatingPointError(f"the loss was not finite in epoch {epoch + 1}")
        return False

    def _begin_epoch(self) -> None:
        mixed = int(np.random.SeedSequence((self.request.seed, self.epoch)).generate_state(1)[0])
        random.seed(mixed)
        np.random.seed(mixed)
        torch.manual_seed(mixed)
        # Ultralytics answers memory exhaustion by halving the batch, up to three times: another training, silently.
        self._oom_retries = 3

    def _begin_batch(self) -> None:
        self.slot.give_way()

    def _end_batch(self) -> None:
        if self.stop_request.is_set():
            raise InterruptedError("the search stopped this training")

    def _end_epoch(self) -> None:
        self.report(self._history[-1])
        if self.epoch + 1 >= self.request.until:
            self.stop = True


def channels_last_is_safe(model: nn.Module) -> bool:
    """Whether a CPU may train it in that layout.

    There, torch 2.15 writes outside its memory for the weight gradient of a strided 1×1 convolution of fewer than 16
    channels at an even size, and the process dies (RepVGG downsamplings have one).
    """
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return not any(c.kernel_size == (1, 1) and c.stride != (1, 1) for c in convolutions)


def train_rung(
    request: TrainingRequest, slot: TrainingSlot, report: Callable[[Epoch], None], stop: threading.Event
) -> None:
    """Train `request` in this thread.

    Raises:
        FloatingPointError: If the loss stops being finite.
        InterruptedError: If `stop` was set.
        FileNotFoundError: If epochs are on record but their checkpoint is gone.
        ValueError: If the checkpoint is another architecture's, or another version's.
    """
    LOGGER.setLevel("ERROR")
    torch.set_num_threads(request.threads)
    checkpoint = _load_checkpoint(request)
    trained = 0
    if checkpoint:
        trained = checkpoint["epoch"]
        for epoch in checkpoint["history"][request.known :]:
            report(Epoch(**epoch))
    if trained < request.until:
        ProxyTrainer(request, checkpoint, slot, report, stop).train()


def scan(dataset: Dataset, imgsz: int, scratch: Path) -> None:
    """Have Ultralytics read all labels, which writes its cache where the folder can be written."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_yolo_dataset

    LOGGER.setLevel("ERROR")
    arguments = get_cfg(overrides=base_arguments(imgsz, scratch))
    data = data_document(dataset)
    for mode in ("train", "val"):
        build_yolo_dataset(arguments, data[mode], 1, data, mode=mode)


def base_arguments(imgsz: int, scratch: Path) -> dict[str, Any]:
    """Ultralytics arguments of every training and validation."""
    return {
        "task": "detect",
        "mode": "train",
        "model": "nas-yolo.yaml",  # a name for messages; the network is built from the architecture
        "imgsz": imgsz,
        "save_dir": str(scratch),
        "exist_ok": True,
        "plots": False,
        "verbose": False,
        "patience": 0,
    }


def data_document(dataset: Dataset) -> dict[str, Any]:
    """What Ultralytics' own check of the data file would return."""
    return {
        "train": list(dataset.train),
        "val": list(dataset.val),
        "nc": len(dataset.names),
        "names": dict(enumerate(dataset.names)),
        "channels": 3,
        "yaml_file": dataset.file,
    }


def _load_checkpoint(request: TrainingRequest) -> dict[str, Any] | None:
    if not request.checkpoint.exists():
        if request.known:
            raise FileNotFoundError(f"{request.checkpoint} is gone, with {request.known} epochs of training")
        return None
    saved: dict[str, Any] = torch.load(request.checkpoint, map_location="cpu", weights_only=True)
    if saved.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{request.checkpoint} was written by another version of nas-yolo")
    if saved["architecture"] != request.architecture.document:
        raise ValueError(f"{request.checkpoint} belongs to another architecture")
    return saved

"""Ultralytics' trainer, reduced to what a search needs: pause, continue, report; no plots, no final evaluation.

The order of an epoch's images, how they are augmented, and the learning rate of each batch are functions of the request
and the epoch, so a training that was paused and continued elsewhere takes the same steps as one that was not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER, SETTINGS
from ultralytics.utils.torch_utils import autocast, unwrap_model

from evaluators.accuracy.batch_statistics import measure_statistics
from evaluators.accuracy.checkpoints import load_checkpoint, save_checkpoint
from evaluators.accuracy.cpu_convolutions import prepare_for_cpu
from evaluators.accuracy.decoded import Decoded, decode, open_decoded
from evaluators.accuracy.images import DecodedImages, EpochBatches, TrainingImages, mix, seed_augmentation
from evaluators.accuracy.pace import PaceMeter
from evaluators.accuracy.read_images import data_document
from evaluators.accuracy.request import TrainingRequest
from evaluators.dataset import Dataset
from evaluators.errors import TrainingError
from evaluators.evaluation import Epoch, FirstWeights, Pace
from evaluators.host_lock import TrainingSlot
from search_spaces import hook
from search_spaces.image_size import ImageSize

hook.install()

# Ultralytics reports to whichever of these services it finds, Ray Tune by default. Only this process is concerned.
dict.update(SETTINGS, dict.fromkeys(("sync", "clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune"), False))
dict.update(SETTINGS, dict.fromkeys(("tensorboard", "wandb"), False))

CHECKPOINT_FORMAT = 1
STATISTICS_IMAGES = 32  # more of them changed accuracies by no more than noise, by measurement
SAVE_EVERY_S = 30.0  # of training, at the end of an epoch: what a crash costs at most, or an epoch that is longer
FirstWeightsOf = Callable[[DetectionModel], FirstWeights]
"""Gives a network that was just built its first weights; random ones if there is none."""

DIVERGED = 10.0  # times the lowest mean loss of an epoch so far
SMALL_LOSS = 5.0  # lower ones count as this: where hardly a box is assigned yet, there is hardly a loss
ABSURD_LOSS = 1e6  # hundreds are usual in a first epoch


class ProxyTrainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
    """Trains one architecture from its checkpoint, if there is one, to the end of a rung."""

    accumulate: int
    amp: bool

    def __init__(
        self,
        request: TrainingRequest,
        decoded: Decoded,
        checkpoint: dict[str, Any] | None,
        slot: TrainingSlot,
        report: Callable[[FirstWeights | Pace | Epoch], None],
        stop: threading.Event,
        first_weights: FirstWeightsOf | None,
    ):
        self._first_weights = first_weights
        self.request, self.slot, self.report, self.stop_request = request, slot, report, stop
        self._decoded, self._checkpoint = decoded, checkpoint
        self._history: list[Epoch] = [Epoch(**epoch) for epoch in checkpoint["history"]] if checkpoint else []
        self._began_at, self._waited_before = time.monotonic(), slot.waited_s
        self._saved_at = self._began_at
        overrides = {
            **base_arguments(request.imgsz, request.scratch),
            # One drives the GPU, the others make its batches.
            "workers": min(max(request.threads - 1, 1), 8) if request.gpu else 0,
            # Decided here: what Ultralytics would decide by a test, it tests on a network that it downloads. bf16 has
            # the range of fp32, and needs no scaler.
            "amp": precision(request.gpu),
            **request.arguments,
        }
        overrides |= {
            "epochs": request.epochs,
            "seed": request.seed,
            "device": "0" if request.gpu else "cpu",
            # A CPU gives the same result without being asked; asking costs 2 s of imports in every process.
            "deterministic": request.gpu,
            # A tenth of the schedule at most, so that short ones are not all warm-up; Ultralytics' 3 from 30 epochs.
            "warmup_epochs": request.arguments.get("warmup_epochs", min(3.0, request.epochs / 10)),
        }
        if first_weights:
            # Ultralytics begins with 0.1, at which AdamW wrecks biases that mean something already.
            overrides["warmup_bias_lr"] = request.arguments.get("warmup_bias_lr", 0.0)
        self._file = hook.model_file(request.architecture, len(request.dataset.names))
        if self._file.get("end2end"):
            overrides["nms"] = False  # else the half of the head that needs NMS is validated, which is not deployed
        super().__init__(overrides=overrides, _callbacks={})
        self.callbacks.setdefault("on_val_batch_start", []).append(lambda _: self._give_way())

    def get_dataset(self) -> dict[str, Any]:
        """The checked data set; Ultralytics' own check could download one."""
        return data_document(self.request.dataset)

    def setup_model(self) -> None:
        """Build the architecture; weights are random, or come with the checkpoint."""
        model = hook.build(self._file)
        if self._checkpoint is None and self._first_weights:
            self.report(self._first_weights(model))
        if not self.request.gpu:
            prepare_for_cpu(model)  # on a GPU, Ultralytics chooses the layout
        self.model = self.set_model_names_for_load(model)

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> DecodedImages:
        """Ultralytics' data set, decoded before."""
        arguments = {
            "img_path": img_path,
            "imgsz": self.request.imgsz,
            "batch_size": batch,
            "hyp": self.args,
            "data": self.data,
            "stride": max(int(unwrap_model(self.model).stride.max()), 32),
        }
        if mode == "val":
            square = self.request.imgsz.is_square  # then as Ultralytics: each batch has the shape of its images
            return DecodedImages(self._decoded, "val", augment=False, rect=square, pad=0.5, **arguments)
        last = self.epochs - self.args.close_mosaic if self.args.close_mosaic else None
        arguments |= {"decoded": self._decoded, "split": "train", "augment": True, "rect": False, "pad": 0.0}
        return TrainingImages(self.request.seed, last, **arguments)

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Ultralytics' loader; the training images come in the epoch's order."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "train":
            start = self._checkpoint["epoch"] if self._checkpoint else 0
            images = len(self._decoded.splits["train"].labels)
            self._batches = EpochBatches(self.request.seed, images, loader.batch_size, start)
            loader.batch_sampler.sampler = self._batches
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
        model = unwrap_model(self.model)
        if saved is None:
            return
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

    def validate(self) -> tuple[dict[str, float], float]:
        """As Ultralytics, of the moving average; its batch statistics are measured first."""
        measure_statistics(self.ema.ema, self._images_for_statistics())
        validated: tuple[dict[str, float], float] = super().validate()
        return validated

    def _images_for_statistics(self) -> Iterator[torch.Tensor]:
        """Batches of the images that the epoch began with."""
        dataset, size = self.train_loader.dataset, self.batch_size
        order = self._batches.order(self.epoch)[: max(STATISTICS_IMAGES, size)]
        order = order[: max(len(order) // size, 1) * size]  # a batch counts as much as another, so all are as large
        for first in range(0, len(order), size):
            self._give_way()
            batch = dataset.collate_fn([dataset[self.epoch, image] for image in order[first : first + size]])
            yield batch["img"].to(self.device).float() / 255

    def _do_train(self) -> None:
        """Train to the end of the request, epoch by epoch.

        In the place of Ultralytics' loop, which keeps in local variables what a pause would lose. An epoch ends with an
        optimizer step, so that no gradients wait for the next.

        Raises:
            TrainingError: `nan` or `diverged`.
            InterruptedError: If the search stopped it.
        """
        try:
            self._setup_train()
            self._nominal_accumulate = self.accumulate
            for epoch in range(self.start_epoch, self.request.until):
                self.epoch = epoch
                loss = self.train_epoch()
                self._check_loss(loss)
                self._end_epoch(loss)
        finally:
            for loader in (getattr(self, "train_loader", None), getattr(self, "test_loader", None)):
                if loader is not None:
                    loader.close()  # its worker processes

    def train_epoch(self) -> float:
        """Train for one epoch; its mean loss, the sum of the parts.

        Raises:
            InterruptedError: If the search stopped it.
        """
        seed_augmentation(self.request.seed, self.epoch)
        torch.manual_seed(mix(self.request.seed, self.epoch))
        self._model_train()
        self.optimizer.zero_grad()
        count, pending = len(self._batches), 0
        meter = PaceMeter(count) if self.epoch == self.request.known == 0 else None
        total = torch.zeros((), device=self.device)
        for number, batch in zip(range(count), self.train_loader, strict=False):
            self._give_way()
            if meter and (pace := meter.begin_step(number, time.monotonic() - self.slot.waited_s)):
                self.report(pace)
            self._set_rates(self.epoch * count + number)
            with autocast(torch.bfloat16 if self.args.amp == "bf16" else self.amp, device=self.device.type):
                loss, self.loss_items = self.model(self.preprocess_batch(batch))
                self.loss = loss.sum()
            self.scaler.scale(self.loss).backward()
            total += sum(self.loss_items.values()).detach()
            pending += 1
            if pending >= self.accumulate or number + 1 == count:
                self.optimizer_step()
                pending = 0
        criterion = unwrap_model(self.model).criterion
        if hasattr(criterion, "update"):
            criterion.update()
        return float(total) / count

    def _give_way(self) -> None:
        """Between two batches: wait while somebody measures, end if the search says so."""
        self.slot.give_way()
        if self.stop_request.is_set():
            raise InterruptedError("the search stopped this training")

    def _set_rates(self, batches: int) -> None:
        """Ultralytics' learning rates, momentum and accumulation after so many batches."""
        warm = self._get_warmup_iterations(len(self._batches))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.lf(self.epoch)
            if warm:
                start = self.args.warmup_bias_lr if group.get("param_group") == "bias" else 0.0
                group["lr"] = float(np.interp(batches, [0, warm], [start, group["lr"]]))
                if "momentum" in group:
                    momenta = [self.args.warmup_momentum, self.args.momentum]
                    group["momentum"] = float(np.interp(batches, [0, warm], momenta))
        if warm:
            self.accumulate = max(round(np.interp(batches, [0, warm], [1, self._nominal_accumulate])), 1)

    def _check_loss(self, loss: float) -> None:
        network = unwrap_model(self.model)
        largest = nn.utils.get_total_norm(network.parameters(), norm_type=torch.inf)
        if not np.isfinite(loss) or not largest.isfinite():
            raise TrainingError("nan", f"the loss was not finite in epoch {self.epoch + 1}")
        lowest = min((past.loss for past in self._history), default=None)
        limit = ABSURD_LOSS if lowest is None else DIVERGED * max(lowest, SMALL_LOSS)
        if loss > limit:
            raise TrainingError("diverged", f"the loss rose to {loss:.3g} in epoch {self.epoch + 1}, over {limit:.3g}")

    def _end_epoch(self, loss: float) -> None:
        """Validate, write the checkpoint, and report; each where it is due."""
        number = self.epoch + 1
        decides = number == self.request.until or number in self.request.rungs
        if decides:
            amp, self.amp = self.amp, False  # Ultralytics would validate in fp16, in which more overflows than in bf16
            self.metrics, self.fitness = self.validate()
            self.amp = amp
        now, waited = time.monotonic(), self.slot.waited_s
        epoch = Epoch(
            epoch=number,
            map50_95=float(self.metrics["metrics/mAP50-95(B)"]) if decides else None,
            map50=float(self.metrics["metrics/mAP50(B)"]) if decides else None,
            loss=loss,
            seconds=(now - self._began_at) - (waited - self._waited_before),
        )
        self._began_at, self._waited_before = now, waited
        self._history.append(epoch)
        if decides or now - self._saved_at >= SAVE_EVERY_S:
            self.save_model()
            self._saved_at = now
        if number > self.request.known:
            self.report(epoch)

    def save_model(self) -> None:
        """Write the checkpoint, of which this is the whole content."""
        document = {
            "format": CHECKPOINT_FORMAT,
            "architecture": self.request.architecture.document,
            "epoch": self.epoch + 1,
            "history": [asdict(past) for past in self._history],
            "model": unwrap_model(self.model).state_dict(),
            "ema": self.ema.ema.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_fitness": None if self.best_fitness is None else float(self.best_fitness),
        }
        save_checkpoint(document, self.request.checkpoint)


def precision(on_gpu: bool) -> str | bool:
    """In which a training multiplies, as Ultralytics' argument `amp`: bf16 where a GPU has it, else fp32."""
    return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else False


def train_rung(
    request: TrainingRequest,
    slot: TrainingSlot,
    report: Callable[[FirstWeights | Pace | Epoch], None],
    stop: threading.Event,
    first_weights: FirstWeightsOf | None = None,
) -> None:
    """Train `request` in this thread.

    Args:
        request: What to train.
        slot: To compute while nobody measures.
        report: Takes results.
        stop: Ends the training after the current batch.
        first_weights: What it begins with; None: random weights.

    Raises:
        TrainingError: `nan`, `diverged` or `data_changed`.
        StoreError: If the checkpoint cannot be read or written.
        InterruptedError: If `stop` was set.
        FileNotFoundError: If the end of a rung is on record but its checkpoint is gone.
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
        decoded = decode_images(request.dataset, request.imgsz, request.images or request.scratch / "images")
        ProxyTrainer(request, decoded, checkpoint, slot, report, stop, first_weights).train()


def decode_images(dataset: Dataset, imgsz: ImageSize, folder: Path) -> Decoded:
    """The decoded images, made if they are not there.

    Raises:
        TrainingError: `data_changed`.
    """
    LOGGER.setLevel("ERROR")
    decoded = open_decoded(decode(dataset, imgsz, folder))
    decoded.check(dataset)
    return decoded


def base_arguments(imgsz: ImageSize, scratch: Path) -> dict[str, Any]:
    """Ultralytics arguments of every training and validation."""
    return {
        "task": "detect",
        "mode": "train",
        "model": "nas-yolo.yaml",  # a name for messages; the network is built from the architecture
        "imgsz": imgsz.longer,  # it knows squares only; images are cut to the size as they are loaded
        "save_dir": str(scratch),
        "exist_ok": True,
        "plots": False,
        "verbose": False,
        "patience": 0,
    }


def _load_checkpoint(request: TrainingRequest) -> dict[str, Any] | None:
    try:
        saved = load_checkpoint(request.checkpoint)
    except FileNotFoundError:
        if any(rung <= request.known for rung in request.rungs):
            raise FileNotFoundError(f"{request.checkpoint} is gone, with {request.known} epochs of training") from None
        return None
    if saved.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{request.checkpoint} was written by another version of nas-yolo")
    if saved["architecture"] != request.architecture.document:
        raise ValueError(f"{request.checkpoint} belongs to another architecture")
    return saved

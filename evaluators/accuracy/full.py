"""Ultralytics' own full training, begun with the network and the weights of a trial.

For a training on several GPUs, Ultralytics starts processes that are given the trainer's class by its module's name,
and its arguments. So all that they need follows from importing this module and from files that the arguments name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultralytics.cfg import get_cfg, get_save_dir
from ultralytics.data.utils import get_split_fraction
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import RANK, SETTINGS, colorstr
from ultralytics.utils.torch_utils import unwrap_model

from evaluators import user_files
from evaluators.accuracy import checkpoints
from evaluators.accuracy.checkpoints import trained_weights
from evaluators.accuracy.fitted import FittedImages
from evaluators.host_lock import training as training_slot
from evaluators.location import locate
from search_spaces import hook
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize
from search_spaces.pt_file import network_of, plain, read_checkpoint
from search_spaces.stock import stock_file, stock_network

if TYPE_CHECKING:
    from evaluators.location import Location

hook.install()
user_files.install()

# Services that Ultralytics reports to unless it is told not to. Those that it leaves off are as their user set them.
dict.update(SETTINGS, dict.fromkeys(("sync", "clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune"), False))


class FinalTrainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
    """Trains the network of a trial on, from its weights; `model` is the trial's checkpoint.

    Resumed, it goes on from the run's own `last.pt`, as Ultralytics does. The argument `imgsz` may be a list, height
    and width, as Ultralytics has it for exports and predictions only.
    """

    rectangle: ImageSize | None

    def setup_model(self) -> Any:
        """The trial's network with its weights; Ultralytics would build one from a model file."""
        if self.resume:
            return super().setup_model()
        checkpoint = locate(self.args.model)
        saved = checkpoints.load_checkpoint(checkpoint)
        network = first_network(Architecture.from_document(saved["architecture"]), self.data["nc"], checkpoint)
        self.model = self.set_model_names_for_load(network)
        return None

    def _setup_train(self) -> None:
        given = self.args.imgsz
        self.rectangle = None if isinstance(given, int) else ImageSize.from_argument(given)
        if self.rectangle:
            self.args.imgsz = self.rectangle.longer  # images are cut to the size as they are loaded
        super()._setup_train()

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """As Ultralytics; every image has the size, where that is not square."""
        if self.rectangle is None:
            return super().build_dataset(img_path, mode, batch)
        return FittedImages(
            self.rectangle,
            img_path=img_path,
            batch_size=batch,
            augment=mode == "train",
            hyp=self.args,
            rect=False,
            cache=self.args.cache or None,
            single_cls=self.args.single_cls or False,
            stride=max(int(unwrap_model(self.model).stride.max()), 32),
            prefix=colorstr(f"{mode}: "),
            classes=self.args.classes,
            data=self.data,
            fraction=get_split_fraction(self.args.fraction, "train" if mode == "train" else self.args.split),
        )

    def save_model(self) -> Any:
        """As Ultralytics; the file says which size it was trained at, for predictions, exports and to go on."""
        trained_at = self.args.imgsz
        if self.rectangle:
            self.args.imgsz = self.rectangle.argument
        saved = super().save_model()
        self.args.imgsz = trained_at
        return saved

    def _do_train(self, *arguments: Any) -> None:
        if RANK not in (-1, 0):  # with several GPUs one process waits for measurements, and the others for it
            super()._do_train(*arguments)
            return
        with training_slot() as self.slot:
            super()._do_train(*arguments)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Wait while a search measures on this machine."""
        if RANK in (-1, 0):
            self.slot.give_way()
        prepared: dict[str, Any] = super().preprocess_batch(batch)
        return prepared


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights in the folder of an Ultralytics training.

    Attributes:
        layers: The network, as the file has it; see `layers_of`.
        names: Its classes.
        arguments: Of its training.
        epochs: Trained when it was written; when the training ended, of the whole.
        map50_95: In the epoch that its weights are from, in [0, 1].
        resumable: Whether the training has not ended.
    """

    layers: list[Any]
    names: tuple[str, ...]
    arguments: dict[str, Any]
    epochs: int
    map50_95: float
    resumable: bool


def first_network(architecture: Architecture, nc: int, checkpoint: Location | None = None) -> DetectionModel:
    """A trial's network, in Ultralytics' own rows if these can express it.

    Args:
        architecture: The trial's.
        nc: Number of classes.
        checkpoint: Of its training, for the weights; None: random ones.
    """
    file = hook.model_file(architecture, nc)
    network = hook.build(file)
    if checkpoint and (weights := trained_weights(checkpoint)):
        network.load_state_dict(weights)
    return stock_network(network, file) if stock_file(file) else network


def layers_of(file: Mapping[str, Any]) -> list[Any]:
    """What decides a network's layers in the model file that it was built from: its activation and its rows."""
    return [file.get("activation"), *file["backbone"], *file["head"]]


def run_folder(arguments: dict[str, Any]) -> Path:
    """Where a first training with these Ultralytics arguments writes; later ones append a number."""
    return Path(get_save_dir(get_cfg(overrides={**arguments, "exist_ok": True})))


def read_weights(path: Path) -> WeightsFile:
    """What a weights file says of itself.

    Raises:
        ValueError: If it is not the file of an Ultralytics detection training.
    """
    try:
        saved = read_checkpoint(path)
        network = network_of(saved, path)
        return WeightsFile(
            layers=layers_of(network.rows),
            names=network.names,
            arguments=saved["train_args"],
            epochs=int(max(saved["train_results"]["epoch"])),
            map50_95=float(plain(saved["train_metrics"]["metrics/mAP50-95(B)"])),
            resumable=saved["optimizer"] is not None,
        )
    except Exception as error:  # whatever a foreign file comes to
        raise ValueError(f"{path} is not the file of an Ultralytics training") from error

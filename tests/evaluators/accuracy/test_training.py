from __future__ import annotations

import multiprocessing
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch

from evaluators.accuracy.checkpoints import load_checkpoint, trained_epochs
from evaluators.accuracy.request import OWN_ARGUMENTS, TrainingRequest
from evaluators.accuracy.training import train
from evaluators.dataset import load_dataset
from evaluators.evaluation import Epoch, Failure, Pace
from evaluators.location import locate
from search_spaces import Architecture, Level, Neck, Stage, Stem
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from evaluators.location import Location

SMALL = Architecture(
    "yolov8",
    Stem("Conv", 8),
    (
        Stage("Conv", "C2f", 16, 1),
        Stage("GhostConv", "ShuffleV2", 16, 1),
        Stage("Conv", "ConvNeXt", 32, 1),
        Stage("Conv", "GhostV2", 32, 1),
    ),
    Neck("Conv", (Level("C2f", 16, 1), Level("C2f", 32, 1), Level("C2f", 32, 1))),
)
# A head that needs no NMS: it is trained twice over, and the weights of the two losses change with the epoch.
NMS_FREE = Architecture(
    "yolo26",
    Stem("Conv", 8),
    (
        Stage("Conv", "C3k2", 16, 1),
        Stage("Conv", "C3k2", 16, 1),
        Stage("Conv", "C3k2", 32, 1),
        Stage("Conv", "C3k2-C3k", 64, 1),
    ),
    Neck("Conv", (Level("C3k2", 16, 1), Level("C3k2", 32, 1), Level("C3k2-PSA", 64, 1))),
    attention="C2PSA",
)
# One optimizer step per batch, so that no gradient is carried over an epoch's end.
TRAINING = {"batch": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.003}


def base_request(few_digits: Path, folder: Path) -> TrainingRequest:
    return TrainingRequest(
        architecture=SMALL,
        dataset=load_dataset(few_digits),
        imgsz=ImageSize(64, 64),
        epochs=4,
        until=4,
        seed=3,
        checkpoint=folder / "checkpoint.pt",
        scratch=folder / "scratch",
        arguments=TRAINING,
    )


@pytest.fixture
def request_for(few_digits: Path, tmp_path: Path) -> Callable[..., TrainingRequest]:
    base = base_request(few_digits, tmp_path)

    def make(**changes: Any) -> TrainingRequest:
        return replace(base, **changes)

    return make


def epochs(request: TrainingRequest) -> list[Epoch]:
    reports = list(train(request))
    assert all(isinstance(report, Epoch) for report in reports), reports
    return [report for report in reports if isinstance(report, Epoch)]


def weights(path: Location) -> dict[str, torch.Tensor]:
    saved = load_checkpoint(path)
    return {**saved["model"], **{f"ema {name}": value for name, value in saved["ema"].items()}}


NETS = {
    "yolov8": SMALL,
    "yolo26": NMS_FREE,
    "yolo26 without attention": replace(
        NMS_FREE,
        attention="none",
        neck=replace(NMS_FREE.neck, levels=(*NMS_FREE.neck.levels[:2], Level("C3k2", 64, 1))),
    ),
}


class Weighed(NamedTuple):
    """The weights of the one-to-many and the one-to-one loss, and how often they were changed before."""

    epoch: int
    updates: int
    one_to_many: float
    one_to_one: float


@dataclass(frozen=True)
class Trained:
    """A training's epochs, by piece, its last weights, and what the loss of each batch was weighed with."""

    pieces: list[list[Epoch]]
    weights: dict[str, torch.Tensor]
    weighed: list[Weighed]


@pytest.fixture(scope="module")
def training_of(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    """Trains one of `NETS` in pieces that end with these epochs; once, for all tests."""
    from evaluators.accuracy.trainer import ProxyTrainer

    step = ProxyTrainer.optimizer_step

    @cache
    def train_in(name: str, *ends: int) -> Trained:
        weighed: list[Weighed] = []

        def note(self: ProxyTrainer) -> None:
            criterion = self.model.criterion
            if hasattr(criterion, "o2m"):
                weighed.append(Weighed(self.epoch, criterion.updates, criterion.o2m, criterion.o2o))
            step(self)

        base = replace(base_request(few_digits, tmp_path_factory.mktemp("training")), architecture=NETS[name])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ProxyTrainer, "optimizer_step", note)
            pieces = [epochs(replace(base, known=known, until=until)) for known, until in pairwise((0, *ends))]
        return Trained(pieces, weights(base.checkpoint), weighed)

    return train_in


@pytest.mark.parametrize("name", NETS)
def test_paused_and_continued_equals_uninterrupted_to_the_bit(name: str, training_of: Callable[..., Trained]) -> None:
    straight, paused = training_of(name, 4), training_of(name, 1, 2, 3, 4)
    (uninterrupted,) = straight.pieces
    assert [len(piece) for piece in paused.pieces] == [1, 1, 1, 1]
    assert len({e.loss for e in uninterrupted}) == 4
    measured = [(e.epoch, e.loss) for e in uninterrupted]
    assert [(e.epoch, e.loss) for piece in paused.pieces for e in piece] == measured
    assert replace(uninterrupted[-1], seconds=0) == replace(paused.pieces[-1][0], seconds=0)
    one, other = straight.weights, paused.weights
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


AUGMENTED: dict[str, Any] = {
    "rungs": (1, 2, 4),
    # Five batches for a step: whatever is left at the end of an epoch must not be lost by a pause.
    "arguments": {"batch": 6, "nbs": 30, "optimizer": "SGD", "mosaic": 0.7, "mixup": 0.5, "close_mosaic": 1},
}


def _train_here(request: TrainingRequest) -> list[Epoch | Failure]:
    return list(train(request))


@pytest.fixture(scope="module")
def augmented(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Epoch], Path, TrainingRequest]:
    """A training with mosaics and mixes: its epochs and its checkpoint."""
    request = replace(base_request(few_digits, tmp_path_factory.mktemp("augmented")), **AUGMENTED)
    return epochs(request), request.checkpoint, request


def test_a_training_that_pauses_in_a_store_at_a_url_is_the_same_to_the_bit(
    training_of: Callable[..., Trained], request_for: Callable[..., TrainingRequest], tmp_path: Path
) -> None:
    store = locate("memory://bucket/trial/checkpoint.pt")
    for known, until in pairwise((0, 1, 4)):
        machine = tmp_path / f"machine-{known}"
        request = request_for(checkpoint=store, scratch=machine, images=None, known=known, until=until)
        assert len(epochs(request)) == until - known
        assert trained_epochs(store) == until
        assert not list(machine.rglob("*.pt"))
    found, expected = weights(store), training_of("yolov8", 4).weights
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_augmentation_does_not_depend_on_pauses_or_processes(
    augmented: tuple[list[Epoch], Path, TrainingRequest], tmp_path: Path
) -> None:
    straight, checkpoint, base = augmented
    request = replace(base, checkpoint=tmp_path / "checkpoint.pt", scratch=tmp_path / "scratch")
    found = []
    for until in (1, 2, 3):
        found += epochs(replace(request, until=until, known=until - 1))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found += pool.submit(_train_here, replace(request, known=3)).result()
    assert [(e.epoch, e.loss) for e in found if isinstance(e, Epoch)] == [(e.epoch, e.loss) for e in straight]
    one, other = (torch.load(path, weights_only=True) for path in (checkpoint, request.checkpoint))
    assert one["ema_updates"] == other["ema_updates"] == 4 * 2  # for 6 batches each
    assert repr(one["optimizer"]) == repr(other["optimizer"])
    first, second = weights(checkpoint), weights(request.checkpoint)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_accuracy_is_measured_with_the_statistics_of_the_weights_that_it_is_of(
    request_for: Callable[..., TrainingRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators.accuracy import trainer
    from evaluators.accuracy.batch_statistics import measure_statistics

    shown: list[torch.Tensor] = []

    def note(network: torch.nn.Module, batches: Iterable[torch.Tensor]) -> None:
        shown.extend(batches)
        measure_statistics(network, shown)

    monkeypatch.setattr(trainer, "measure_statistics", note)
    request = request_for(rungs=(2, 4), until=2)
    assert [e.map50_95 is None for e in epochs(request)] == [True, False]
    assert {tuple(images.shape) for images in shown} == {(8, 3, 64, 64)}
    saved = load_checkpoint(request.checkpoint)["ema"]
    found = torch.nn.functional.conv2d(torch.cat(shown), saved["model.0.conv.weight"], stride=2, padding=1)
    torch.testing.assert_close(saved["model.0.bn.running_mean"], found.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)


def test_the_first_batches_tell_what_an_epoch_takes_and_change_nothing(
    request_for: Callable[..., TrainingRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = request_for(until=2, arguments=TRAINING | {"batch": 2, "nbs": 2})
    without = epochs(request)  # which takes too few seconds
    monkeypatch.setattr("evaluators.accuracy.pace.MIN_S", 0.0)
    timed = replace(request, checkpoint=tmp_path / "timed.pt")
    pace, first, second = train(timed)
    assert isinstance(pace, Pace)
    assert isinstance(first, Epoch)
    assert isinstance(second, Epoch)
    assert (pace.steps, pace.epoch_steps) == (3, 16)
    assert pace.epoch_s < first.seconds  # which includes set-up
    assert 1 / 3 < pace.epoch_s / second.seconds < 3
    assert [(e.loss, e.map50_95) for e in (first, second)] == [(e.loss, e.map50_95) for e in without]
    ours, others = weights(timed.checkpoint), weights(request.checkpoint)
    assert all(torch.equal(ours[name], others[name]) for name in others)
    assert len(epochs(replace(timed, known=2, until=3))) == 1  # which is known to take as long as those before
    timed.checkpoint.unlink()
    assert len(epochs(replace(timed, known=1, until=2))) == 1  # though the first is trained again


def test_only_the_ends_of_rungs_are_validated(augmented: tuple[list[Epoch], Path, TrainingRequest]) -> None:
    assert [e.epoch for e in augmented[0] if e.map50_95 is not None and e.map50 is not None] == [1, 2, 4]


def test_epochs_after_the_last_checkpoint_come_out_the_same_and_are_not_reported_twice(
    augmented: tuple[list[Epoch], Path, TrainingRequest], tmp_path: Path
) -> None:
    straight, checkpoint, base = augmented
    request = replace(base, checkpoint=tmp_path / "checkpoint.pt", scratch=tmp_path / "scratch")
    reports = train(request)
    assert [next(reports), next(reports)]
    third = next(reports)
    reports.close()  # type: ignore[attr-defined]  # while the fourth is trained, which is lost, as the third is
    assert isinstance(third, Epoch)
    assert torch.load(request.checkpoint, weights_only=True)["epoch"] == 2
    (fourth,) = epochs(replace(request, known=3))
    assert (fourth.epoch, fourth.loss, fourth.map50_95) == (4, straight[3].loss, straight[3].map50_95)
    first, second = weights(checkpoint), weights(request.checkpoint)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_checkpoint_is_written_between_rungs_where_much_would_be_lost(
    request_for: Callable[..., TrainingRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.accuracy.trainer.SAVE_EVERY_S", 0.0)
    request = request_for(epochs=50, until=50)
    reports = train(request)
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    assert request.checkpoint.exists()


def test_the_steps_are_those_of_ultralytics_own_loop(
    request_for: Callable[..., TrainingRequest],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from ultralytics.engine.trainer import BaseTrainer

    from evaluators.accuracy.trainer import ProxyTrainer

    rates: list[tuple[int, list[tuple[float, float]]]] = []
    step = ProxyTrainer.optimizer_step

    def note(self: ProxyTrainer) -> None:
        rates.append((self.accumulate, [(group["lr"], group["momentum"]) for group in self.optimizer.param_groups]))
        step(self)

    monkeypatch.setattr(ProxyTrainer, "optimizer_step", note)
    arguments = {"batch": 8, "nbs": 16, "optimizer": "SGD", "warmup_epochs": 2.0, "mosaic": 0.0}
    request = request_for(epochs=3, until=3, arguments=arguments)
    epochs(request)
    ours, network = list(rates), weights(request.checkpoint)
    rates.clear()

    def stock(self: ProxyTrainer) -> None:
        self.args.val = False
        self.callbacks["on_train_epoch_start"] = [lambda trainer: torch.manual_seed(0)]
        BaseTrainer._do_train(self)

    monkeypatch.setattr(ProxyTrainer, "_do_train", stock)
    for name in ("final_eval", "save_metrics"):
        monkeypatch.setattr(BaseTrainer, name, lambda *_, **__: None)
    assert list(train(replace(request, checkpoint=tmp_path / "stock.pt"))) == []  # its loop reports nothing
    assert rates == ours
    theirs = weights(tmp_path / "stock.pt")
    assert all(torch.equal(network[name], theirs[name]) for name in network)


def test_a_data_set_that_changes_between_two_rungs_is_refused_and_the_checkpoint_stays(
    few_digits: Path, request_for: Callable[..., TrainingRequest], tmp_path: Path
) -> None:
    shutil.copytree(few_digits.parent, tmp_path / "data")
    request = request_for(dataset=load_dataset(tmp_path / "data/data.yaml"), until=1)
    epochs(request)
    written = request.checkpoint.read_bytes()
    next((tmp_path / "data/images/train").iterdir()).unlink()
    (failure,) = list(train(replace(request, known=1, until=2)))
    assert isinstance(failure, Failure)
    assert failure.cause == "data_changed"
    assert request.checkpoint.read_bytes() == written


def test_a_continued_nms_free_training_weighs_its_losses_as_an_uninterrupted_one(
    training_of: Callable[..., Trained],
) -> None:
    straight = training_of("yolo26", 4).weighed
    assert [one.updates for one in straight] == [one.epoch for one in straight]
    assert [one.one_to_many for one in straight[::4]] == pytest.approx([0.8, 0.8 - 0.7 / 3, 0.8 - 1.4 / 3, 0.1])
    assert all(one.one_to_many + one.one_to_one == pytest.approx(1) for one in straight)
    assert training_of("yolo26", 1, 2, 3, 4).weighed == straight


@pytest.mark.parametrize(("architecture", "nms_free"), [(SMALL, False), (NMS_FREE, True)], ids=["yolov8", "yolo26"])
def test_the_half_of_the_head_that_is_deployed_is_validated(
    architecture: Architecture,
    nms_free: bool,
    request_for: Callable[..., TrainingRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ultralytics.models.yolo.detect import DetectionValidator

    heads, outputs = [], []
    init_metrics, postprocess = DetectionValidator.init_metrics, DetectionValidator.postprocess

    def note_head(self: DetectionValidator, model: Any) -> None:
        heads.append(bool(model.model[-1].end2end))
        init_metrics(self, model)

    def note_output(self: DetectionValidator, preds: Any) -> Any:
        rows, columns = preds[0].shape[1:]
        outputs.append((self.end2end, columns if nms_free else rows))
        return postprocess(self, preds)

    monkeypatch.setattr(DetectionValidator, "init_metrics", note_head)
    monkeypatch.setattr(DetectionValidator, "postprocess", note_output)
    epochs(request_for(architecture=architecture, epochs=3, until=1))
    epochs(request_for(architecture=architecture, epochs=3, until=3, known=1))
    assert heads == [nms_free] * 2
    # A row of corners, score and class for each box; or a column of box and scores for each anchor.
    assert set(outputs) == {(nms_free, 6 if nms_free else 4 + len(request_for().dataset.names))}


def test_the_search_itself_decides_whether_nms_is_needed() -> None:
    assert "nms" in OWN_ARGUMENTS


def test_another_seed_is_another_training(request_for: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    one = epochs(request_for(until=1))
    other = epochs(request_for(until=1, seed=4, checkpoint=tmp_path / "other.pt"))
    assert one[0].loss != other[0].loss


def test_epochs_that_were_not_recorded_are_reported_from_the_checkpoint_and_not_trained_again(
    request_for: Callable[..., TrainingRequest],
) -> None:
    request = request_for(until=2)
    trained = epochs(request)
    written = request.checkpoint.read_bytes()

    assert epochs(replace(request, known=1)) == trained[1:]
    assert epochs(replace(request, known=0)) == trained
    assert epochs(replace(request, known=2)) == []
    assert request.checkpoint.read_bytes() == written


def test_a_lost_checkpoint_is_a_failure_not_a_second_training(request_for: Callable[..., TrainingRequest]) -> None:
    (failure,) = list(train(request_for(until=2, known=1, rungs=(1, 2))))
    assert isinstance(failure, Failure)
    assert "is gone" in failure.message


def test_another_architectures_checkpoint_is_refused(request_for: Callable[..., TrainingRequest]) -> None:
    request = request_for(until=1)
    epochs(request)
    other = replace(SMALL, stem=Stem("GhostConv", 8))
    (failure,) = list(train(replace(request, architecture=other, until=2)))
    assert isinstance(failure, Failure)
    assert "another architecture" in failure.message


def test_a_checkpoint_holds_no_pickled_classes(request_for: Callable[..., TrainingRequest]) -> None:
    request = request_for(until=1)
    epochs(request)
    assert b"search_spaces" not in request.checkpoint.read_bytes()
    assert b"ultralytics" not in request.checkpoint.read_bytes()


def test_a_loss_that_is_not_finite_is_a_failure_with_that_cause(request_for: Callable[..., TrainingRequest]) -> None:
    reports = list(train(request_for(arguments={**TRAINING, "box": 1e38})))
    assert isinstance(reports[-1], Failure)
    assert reports[-1].cause == "nan"
    assert "not finite in epoch 1" in reports[-1].message


@pytest.mark.parametrize(("box", "factor", "said"), [(1e8, 10.0, "over 1e+06"), (7.5, 0.01, "in epoch 2")])
def test_a_loss_that_rises_or_is_absurd_is_a_failure_with_that_cause(
    box: float, factor: float, said: str, request_for: Callable[..., TrainingRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.accuracy.trainer.DIVERGED", factor)
    reports = list(train(request_for(until=2, arguments={**TRAINING, "box": box})))
    assert isinstance(reports[-1], Failure)
    assert reports[-1].cause == "diverged"
    assert said in reports[-1].message


def test_memory_exhaustion_is_a_failure_and_the_batch_is_not_halved(
    request_for: Callable[..., TrainingRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators.accuracy.trainer import ProxyTrainer

    def exhausted(self: ProxyTrainer, batch: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(ProxyTrainer, "preprocess_batch", exhausted)
    (failure,) = list(train(request_for()))
    assert isinstance(failure, Failure)
    assert failure.cause == "oom"


def test_closing_the_iterator_stops_the_training(request_for: Callable[..., TrainingRequest]) -> None:
    reports = train(request_for(epochs=50, until=50, rungs=(1,)))
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    saved = torch.load(request_for().checkpoint, weights_only=True)
    assert saved["epoch"] == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "training"]


def test_a_last_batch_of_one_image_is_left_out(request_for: Callable[..., TrainingRequest]) -> None:
    # 32 images in batches of 31: GhostV2 at P5 of a 64 px image normalises a single pixel.
    assert len(epochs(request_for(until=1, arguments={**TRAINING, "batch": 31, "nbs": 31}))) == 1


def test_two_processes_do_not_train_on_one_checkpoint(request_for: Callable[..., TrainingRequest]) -> None:
    import fcntl

    request = request_for(until=1)
    ended = threading.Event()

    def other() -> None:
        list(train(request))
        ended.set()

    request.scratch.mkdir()
    with open(request.scratch / "checkpoint.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=other)
        thread.start()
        assert not ended.wait(2)
        assert not request.checkpoint.exists()
    thread.join(60)
    assert ended.is_set()
    assert request.checkpoint.exists()

"""Trainings that share a GPU: measure how many at once it gains from, and hold each to its share of the memory.

Measured with fresh processes that train on made-up images, on a CPU likewise, where memory is not divided. What it does
on a GPU was not run: none was at hand.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import platform
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Literal

from evaluators.evaluation import Failure, failure_from
from evaluators.host_lock import training as training_slot
from evaluators.packing import Packing, Run, next_count, room, tensor_share
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.image_size import ImageSize

Device = Literal["cpu", "cuda"]
Work = Callable[[Callable[[], None]], Any]

WARM_UP_STEPS = 3  # the first choose kernels and fill the allocator
WINDOW_S = 5.0
LIMIT_S = 300.0  # to import, build and warm up, or to train a window: far more than a machine that works needs
BOXES = 16  # on each made-up image


@dataclass(frozen=True)
class MadeUpTraining:
    """Training steps on random images, as a trial of the search would take them.

    Attributes:
        architecture: What to train.
        classes: Number of classes.
        imgsz: Size of the images.
        batch: Images in a step.
        device: Where.
        threads: Computing threads.
        share: Of the GPU's memory that the process may use, above 0 to 1.
        window_s: Seconds that are timed.
    """

    architecture: Architecture
    classes: int
    imgsz: ImageSize
    batch: int
    device: Device
    threads: int = 1
    share: float = 1.0
    window_s: float = WINDOW_S


@dataclass(frozen=True)
class Sample:
    """What one process measured.

    Attributes:
        images_per_s: Trained on. Higher is better.
        peak_bytes: Most device memory reserved; None on a CPU.
    """

    images_per_s: float
    peak_bytes: int | None


def measure_packing(typical: MadeUpTraining, largest: MadeUpTraining, cores: int, gpus: int) -> Packing:
    """Train 1, 2, 4, ... typical networks at once, as long as that is a gain, and the largest alone for its memory.

    Args:
        typical: On whose throughput is decided.
        largest: The network of the space that needs most memory.
        cores: Of this machine.
        gpus: Of this machine; the first is measured, the others are taken to be like it.

    Raises:
        UserError: If the device cannot be used.
    """
    with training_slot():
        (found,) = together([partial(_describe, typical.device)])
        if isinstance(found, Failure):
            raise UserError(f"the GPU cannot be used: {found.message} (nas-yolo doctor)")
        name, memory_bytes = found
        alone = _measure(largest, 1) if memory_bytes else None
        need = max(alone.peak_bytes, default=None) if alone else None
        limit, limited_by = room(cores, gpus, memory_bytes, need)
        runs: list[Run] = []
        while trainings := next_count(runs, limit):
            runs.append(_measure(typical, trainings))
    return Packing(name, memory_bytes, tuple(runs), alone, limit, limited_by)


def hold_to_share(share: float) -> None:
    """Hold this process's tensors to its share of the GPU: if it runs out of memory, its neighbours do not.

    Args:
        share: Above 0; 1 is all of it, and holds nothing.
    """
    if share < 1:
        import torch

        memory_bytes = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(tensor_share(share, memory_bytes))


def train_steps(training: MadeUpTraining, ready: Callable[[], None]) -> Sample:
    """Warm up, wait for the others, train for the window.

    Args:
        training: What to do.
        ready: Returns when all others are.
    """
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.utils.torch_utils import ModelEMA, init_seeds

    from evaluators.accuracy.trainer import precision
    from search_spaces import hook

    on_gpu = training.device == "cuda"
    bf16 = precision(on_gpu) == "bf16"
    torch.set_num_threads(training.threads)
    if on_gpu:
        hold_to_share(training.share)
        init_seeds(0, deterministic=True)  # as trainings do: such kernels take longer
    device = torch.device(training.device)
    model = hook.build(hook.model_file(training.architecture, training.classes)).to(device).train()
    model.args = get_cfg()
    if on_gpu:
        model = model.to(memory_format=torch.channels_last)  # as Ultralytics does
    batch = _made_up_batch(training, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    average = ModelEMA(model)

    def step() -> None:
        with torch.autocast(training.device, torch.bfloat16, enabled=bf16):
            loss, _ = model(batch)
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
        if on_gpu:
            torch.cuda.synchronize()

    for _ in range(WARM_UP_STEPS):
        step()
    ready()
    started, steps = time.monotonic(), 0
    while (seconds := time.monotonic() - started) < training.window_s or not steps:
        step()
        steps += 1
    return Sample(steps * training.batch / seconds, torch.cuda.max_memory_reserved() if on_gpu else None)


def together(works: Sequence[Work], limit_s: float = LIMIT_S) -> list[Any]:
    """Run each in a fresh process, and what it does after it called its argument, at the same time as the others.

    Args:
        works: Each is given a function that returns when all others have called theirs, or are dead.
        limit_s: Until that, and from then on, seconds; whatever takes longer is killed.

    Returns:
        What each returned, in order; a `Failure` for one that raised, died or was killed.
    """
    context = multiprocessing.get_context("spawn")  # a forked process could not use CUDA
    members: list[tuple[SpawnProcess, Connection]] = []
    try:
        for work in works:
            here, there = context.Pipe()
            process = context.Process(target=_member, args=(work, there), daemon=True)
            process.start()
            there.close()
            members.append((process, here))
        deadline = time.monotonic() + limit_s
        answers = [_answer(*member, deadline) for member in members]
        for answer, (_, connection) in zip(answers, members, strict=True):
            if answer is None:
                with contextlib.suppress(BrokenPipeError):  # dead since: the next look at it finds out
                    connection.send(None)
        deadline = time.monotonic() + limit_s
        return [
            _answer(*member, deadline) if answer is None else answer
            for answer, member in zip(answers, members, strict=True)
        ]
    finally:
        for process, connection in members:
            process.kill()
            process.join()
            process.close()
            connection.close()


def _measure(training: MadeUpTraining, trainings: int) -> Run:
    work = partial(train_steps, replace(training, share=1 / trainings))
    answers = together([work] * trainings)
    samples = [answer for answer in answers if isinstance(answer, Sample)]
    return Run(
        trainings,
        sum(sample.images_per_s for sample in samples),
        tuple(sample.peak_bytes for sample in samples if sample.peak_bytes is not None),
        tuple(answer.message for answer in answers if isinstance(answer, Failure)),
    )


def _describe(device: Device, ready: Callable[[], None]) -> tuple[str, int | None]:
    """Name and memory. In a process of its own: whoever asks CUDA holds some of the GPU's memory to its end."""
    if device == "cpu":
        return platform.processor() or platform.machine(), None
    import torch

    properties = torch.cuda.get_device_properties(0)
    return properties.name, properties.total_memory


def _made_up_batch(training: MadeUpTraining, device: Any) -> dict[str, Any]:
    import torch

    boxes = training.batch * BOXES
    generator = torch.Generator().manual_seed(0)
    batch = {
        "img": torch.rand(training.batch, 3, *training.imgsz.shape, generator=generator),
        "cls": torch.randint(training.classes, (boxes, 1), generator=generator).float(),
        "bboxes": torch.rand(boxes, 4, generator=generator) * 0.4 + 0.3,
        "batch_idx": torch.arange(training.batch).repeat_interleave(BOXES).float(),
    }
    return {key: value.to(device) for key, value in batch.items()}


def _member(work: Work, connection: Connection) -> None:
    """A process from its birth to its end. It says None when it is ready, then its result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the user's Ctrl-C is its parent's to answer, who ends it

    def ready() -> None:
        connection.send(None)
        connection.recv()

    try:
        connection.send(work(ready))
    except EOFError:  # nobody waits for the result any more
        return
    except Exception as error:
        connection.send(failure_from(error))


def _answer(process: SpawnProcess, connection: Connection, deadline: float) -> Any:
    try:
        if connection.poll(max(deadline - time.monotonic(), 0.0)):
            return connection.recv()
    except (EOFError, OSError):
        process.join()
        return Failure("crash", f"the process died with exit code {process.exitcode}")
    process.kill()
    return Failure("timeout", "the process did not answer in time")

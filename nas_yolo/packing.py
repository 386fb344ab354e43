"""How many trainings of a search share a GPU: measured once, recorded with it, charged to its budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evaluators.accuracy.gpu_sharing import MadeUpTraining, measure_packing
from evaluators.complexity import largest
from evaluators.packing import Packing
from nas_yolo.config import SearchConfig
from nas_yolo.decisions import BATCH
from nas_yolo.proposals import stock_design
from search_spaces.errors import UserError
from storage import Repository, Search


def with_packing(repository: Repository, search: Search, device: str, gpus: int, cores: int) -> Search:
    """Measure how many trainings of a search share a GPU, if that is asked for and not known of this kind of GPU.

    Args:
        repository: Where the search is stored.
        search: The search.
        device: Name of the GPU.
        gpus: Of this machine.
        cores: Of this machine.

    Raises:
        UserError: If the GPU cannot be used.
    """
    config = SearchConfig.from_document(search.config)
    if config.packing is None or config.packing.get("device") == device:
        return search
    with repository.claimed(search):
        # Time of a session, with a GPU: it counts against budgets in wall-clock time and in GPU time.
        entry, started = repository.open_entry(search, None, "session", gpus=1.0), time.monotonic()
        try:
            packing = _measure(config, gpus, cores)
        finally:
            repository.charge({entry: time.monotonic() - started})
        found = {"packing": packing.document(), "gpus_per_trial": 1 / packing.trainings}
        return repository.set_config(search, search.config | found)


def fixed_batch(training: Mapping[str, Any]) -> int:
    """Images in a step, from training arguments.

    Raises:
        UserError: If it is to be found from the memory that is free, which is then no share of anything.
    """
    batch = training.get("batch", BATCH)
    if not isinstance(batch, int) or batch < 1:
        raise UserError(f"--gpus-per-trial auto needs a fixed batch, e.g. --train batch=16, not {batch}")
    return batch


def _measure(config: SearchConfig, gpus: int, cores: int) -> Packing:
    """By the model to beat, at once with copies of itself; its memory by the largest design of the space."""
    space, classes = config.space, len(config.dataset.names)
    stock = stock_design(config)
    most = largest(space, classes, config.imgsz, "gflops")
    typical = MadeUpTraining(stock, classes, config.imgsz, fixed_batch(config.training), "cuda")
    return measure_packing(typical, replace(typical, architecture=most, imgsz=config.imgsz_of(most)), cores, gpus)

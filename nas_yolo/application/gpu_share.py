"""How many trainings of a search share a GPU: measured once, recorded with it, charged to its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from evaluators.accuracy.gpu_sharing import MadeUpTraining, measure_packing
from evaluators.complexity import largest
from evaluators.packing import Packing
from nas_yolo.config import SearchConfig
from nas_yolo.planning.outcomes import BATCH
from nas_yolo.proposals import stock_design
from nas_yolo.runners.clock import AwakeClock
from search_spaces.errors import UserError
from storage import Claim, Job, Repository, Search
from storage.events import JobEnded, JobStarted


def with_packing(
    repository: Repository,
    search: Search,
    claim: Claim,
    device: str,
    gpus: int,
    cores: int,
    on_probe: Callable[[], None] = lambda: None,
) -> Search:
    """Measure how many trainings of a search share a GPU, if that is asked for and not known of this kind of GPU.

    Args:
        repository: Where the search is stored.
        search: The search.
        claim: That the caller holds it.
        device: Name of the GPU.
        gpus: Of this machine.
        cores: Of this machine.
        on_probe: Called before anything is measured, which takes a minute or two.

    Raises:
        UserError: If the GPU cannot be used.
    """
    config = SearchConfig.from_document(search.config)
    if config.packing is None or config.packing.get("device") == device:
        return search
    on_probe()
    # Time of a session, with a GPU: it counts against budgets in wall-clock time and in GPU time.
    journal, clock = repository.journal(search, claim), AwakeClock()
    began_s = journal.state.spent.wall_seconds
    journal.record([JobStarted(Job("packing", "session", "session", began_s, gpus=1.0))], began_s)
    try:
        packing = _measure(config, gpus, cores)
    finally:
        journal.record([JobEnded("packing", clock.now)], began_s + clock.now)
        clock.close()
    found = {"packing": packing.document(), "gpus_per_trial": 1 / packing.trainings}
    return repository.set_config(search, search.config | found, claim)


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

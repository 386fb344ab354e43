"""The strategy of a search, from its configuration and what earlier searches found."""

from __future__ import annotations

import math

from nas_yolo.config import SearchConfig
from nas_yolo.planning.situation import Context
from nas_yolo.samplers import Grid
from nas_yolo.schedulers import get_strategy
from nas_yolo.warm_start import earlier_designs
from search_spaces.architecture import Architecture
from storage import Repository, Search


def context_of(repository: Repository, search: Search, slots: int, threads: int, on_gpu: bool) -> Context:
    """What decisions on a search need to know.

    Args:
        repository: Holds earlier searches.
        search: The search.
        slots: Trainings at once.
        threads: Of one training.
        on_gpu: Whether trainings use a GPU.
    """
    config = SearchConfig.from_document(search.config)
    grid = Grid(config.space.choices)

    def codes(architecture: Architecture) -> tuple[int, ...] | None:
        choices = config.space.choices_of(architecture)
        return None if choices is None else grid.codes(choices)

    bounds = [limit.bound for limit in config.limits if limit.metric == "latency_ms"]
    strategy = get_strategy(
        config.sampler,
        grid,
        tuple(fidelity.cost for fidelity in config.fidelities),
        config.seed,
        min(bounds, default=math.inf),
        earlier_designs(repository, search, codes) if config.warm_start else (),
    )
    return Context(search.name, config, strategy, slots, threads, config.gpus_per_trial if on_gpu else 0.0)

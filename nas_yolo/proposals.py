"""Designs to try: known ones, the sampler's, chance, and a walk within the limits on size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from evaluators.complexity import predict_size, smallest
from nas_yolo.config import SearchConfig
from nas_yolo.objective import Limit, too_complex
from search_spaces.architecture import Architecture
from search_spaces.presets import known_designs
from search_spaces.space import Choices

BY_CHANCE, BY_WALK = 50, 500  # architectures looked at for one that is new and within the limits


def propose(
    config: SearchConfig, tried: set[str], number: int, suggest: Callable[[], Iterable[Choices]]
) -> tuple[Architecture, str] | None:
    """A new design and its origin: known designs first, then whatever the sampler says; None if none was found.

    Args:
        config: Of the search.
        tried: Keys of the architectures that it has tried.
        number: That its trial will have.
        suggest: The sampler's choices, best first.
    """
    space, stock = config.space, config.space.baseline
    for name, preset in known_designs(space, stock, config.imgsz).items():
        if preset.key not in tried and (name == stock or not over_limit(config, preset)):
            return preset, f"preset:{name}"
    for choices, origin in _candidates(config, number, suggest):
        architecture = space.architecture(choices)
        if architecture.key not in tried and not over_limit(config, architecture):
            return architecture, f"sampler:{origin}"
    return None


def stock_design(config: SearchConfig) -> Architecture:
    """The model to beat: the user's own, or the stock model."""
    stock = config.space.baseline
    return known_designs(config.space, stock, config.imgsz)[stock]


def _candidates(
    config: SearchConfig, number: int, suggest: Callable[[], Iterable[Choices]]
) -> Iterator[tuple[Choices, str]]:
    """What the sampler proposes, then chance, then steps within the limits; with who proposes it.

    Chance finds what is left sooner than a model that repeats itself. Under tight limits even chance fails: then
    one walks, a part at a time, from the smallest design through those that keep the limits; where size has none, from
    anywhere, so that no network is built to know which is the smallest.
    """
    space = config.space
    for choices in suggest():
        yield choices, config.sampler
    rng = np.random.default_rng((config.seed, number))
    for _ in range(BY_CHANCE):
        yield space.sample(rng), "random"
    here = _smallest(config) if _size_limits(config) else space.sample(rng)
    if here is None or space.size == 1:
        return
    yield here, "walk"
    for _ in range(BY_WALK):
        step = space.mutate(here, rng)
        if not over_limit(config, space.architecture(step)):
            here = step
            yield here, "walk"


def _smallest(config: SearchConfig) -> Choices | None:
    """The smallest design of the space, if it keeps all limits on size."""
    for metric in ("params", "gflops"):
        design = smallest(config.space, len(config.dataset.names), config.imgsz, metric)
        if not over_limit(config, design):
            return config.space.choices_of(design)
    return None


def over_limit(config: SearchConfig, architecture: Architecture) -> str:
    """Which limit on size it would break, known before it is built; empty if none, or if it cannot be known."""
    limits = _size_limits(config)
    if not limits:
        return ""
    try:
        size = predict_size(architecture, len(config.dataset.names), config.imgsz_of(architecture))
    except Exception:  # a block that does not build: its trial says why
        return ""
    return too_complex(limits, size)


def _size_limits(config: SearchConfig) -> list[Limit]:
    return [limit for limit in config.limits if limit.metric != "latency_ms"]

"""Designs to try: known ones, the sampler's, chance, and a walk within the limits on size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain

import numpy as np

from evaluators.complexity import predict_size, smallest
from nas_yolo.config import SearchConfig
from nas_yolo.objective import Limit, too_complex
from search_spaces.architecture import Architecture
from search_spaces.space import Choices

BY_CHANCE, BY_WALK = 50, 500  # architectures looked at for one that is new and within the limits


def propose(
    config: SearchConfig,
    tried: Mapping[str, str],
    number: int,
    suggest: Callable[[], Iterable[Choices]],
    presets: bool = True,
) -> tuple[Architecture, str] | None:
    """A new design and its origin: a known one or whatever the sampler says, in turns; None if none was found.

    Args:
        config: Of the search.
        tried: Origins of the designs that it has tried, by the keys of their architectures.
        number: That its trial will have.
        suggest: The sampler's choices, best first.
        presets: Whether known designs are tried besides the stock model.
    """
    stock = config.space.baseline
    known, sampled = list(_known(config))[: None if presets else 1], _sampled(config, number, suggest)
    for architecture, origin in chain(known, sampled) if known_is_due(tried.values()) else chain(sampled, known):
        new = architecture.key not in tried
        if new and (origin == f"preset:{stock}" or not over_limit(config, architecture)):
            return architecture, origin
    return None


def known_is_due(origins: Collection[str]) -> bool:
    """Whether a known design comes next, if one is left, and not the sampler's: from the stock model on in turns.

    What a search can afford is not known before it has trained anything. In turns, a small budget is no more spent on
    the list alone than on the sampler alone, and a large one tries the whole list, only later.

    Args:
        origins: Of the designs so far; what is only compared with is neither.
    """
    turns = [origin.startswith("preset:") for origin in origins if not origin.startswith("scaled:")]
    return 2 * sum(turns) <= len(turns)


def stock_design(config: SearchConfig) -> Architecture:
    """The model to beat: the user's own, or the stock model."""
    return config.known_designs[config.space.baseline]


def _known(config: SearchConfig) -> Iterator[tuple[Architecture, str]]:
    """The stock model, then the other known designs."""
    for name, preset in config.known_designs.items():
        yield preset, f"preset:{name}"


def _sampled(
    config: SearchConfig, number: int, suggest: Callable[[], Iterable[Choices]]
) -> Iterator[tuple[Architecture, str]]:
    for choices, origin in _candidates(config, number, suggest):
        yield config.space.architecture(choices), f"sampler:{origin}"


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

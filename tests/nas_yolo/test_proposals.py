from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas_yolo.config import SearchConfig
from nas_yolo.objective import parse_limit
from nas_yolo.proposals import known_is_due, propose
from search_spaces.presets import known_designs
from search_spaces.space import Choices


@pytest.fixture(scope="module")
def config(scenarios: Any) -> SearchConfig:
    found: SearchConfig = scenarios.Scenario("one", "random", space="yolov8n").config
    return found


def proposed(config: SearchConfig, count: int, suggests: bool = True) -> list[str]:
    """Origins of the first designs of a search."""

    def suggest() -> Iterator[Choices]:
        yield from (config.space.mutate(stock, rng) for _ in range(100))

    rng, tried = np.random.default_rng(0), dict[str, str]()
    stock = config.space.choices_of(known_designs(config.space, config.space.baseline, config.imgsz)["yolov8n"])
    assert stock
    for number in range(count):
        found = propose(config, tried, number, suggest if suggests else lambda: ())
        assert found
        tried[found[0].key] = found[1]
    assert len(tried) == count  # none twice
    return list(tried.values())


def test_known_designs_and_the_samplers_come_in_turns_from_the_stock_model_on(config: SearchConfig) -> None:
    sampler = "sampler:random"
    assert proposed(config, 5) == [
        "preset:yolov8n",
        sampler,
        "preset:yolov8n-convnext",
        sampler,
        "preset:yolov8n-focal",
    ]


def test_all_known_designs_are_tried_in_a_search_that_is_long_enough(config: SearchConfig) -> None:
    known = known_designs(config.space, config.space.baseline, config.imgsz)
    origins = proposed(config, 2 * len(known) + 3)
    assert [origin for origin in origins if origin.startswith("preset:")] == [f"preset:{name}" for name in known]
    assert origins[2 * len(known) :] == ["sampler:random"] * 3


def test_who_has_nothing_left_gives_his_turn_away(config: SearchConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    known = known_designs(config.space, config.space.baseline, config.imgsz)
    monkeypatch.setattr("nas_yolo.proposals._candidates", lambda *_: iter(()))
    assert proposed(config, len(known)) == [f"preset:{name}" for name in known]
    assert propose(config, {design.key: f"preset:{name}" for name, design in known.items()}, 9, lambda: ()) is None


def test_only_the_stock_model_may_be_over_a_limit(config: SearchConfig) -> None:
    small = replace(config, limits=(parse_limit("params_m<=2.5"),))
    first, *others = proposed(small, 6)
    assert first == "preset:yolov8n"  # which has 3.0 M
    assert set(others) & {"preset:yolov8n-ghost", "preset:yolov8n-shufflev2"}
    assert "preset:yolov8n-convnext" not in others


def test_turns_follow_from_what_was_tried() -> None:
    assert known_is_due([])
    assert not known_is_due(["preset:a"])
    assert known_is_due(["preset:a", "sampler:x"])
    assert not known_is_due(["preset:a", "preset:b", "preset:c", "sampler:x"])  # of before there were turns
    assert not known_is_due(["preset:a", "scaled:b", "scaled:c"])  # what is only compared with takes no turn

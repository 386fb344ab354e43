from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nas_yolo.samplers import Observation, get_sampler, list_samplers
from search_spaces import SearchSpace
from search_spaces.registry import UnknownNameError
from search_spaces.space import Choices

SPACE = SearchSpace(
    "small",
    "yolov8",
    {
        **{"P1.downsample": ("Conv",), "P1.width": (8, 16, 24)},
        **{f"P{level}.downsample": ("Conv", "GhostConv") for level in range(2, 6)},
        **{f"P{level}.block": ("C2f", "ShuffleV2") for level in range(2, 6)},
        **{f"P{level}.width": (32, 48, 96) for level in range(2, 6)},
        **{f"P{level}.depth": (1, 2) for level in range(2, 6)},
        **{f"P{level}.widen": (1,) for level in range(2, 6)},
        **{"attention": ("none",), "neck.downsample": ("Conv",)},
        **{
            f"neck.P{level}.{key}": values
            for level in (3, 4, 5)
            for key, values in (("block", ("C2f",)), ("depth", (1,)))
        },
    },
)


def observations(count: int) -> list[Observation]:
    """ShuffleV2 at P5 is accurate, everything else does not matter; latency is the same for all."""
    rng = np.random.default_rng(0)
    points = [SPACE.sample(rng) for _ in range(count)]
    seen = [Observation(p, 0.9 if p["P5.block"] == "ShuffleV2" else 0.1, 1.0, False) for p in points]
    return [*seen, Observation(SPACE.sample(rng), None, 1.0, True), Observation(SPACE.sample(rng), None, None, False)]


@pytest.mark.parametrize("name", list_samplers())
@pytest.mark.parametrize("count", [0, 5, 30])
def test_proposals_are_points_of_the_space(name: str, count: int) -> None:
    choices = get_sampler(name)(SPACE, observations(count), 3)
    assert SPACE.choices_of(SPACE.architecture(choices)) == choices
    assert list(choices) == list(SPACE.choices)


@pytest.mark.parametrize("name", list_samplers())
def test_the_same_seed_and_observations_give_the_same_proposal_in_another_process(name: str) -> None:
    def proposal(seed: int) -> Choices:
        return get_sampler(name)(SPACE, observations(30), seed)

    assert proposal(1) == proposal(1)
    assert len({tuple(proposal(seed).values()) for seed in range(8)}) > 1
    code = f"from {__name__.rpartition('.')[2]} import *; print(get_sampler({name!r})(SPACE, observations(30), 1))"
    folder = __file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r}); {code}"],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == str(proposal(1))


def test_tpe_learns() -> None:
    proposals = [get_sampler("tpe")(SPACE, observations(60), seed)["P5.block"] for seed in range(20)]
    assert proposals.count("ShuffleV2") >= 14  # 10 by chance


def test_random_is_uniform() -> None:
    counts = np.zeros(3)
    for seed in range(600):
        width = get_sampler("random")(SPACE, [], seed)["P2.width"]
        counts[SPACE.choices["P2.width"].index(width)] += 1
    chi_square = float(((counts - 200) ** 2 / 200).sum())
    assert chi_square < 13.8  # 99.9 % of uniform samples


def test_an_unknown_sampler_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tpe'"):
        get_sampler("tpee")

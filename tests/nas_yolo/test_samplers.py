from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nas_yolo.samplers import Ask, Grid, Observation, check_sampler, get_ask, list_samplers
from search_spaces.names import UnknownNameError

GRID = Grid(
    {
        **{f"P{level}.block": ("C2f", "ShuffleV2") for level in range(2, 6)},
        **{f"P{level}.width": (32, 48, 96) for level in range(2, 6)},
        "neck.block": ("C2f",),
    }
)
BLOCK = list(GRID.choices).index("P5.block")
OPTUNAS = [name for name in list_samplers() if name != "frontier"]


def observations(count: int) -> list[Observation]:
    """ShuffleV2 at P5 is accurate, everything else does not matter; latency is the same for all."""
    points = [tuple(point) for point in GRID.draw(count + 2, np.random.default_rng(0)).tolist()]
    seen = [Observation(point, (1.0,), (0.9 if point[BLOCK] else 0.1,), over=True) for point in points[2:]]
    return [*seen, Observation(points[0], (1.0,), coming_fidelity=0), Observation(points[1])]


@pytest.fixture(params=OPTUNAS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return get_ask(request.param)


@pytest.mark.parametrize("count", [0, 5, 30])
def test_proposals_are_points_of_the_space(ask: Ask, count: int) -> None:
    codes = ask(GRID, observations(count), 3)
    assert GRID.codes(GRID.values(codes)) == codes
    assert all(0 <= code < most for code, most in zip(codes, GRID.cardinality, strict=True))


def test_the_same_seed_and_observations_give_the_same_proposal() -> None:
    for name in OPTUNAS:
        ask = get_ask(name)
        assert ask(GRID, observations(30), 1) == ask(GRID, observations(30), 1)
        assert len({ask(GRID, observations(30), seed) for seed in range(6)}) > 1


@pytest.mark.parametrize("name", OPTUNAS)
def test_another_process_proposes_the_same(name: str) -> None:
    code = f"from {__name__.rpartition('.')[2]} import *; print(get_ask({name!r})(GRID, observations(30), 1))"
    folder = __file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r}); {code}"],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == str(get_ask(name)(GRID, observations(30), 1))


@pytest.mark.parametrize(("name", "seen"), [("tpe", 60), ("nsga2", 100)])
def test_a_sampler_learns(name: str, seen: int) -> None:
    proposals = [get_ask(name)(GRID, observations(seen), seed)[BLOCK] for seed in range(20)]
    assert sum(proposals) >= 14  # 10 by chance


def test_random_is_uniform() -> None:
    column = list(GRID.choices).index("P2.width")
    counts = np.bincount([get_ask("random")(GRID, [], seed)[column] for seed in range(600)], minlength=3)
    chi_square = float(((counts - 200) ** 2 / 200).sum())
    assert chi_square < 13.8  # 99.9 % of uniform samples


def test_an_unknown_sampler_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tpe'"):
        check_sampler("tpee")


def test_features_put_random_points_at_a_mean_squared_distance_of_one() -> None:
    rng = np.random.default_rng(0)
    for one, other in zip(GRID.features(GRID.draw(4000, rng)), GRID.features(GRID.draw(4000, rng)), strict=True):
        assert ((one - other) ** 2).sum(axis=1).mean() == pytest.approx(1.0, rel=0.1)


def test_children_differ_from_their_parents_and_stay_in_the_space() -> None:
    parents = GRID.draw(2, np.random.default_rng(1))
    children = GRID.vary(parents, 500, np.random.default_rng(2))
    assert (children < GRID.cardinality).all()
    assert (children[:, -1] == 0).all()
    from_parents = ((children == parents[0]) | (children == parents[1])).sum(axis=1)
    assert from_parents.min() >= len(GRID.choices) - 2  # at most two mutations
    assert len(np.unique(children, axis=0)) > 50

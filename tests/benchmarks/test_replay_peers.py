from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

import benchmarks.replay.peers
from benchmarks.replay.peers._packages import MissingPackageError, library
from benchmarks.replay.peers.moasha import MultiObjectiveAsha, ranking, rungs
from benchmarks.replay.simulation import Job, Method, NewMethod, replay
from benchmarks.replay.table import Table
from nas_yolo.pareto import front

PEERS = sorted(
    file.stem for file in Path(benchmarks.replay.peers.__path__[0]).glob("*.py") if not file.stem.startswith("_")
)
MULTI_FIDELITY = ("moasha", "moasha_even", "syne_moasha")
NEEDS = {"syne_moasha": ("syne_tune",), "syne_ehvi": ("syne_tune", "botorch"), "nni_evolution": ("nni",)}
BUDGET = 13  # the first ten are random


def make_table(costs: list[float], levels: int = 3, missing: int = 11) -> Table:
    """Wider is slower and better, with less and less return; some configurations do not exist."""
    rng = np.random.default_rng(0)
    configs = np.array(list(itertools.product(range(levels), repeat=4)))
    configs = np.delete(configs, rng.choice(len(configs), size=missing, replace=False), axis=0)
    size = 1.0 + configs @ np.array([1.0, 2.0, 0.5, 3.0])
    final = 90.0 - 40.0 / size + rng.normal(0, 2.0, len(configs))
    accuracy = np.stack([final - 10.0 * (1.0 - cost) + rng.normal(0, 1.0 - cost, len(configs)) for cost in costs], 1)
    cardinality = np.full(4, levels)
    return Table("toy", "cpu", configs, cardinality, np.array(costs), accuracy, size, np.empty((len(configs), 0)))


MANY, ONE = make_table([1 / 9, 1 / 3, 1.0]), make_table([1.0])


def load(peer: str) -> NewMethod:
    for package in NEEDS.get(peer, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if peer == "syne_ehvi":  # BoTorch would build an extension at first use, for most of a minute
        library("botorch.acquisition.multi_objective.logei")._load_attempted = True
    new: NewMethod = importlib.import_module(f"benchmarks.replay.peers.{peer}").new
    return new


class Watched:
    """A method whose every job is checked and kept."""

    def __init__(self, table: Table, method: Method, jobs: list[Job]) -> None:
        self.table, self.method, self.jobs = table, method, jobs
        self.reached: dict[int, int] = {}

    def ask(self, left: float) -> Job | None:
        job = self.method.ask(left)
        if job is not None:
            start = self.reached.get(job.row, -1)
            assert start < job.fidelity
            paid = self.table.costs[start] if start >= 0 else 0.0
            assert self.table.costs[job.fidelity] - paid <= left + 1e-9
            self.reached[job.row] = job.fidelity
            self.jobs.append(job)
        return job

    def tell(self, job: Job, accuracy: float) -> None:
        self.method.tell(job, accuracy)


def jobs_of(peer: str, table: Table, seed: int = 0, budget: int = BUDGET, workers: int = 1) -> list[Job]:
    new = load(peer)
    jobs: list[Job] = []

    def watched(table: Table, seed: int, budget: float, workers: int) -> Watched:
        return Watched(table, new(table, seed, budget, workers), jobs)

    replay(table, watched, seed, budget, workers)
    return jobs


def spent(table: Table, jobs: list[Job]) -> float:
    reached: dict[int, int] = {}
    for job in jobs:
        reached[job.row] = max(job.fidelity, reached.get(job.row, -1))
    return float(sum(table.costs[fidelity] for fidelity in reached.values()))


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_spends_its_budget_and_no_more_and_never_repeats(peer: str, workers: int) -> None:
    jobs = jobs_of(peer, MANY, workers=workers)
    assert BUDGET - 1 < spent(MANY, jobs) <= BUDGET + 1e-9
    if peer not in MULTI_FIDELITY:
        assert {job.fidelity for job in jobs} == {2}
    else:
        assert {job.fidelity for job in jobs} == {0, 1, 2}


@pytest.mark.parametrize("peer", PEERS)
def test_one_fidelity_is_enough(peer: str) -> None:
    jobs = jobs_of(peer, ONE)
    assert len(jobs) == len({job.row for job in jobs}) == BUDGET


@pytest.mark.parametrize("peer", PEERS)
def test_a_seed_decides_everything(peer: str) -> None:
    np.random.seed(1)
    jobs = jobs_of(peer, MANY, seed=3)
    np.random.seed(2)
    assert jobs_of(peer, MANY, seed=3) == jobs
    assert jobs_of(peer, MANY, seed=4, budget=3) != jobs_of(peer, MANY, seed=3, budget=3)


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_ends_when_everything_was_trained(peer: str) -> None:
    table = make_table([1.0], levels=2)
    assert sorted(job.row for job in jobs_of(peer, table, budget=20)) == list(range(len(table.configs)))


def test_nni_mutates_one_choice_of_one_of_the_youngest() -> None:
    jobs = jobs_of("nni_evolution", ONE, budget=40)
    population = importlib.import_module("benchmarks.replay.peers.nni_evolution").POPULATION
    configs = ONE.configs[[job.row for job in jobs]]
    for i in range(population, len(jobs)):
        assert np.sum(configs[i - population : i] != configs[i], axis=1).min() == 1


@pytest.mark.parametrize("seed", range(30))
def test_a_trial_on_the_front_is_among_the_best_third_if_the_front_fits_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(6, 60))
    latency, accuracy = rng.lognormal(size=count), rng.uniform(0, 100, size=count)
    members = front(latency.tolist(), accuracy.tolist())
    best = ranking(latency, accuracy, count // 3)

    assert len(best) == len(set(best)) == count // 3
    assert set(members) <= set(best) or set(best) <= set(members)


def test_the_ranking_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    latency, accuracy = rng.lognormal(size=40), rng.uniform(0, 100, size=40)
    best = ranking(latency, accuracy, 13)
    for _ in range(10):
        order = rng.permutation(40)
        assert order[ranking(latency[order], accuracy[order], 13)].tolist() == best


def test_a_layer_is_ranked_by_spread() -> None:
    latency = np.exp([0.0, 0.1, 1.0, 2.0])
    assert ranking(latency, np.array([10.0, 11.0, 20.0, 30.0]), 4) == [3, 0, 2, 1]


def test_rungs_are_a_third_apart() -> None:
    assert rungs(np.array([1.0])) == [0]
    assert rungs(np.array([0.06, 1.0])) == [0, 1]
    assert rungs(np.arange(1, 28) / 27) == [0, 2, 8, 26]


def test_moasha_promotes_the_best_of_three_and_pays_only_the_difference() -> None:
    method = MultiObjectiveAsha(MANY, seed=0)
    started = [method.ask(left=13.0) for _ in range(3)]
    assert all(job is not None and job.fidelity == 0 for job in started)
    for accuracy, job in zip((50.0, 40.0, 30.0), started, strict=True):
        assert job is not None
        method.tell(job, accuracy)
    assert method.ask(left=0.05) is None
    cheap = method.ask(left=0.2)
    assert cheap is not None
    assert cheap.fidelity == 0  # a promotion costs 2/9
    promoted = method.ask(left=0.23)
    assert promoted is not None
    assert started[0] is not None
    assert promoted == Job(started[0].row, 1)


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(MissingPackageError, match=r"^this peer needs the package no_such_one: pip install 'nas-yolo\["):
        library("no_such_one.module")

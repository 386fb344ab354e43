"""The replay as a command, on a small table."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.replay import frontier, variant
from benchmarks.replay.simulation import Job, replay
from benchmarks.replay.space import TableGrid, space_of
from benchmarks.replay.table import Table, TableError, load_table
from search_spaces.architecture import Architecture
from storage import Repository
from storage.events import EpochEnded, LatencyMeasured

ROOT = Path(__file__).parents[2]


def columns(costs: tuple[int, ...], share: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    configs = np.array(list(itertools.product(range(4), repeat=5)))
    configs = configs[rng.random(len(configs)) < share]
    size = 1.0 + configs @ np.array([1.0, 2.0, 0.5, 3.0, 1.0])
    final = 90.0 - 40.0 / size + 3.0 * np.sin(configs @ np.array([1.0, 2.0, 3.0, 1.0, 2.0]))
    accuracy = [final + rng.normal(0, 3.0 * (1 - cost / costs[-1]), len(configs)) for cost in costs]
    return {
        "configs": configs.astype(np.uint8),
        "cardinality": np.full(5, 4, np.uint8),
        "epochs": np.array(costs),
        "accuracy": np.stack(accuracy, axis=1).astype(np.float32),
        "latency_ms": np.stack([size, size**0.5], axis=1).astype(np.float32),
        "devices": np.array(["cpu", "gpu"]),
        "chance": np.float32(10),
    }


@pytest.fixture
def table(tmp_path: Path) -> Path:
    np.savez(tmp_path / "table.npz", **columns((2, 20), 0.9))
    return tmp_path / "table.npz"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.replay", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_command_writes_its_curves(table: Path, tmp_path: Path) -> None:
    file, picture = tmp_path / "out.json", tmp_path / "out.svg"
    done = run(
        table, "--device", "gpu", "--budget", 6, "--seeds", 2, "--methods", "frontier,moasha,random", "--json", file,
        "--plot", picture,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "frontier reaches what the best peer" in done.stdout
    document = json.loads(file.read_text())
    assert {key: document[key] for key in ("table", "device", "seeds", "budget", "workers")} == {
        "table": "table.npz", "device": "gpu", "seeds": 2, "budget": 6, "workers": 1,
    }  # fmt: skip
    for name in ("frontier", "moasha", "random"):
        curve = document["curves"][name]
        assert len(curve) == len(document["std"][name]) == 6
        assert curve == sorted(curve)
        assert 0 <= curve[0] <= curve[-1] <= 1
        assert document["seconds_per_ask"][name] > 0
    assert picture.read_text().startswith("<?xml")


@pytest.fixture
def repository() -> Iterator[Repository]:
    with closing(Repository("sqlite://")) as opened:
        yield opened


def first_rows(table: Table, count: int) -> Table:
    """So few that all of them are tried."""
    columns = ("configs", "accuracy", "latency_ms", "sizes")
    return replace(table, **{name: getattr(table, name)[:count] for name in columns})


@pytest.mark.parametrize("share", [0.9, 0.1])
@pytest.mark.parametrize("costs", [(20,), (2, 20), (7, 20)])
def test_the_search_spends_its_budget_on_rows_of_the_table(
    tmp_path: Path, costs: tuple[int, ...], share: float
) -> None:
    np.savez(tmp_path / "table.npz", **columns(costs, share))
    loaded = load_table(tmp_path / "table.npz")
    one, other = (frontier.replay(loaded, 3, 8) for _ in range(2))
    assert one.jobs == other.jobs
    assert (one.curve == other.curve).all()
    spent = sum(n * c for n, c in zip(one.jobs, np.diff(loaded.costs, prepend=0.0), strict=True))
    assert 6.5 < spent <= 8 + 1e-9
    assert one.jobs[-1] >= 4
    assert one.curve[-1] > 0.3


def test_what_a_search_is_told_is_what_the_table_says(table: Path, repository: Repository) -> None:
    loaded = load_table(table)
    frontier.search(repository, loaded, 0, 4)
    (search,) = repository.searches()
    space, trials = space_of(loaded, 0), repository.trials(search)
    rows = [space.row_of(trial.architecture) for trial in trials]
    assert len(rows) == len(set(rows)) > 10
    complete = [(trial, row) for trial, row in zip(trials, rows, strict=True) if trial.state == "complete"]
    for trial, row in complete:
        assert trial.latencies["cpu"].latency_ms == loaded.latency_ms[row]
        assert [e.map50_95 for e in trial.epochs if e.map50_95 is not None] == pytest.approx(loaded.accuracy[row] / 100)
        seconds = np.cumsum([epoch.seconds for epoch in trial.epochs])
        assert seconds[np.array(frontier.ladder(loaded)) - 1] == pytest.approx(loaded.costs * frontier.TRAINING_S)
    assert repository.spent(search).cpu_seconds <= 4 * frontier.TRAINING_S
    assert trials[0].preset is not None  # the model to beat, a row as well, is trained to the end
    assert trials[0].state == "complete"


def test_costs_are_counted_when_trainings_end_and_from_records_alone(table: Path, repository: Repository) -> None:
    loaded = load_table(table)
    found = frontier.search(repository, loaded, 0, 4)
    (search,) = repository.searches()
    recorded = repository.events(search)
    spent_s = sum(one.event.epoch.seconds for one in recorded if isinstance(one.event, EpochEnded))
    counted = sum(n * c for n, c in zip(found.jobs, np.diff(loaded.costs, prepend=0.0), strict=True))
    assert counted == pytest.approx(spent_s / frontier.TRAINING_S)
    timed = {one.event.number for one in recorded if isinstance(one.event, LatencyMeasured)}
    assert timed == set(range(len(repository.trials(search))))


def test_a_search_ends_when_all_rows_were_tried(table: Path, repository: Repository) -> None:
    few = first_rows(load_table(table), 8)
    frontier.search(repository, few, 0, 30)
    (search,) = repository.searches()
    trials = repository.trials(search)
    assert sorted(space_of(few, 0).row_of(trial.architecture) for trial in trials) == list(range(8))
    assert {trial.state for trial in trials} == {"complete"}


def test_a_later_search_learns_from_an_earlier_one(table: Path, repository: Repository) -> None:
    earlier, later = load_table(table, "gpu"), load_table(table, "cpu")
    alone = frontier.replay(later, 0, 4)
    frontier.search(repository, earlier, 1000, 4)
    after = frontier.search(repository, later, 0, 4)
    assert (after.curve != alone.curve).any()
    first, second = (repository.trials(search) for search in repository.searches())
    known = {trial.architecture for trial in first if trial.epochs}
    assert sum(trial.architecture in known for trial in second) > len(second) / 3  # the best of them are tried first


@pytest.mark.parametrize("share", [0.9, 0.1])
def test_only_rows_are_drawn_and_each_is_an_architecture_that_can_be_stored(tmp_path: Path, share: float) -> None:
    np.savez(tmp_path / "table.npz", **columns((2, 20), share))
    loaded = load_table(tmp_path / "table.npz")
    space, rng = space_of(loaded, 0), np.random.default_rng(0)
    grid = TableGrid(space)
    for row in range(len(loaded.configs)):
        stored = Architecture.from_document(space.architecture_of(row).document)
        assert space.row_of(stored) == row
    drawn = grid.draw(50, rng)
    for codes in (*drawn.tolist(), *grid.vary(drawn, 50, rng).tolist()):
        assert space.row_of(space.architecture(grid.values(codes))) >= 0
    for choices in (space.sample(rng), space.mutate(space.sample(rng), rng)):
        assert space.row_of(space.architecture(choices)) >= 0


def test_a_search_has_as_many_fidelities_as_the_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "three.npz", **columns((2, 8, 20), 0.9))
    three = load_table(tmp_path / "three.npz")
    assert frontier.ladder(three) == (1, 4, 10)
    found = frontier.replay(three, 0, 6)
    assert all(found.jobs)
    assert sum(count * cost for count, cost in zip(found.jobs, np.diff(three.costs, prepend=0.0), strict=True)) <= 6.1


def test_a_table_of_too_many_choices_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", **columns((2, 20), 0.9))
    wide = replace(load_table(tmp_path / "table.npz"), cardinality=np.full(15, 2))
    with pytest.raises(TableError, match="15 choices; up to 14"):
        space_of(wide, 0)


def test_many_workers_are_kept_busy_and_learn_as_much(table: Path) -> None:
    loaded = load_table(table)
    few, many = (frontier.replay(loaded, 1, 8, workers) for workers in (1, 4))
    assert few.busy == pytest.approx(1.0)
    assert many.busy > 0.85  # at the end, what is kept in case that trainings take longer is free only once they ended
    assert many.curve[-1] > 0.85 * few.curve[-1]


def test_workers_of_a_search_wait_while_it_decides(table: Path) -> None:
    loaded = load_table(table)
    slow, quick = (frontier.replay(loaded, 0, 3, training_s=seconds) for seconds in (0.05, 1e6))
    assert slow.busy < 0.8
    assert quick.busy > 0.99


def test_workers_wait_for_a_slow_driver(table: Path) -> None:
    class Slow:
        """Trains one row after the other in full, each after 10 ms of thought."""

        rows = iter(range(1000))

        def ask(self, left: float) -> Job | None:
            time.sleep(0.01)
            return Job(next(self.rows), 1)

        def tell(self, job: Job, accuracy: float) -> None:
            pass

    slow = replay(load_table(table), lambda *_: Slow(), 0, 60, workers=10, training_s=0.05)
    assert slow.busy < 0.6  # of ten workers, five are served in the time of a training
    assert replay(load_table(table), lambda *_: Slow(), 0, 60, workers=10).busy == pytest.approx(1.0)


def test_another_table_can_be_made_of_one(table: Path, tmp_path: Path) -> None:
    made = tmp_path / "third.npz"
    arguments = [str(table), str(made), "--epochs", "1,3", "--mix", "0.5", "--rows", "100"]
    done = CliRunner().invoke(variant.main, arguments)
    assert done.exit_code == 0, done.output
    before, after = load_table(table), load_table(made)
    assert len(after.configs) == 100
    assert after.costs.tolist() == pytest.approx([1 / 3, 1])
    rows = [before.row_of[tuple(config)] for config in after.configs.tolist()]
    assert (before.accuracy[rows, -1] == after.accuracy[:, -1]).all()
    ranks = [np.corrcoef(t.accuracy[:, 0], t.accuracy[:, -1])[0, 1] for t in (before, after)]
    assert ranks[1] > ranks[0]  # the low fidelity tells more


def test_a_table_can_be_cut_to_its_highest_fidelities(table: Path) -> None:
    whole, cut = load_table(table), load_table(table, fidelities=1)
    assert (cut.costs == [1.0]).all()
    assert (cut.accuracy[:, 0] == whole.accuracy[:, -1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devices": None}, "no devices"),
        ({"epochs": np.array([20, 2])}, "epochs must ascend"),
        ({"cardinality": np.full(5, 3)}, "below their cardinality"),
        ({"accuracy": np.zeros((3, 2))}, "do not fit"),
        ({"latency_ms": np.zeros((1, 2))}, "do not fit"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    made = {key: value for key, value in (columns((2, 20), 0.9) | change).items() if value is not None}
    np.savez(tmp_path / "bad.npz", **made)
    with pytest.raises(TableError, match=message):
        load_table(tmp_path / "bad.npz")


def test_what_was_mistyped_is_answered(table: Path, tmp_path: Path) -> None:
    assert "no device 'tpu'; there are cpu, gpu" in run(table, "--device", "tpu").stderr
    assert "no method tpee; there are frontier, " in run(table, "--methods", "tpee").stderr
    (tmp_path / "text.npz").write_text("no table")
    assert "not a readable npz file" in run(tmp_path / "text.npz").stderr

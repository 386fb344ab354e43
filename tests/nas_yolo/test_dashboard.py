"""The dashboard through its own JSON interface."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from search_spaces import Architecture
from search_spaces.presets import load_preset
from storage import Repository, Search, StorageAwayError, Trial
from storage.events import BudgetsSet

DEADLINE_S = 120  # a busy machine is no failure
Get = Callable[[str], Any]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def process_and_get(finished: tuple[Repository, Search]) -> Iterator[tuple[subprocess.Popen[str], Get]]:
    port = free_port()
    command = [sys.executable, "-m", "nas_yolo", "dashboard", "done", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def get(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE_S) as answer:
            return json.load(answer) if path.startswith("/api") else answer.status

    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            get("/api/studies")
            break
        except OSError:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield process, get
    process.kill()
    process.communicate()


def attribute(trial: dict[str, Any], key: str) -> Any:
    return next(json.loads(item["value"]) for item in trial["user_attrs"] if item["key"] == key)


def test_the_study_of_a_search_is_served_on_loopback_and_follows_it(
    process_and_get: tuple[subprocess.Popen[str], Get], finished: tuple[Repository, Search], by_hand: Any
) -> None:
    process, get = process_and_get
    repository, search = finished
    (summary,) = get("/api/studies")["study_summaries"]
    assert summary["study_name"] == "done"
    assert [direction.lower() for direction in summary["directions"]] == ["maximize", "minimize"]
    study = get(f"/api/studies/{summary['study_id']}")
    assert study["objective_names"] == ["map50_95", "latency_ms (cpu)"]
    trials = {attribute(trial, "trial"): trial for trial in study["trials"]}
    assert [trials[number]["state"] for number in range(4)] == ["Complete", "Complete", "Complete", "Pruned"]
    assert trials[1]["values"] == [0.35, 1.5]
    assert Architecture.from_document(attribute(trials[1], "architecture")) == load_preset("yolov8n-ghost")
    assert {param["name"] for param in trials[1]["params"]} >= {"P2.block", "P5.width", "neck.P4.depth"}
    assert get("/dashboard/") == 200
    (plot,) = study["plotly_graph_objects"]
    traces = {trace["name"]: trace for trace in json.loads(plot["graph_object"])["data"]}
    assert (traces["front"]["x"], traces["front"]["y"]) == ([1.5, 3.0], [0.35, 0.4])
    assert (traces["stock, scaled"]["x"], traces["stock, scaled"]["mode"]) == ([2.0], "lines+markers")

    addresses = {c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}

    (waiting,) = (trial for trial in repository.trials(search) if trial.state == "paused")
    by_hand(repository, search).move(waiting.number, "failed", reason="crash: for this test")
    deadline = time.monotonic() + DEADLINE_S
    while "Fail" not in {trial["state"] for trial in study["trials"]}:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        (summary,) = get("/api/studies")["study_summaries"]
        study = get(f"/api/studies/{summary['study_id']}")


def test_the_mirror_is_made_once_and_remade_when_a_trial_went_on(
    finished: tuple[Repository, Search], database: str, by_hand: Any
) -> None:
    import optuna
    from optuna.storages import RDBStorage

    from nas_yolo.integrations.optuna_dashboard import mirror

    repository, search = finished
    storage = RDBStorage(database)

    def study() -> optuna.Study:
        mirror(repository, search, storage)
        return optuna.load_study(study_name="done", storage=storage)

    first = study()
    assert study()._study_id == first._study_id
    assert [len(first.trials), len(study().trials)] == [4, 4]
    waiting = repository.trials(search)[3]
    by_hand(repository, search).move(waiting.number, "rejected", reason="too slow")
    again = study()
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
    assert again.trials[3].user_attrs["reason"] == "too slow"
    assert len(repository.trials(search)) == 4  # both live in one database
    by_hand(repository, search).trial(4, load_preset("yolov8n"), "repeat:0", state="failed")
    assert len(study().trials) == 4  # a repeat is no design
    assert isinstance(replace(waiting, state="new"), Trial)
    assert Path(database.removeprefix("sqlite:///")).exists()


def test_a_study_is_read_anew_only_once_something_has_happened(
    finished: tuple[Repository, Search], by_hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_yolo.integrations import optuna_dashboard

    repository, search = finished
    mirrored: list[Search] = []
    monkeypatch.setattr(optuna_dashboard, "mirror", lambda repository, search, storage: mirrored.append(search))
    study = optuna_dashboard.Following(repository, search, storage=None)  # type: ignore[arg-type]

    def times() -> int:
        study.refresh()
        return len(mirrored)

    assert [times(), times()] == [1, 1]
    with repository.claimed(search):  # who waits is not shown meanwhile
        assert [times(), times()] == [2, 2]
    assert [times(), times()] == [3, 3]
    by_hand(repository, search).record(BudgetsSet(("2h",)))
    assert [times(), times()] == [4, 4]


def test_a_database_that_was_away_is_read_once_it_is_back(
    finished: tuple[Repository, Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_yolo.integrations import optuna_dashboard

    repository, search = finished
    answers = iter([StorageAwayError("the database is away"), None])
    mirrored: list[Search] = []

    def mirror(repository: Repository, search: Search, storage: Any) -> None:
        if error := next(answers):
            raise error
        mirrored.append(search)

    monkeypatch.setattr(optuna_dashboard, "mirror", mirror)
    study = optuna_dashboard.Following(repository, search, storage=None)  # type: ignore[arg-type]
    with pytest.raises(StorageAwayError):
        study.refresh()
    study.refresh()
    study.refresh()
    assert mirrored == [search]

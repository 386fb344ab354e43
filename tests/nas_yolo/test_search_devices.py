"""The loop when devices are several, or fail: real trainings and measurements, and faults on the way to the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators import latency
from evaluators.connections import local
from evaluators.errors import LatencyError
from evaluators.evaluation import Latency
from evaluators.target import Target
from nas_yolo import devices
from nas_yolo.application import make_config
from nas_yolo.application.checks import check_targets
from nas_yolo.budget import parse_budget
from nas_yolo.config import SearchConfig
from nas_yolo.driver import SearchError
from nas_yolo.planning import POLICIES, validate
from nas_yolo.results import baselines, front_document, front_trials
from search_spaces import UserError
from storage import Repository, Trial

SPACE = Path(__file__).parent / "space.yaml"
Run = Callable[..., list[Trial]]

pytestmark = pytest.mark.usefixtures("quick_probe")

Fault = Callable[[Target, str, int], None]
"""Raises, or not, for a job (`identify` or `measure`) of which so many were done on that target."""


@pytest.fixture
def repository(database: str) -> Repository:
    return Repository(database)


@pytest.fixture
def two_targets(few_digits: Path, tmp_path: Path) -> SearchConfig:
    file = tmp_path / "targets.yaml"
    file.write_text("two: {threads: 2}\ntwin: {runtime: onnxruntime}\n")
    return make_config(
        data=str(few_digits),
        targets=("cpu", "two", "twin"),
        targets_file=file,
        budgets=("3trials",),
        space=str(SPACE),
        imgsz=32,
        epochs=1,
        training=("batch=16", "nbs=16"),
        runner="local",
        inherit=False,
    )


@pytest.fixture
def one_target(two_targets: SearchConfig) -> SearchConfig:
    return replace(two_targets, targets=two_targets.targets[:1])


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Puts a fault on the way to every device."""

    def install(happen: Fault) -> None:
        done: dict[tuple[str, str], int] = {}

        def perform(target: Target, job: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
            key = target.name, job["action"]
            done[key] = done.get(key, 0) + 1
            happen(target, job["action"], done[key] - 1)
            return local.perform(target, job, files)

        monkeypatch.setattr(latency, "connection", lambda target: perform)

    return install


@pytest.fixture
def not_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = tuple(policy for policy in POLICIES if policy is not validate.finalists)
    monkeypatch.setattr("nas_yolo.planning.POLICIES", policies)


@pytest.mark.usefixtures("not_validated")
def test_one_training_serves_all_targets_and_each_has_a_front(
    run: Run, repository: Repository, two_targets: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas_yolo.planning.confirm.FINAL_SESSIONS", 3)
    search = repository.create_search("one", two_targets.document())
    at_once: list[int] = []
    trials = run(repository, search, lambda now: at_once.append(sum(kind == "measure" for kind, _ in now.running)))
    assert 1 <= max(at_once) <= 2  # one for each device, set up in one way
    assert len(trials) == 3
    marks = {}
    for trial in trials:
        assert trial.state == "complete"
        assert len(trial.epochs) == 1
        assert set(trial.latencies) == {"cpu", "two", "twin"}
        marks = {name: one.fingerprint for name, one in trial.latencies.items()}
        # The same device, set up in the same way, under another name: measured once.
        assert trial.latencies["twin"] == replace(trial.latencies["cpu"], target="twin")
    assert marks["cpu"] == marks["twin"] != marks["two"]
    document = front_document(search, two_targets, trials, repository.spent(search))
    assert set(document["trust"]["verdicts"]) == {"cpu", "two", "twin"}
    for target in ("cpu", "two"):
        members = front_trials(trials, target)
        assert members
        for trial in [*members, *baselines(trials, two_targets)]:
            assert trial.latencies[target].sessions == 3  # finalists


@pytest.mark.usefixtures("trainings_only")
def test_a_device_that_is_away_for_a_while_holds_nothing_up_and_is_measured_on_later(
    run: Run,
    repository: Repository,
    one_target: SearchConfig,
    fault: Callable[[Fault], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def twice(target: Target, action: str, done: int) -> None:
        if action == "measure" and latency.CALIBRATION_SESSIONS < done <= latency.CALIBRATION_SESSIONS + 2:
            raise LatencyError("unreachable", "no route to host")

    monkeypatch.setattr(devices, "FIRST_PAUSE_S", 0.05)
    fault(twice)
    away: list[Mapping[str, str]] = []
    search = repository.create_search("one", one_target.document())
    trials = run(repository, search, lambda snapshot: away.append(snapshot.away))
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert {"cpu": "no route to host"} in away
    assert away[-1] == {}
    failures = [failure for trial in trials for failure in trial.failures]
    assert [(failure.cause, failure.target) for failure in failures] == [("unreachable", "cpu")] * 2
    assert all(trial.latencies["cpu"].latency_ms > 0 for trial in trials)


@pytest.mark.usefixtures("trainings_only")
def test_a_device_that_stays_away_ends_the_search_and_loses_nothing(
    run: Run,
    repository: Repository,
    one_target: SearchConfig,
    fault: Callable[[Fault], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def from_the_second_trial_on(target: Target, action: str, done: int) -> None:
        if action == "measure" and done > latency.CALIBRATION_SESSIONS:
            raise LatencyError("unreachable", "no route to host")

    monkeypatch.setattr(devices, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(devices, "GIVE_UP_S", 1.0)
    fault(from_the_second_trial_on)
    search = repository.create_search("one", one_target.document())
    with pytest.raises(SearchError, match=r"^target cpu is away: no route to host; nothing is lost.*resume one$"):
        run(repository, search)
    trials = repository.trials(search)
    assert [trial.state for trial in trials] == ["complete", "new"]  # what could be measured was trained

    fault(lambda target, action, done: None)
    assert [trial.state for trial in run(repository, search)] == ["complete"] * 3


@pytest.mark.usefixtures("trainings_only")
def test_a_device_that_changed_stops_the_search_and_nothing_is_blended(
    run: Run,
    repository: Repository,
    one_target: SearchConfig,
    fault: Callable[[Fault], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It began with an earlier nas-yolo, which stored all that a program printed.
    target, identity = one_target.targets[0][0], latency.identity_of
    stored = one_target.identities["cpu"] | {"power_mode": "NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0"}
    begun = replace(one_target, targets=((target, latency.fingerprint_of(stored)),), identities={"cpu": stored})
    search = repository.create_search("one", begun.document())

    def tells(**more: Any) -> None:
        monkeypatch.setattr(latency, "identity_of", lambda target, said: identity(target, said) | more)

    def changes(target: Target, action: str, done: int) -> None:
        if action == "measure" and done == latency.CALIBRATION_SESSIONS + 1:
            tells(power_mode="15W")

    tells(power_mode="MAXN")
    fault(changes)
    with pytest.raises(SearchError, match=r"^target cpu is not .* \(power_mode was MAXN, is 15W\).*resume one"):
        run(repository, search)
    before = repository.trials(search)
    assert sum(bool(trial.latencies) for trial in before) == 1
    with pytest.raises(UserError, match=r"'cpu' is not what it was.*power_mode was MAXN, is 15W"):
        check_targets(search)
    tells()
    with pytest.raises(
        UserError, match=r"does not tell the same .*\(power_mode was MAXN, is not told now\), so whether"
    ):
        check_targets(search)

    tells(power_mode="MAXN")
    check_targets(search)
    trials = run(repository, search)
    assert {one.fingerprint for trial in trials for one in trial.latencies.values()} == {begun.targets[0][1]}


@pytest.mark.usefixtures("trainings_only")
def test_networks_that_hang_fail_alone_once_the_reference_showed_that_the_device_is_well(
    run: Run, repository: Repository, one_target: SearchConfig, fault: Callable[[Fault], None]
) -> None:
    calls: list[str] = []

    def second_trial_hangs(target: Target, action: str, done: int) -> None:
        if action == "measure":
            at = done - latency.CALIBRATION_SESSIONS
            calls.append("hang" if at in (1, 2) else "ok")
            if at in (1, 2):
                raise LatencyError("timeout", "measuring did not end within 120 s")

    fault(second_trial_hangs)
    search = repository.create_search("one", one_target.document())
    trials = run(repository, search)
    assert [trial.state for trial in trials] == ["complete", "failed", "complete"]
    assert trials[1].reason == "timeout: measuring did not end within 120 s"
    assert calls.count("hang") == 2
    assert calls[: latency.CALIBRATION_SESSIONS + 1] == ["ok"] * (latency.CALIBRATION_SESSIONS + 1)
    assert calls[latency.CALIBRATION_SESSIONS + 3] == "ok"  # the reference, before the third


@pytest.mark.usefixtures("trainings_only")
@pytest.mark.parametrize("exclusive", [True, False])
def test_what_was_measured_while_an_exclusive_device_was_slow_is_measured_again(
    run: Run,
    repository: Repository,
    one_target: SearchConfig,
    monkeypatch: pytest.MonkeyPatch,
    exclusive: bool,
) -> None:
    """The reference seems 10 % slow with the second trial, then 20 %."""
    real, judge = latency.time_files, latency._latency

    def judged(*arguments: Any) -> Latency:  # a machine that runs tests is too busy to be measured on as exclusive
        found = judge(*arguments)
        return replace(found, conditions={**found.conditions, "exclusive": exclusive})

    monkeypatch.setattr(latency, "_latency", judged)
    slow = iter([*[1.0] * latency.CALIBRATION_SESSIONS, 1.0, 1.1, 1.2])

    def drifting(*arguments: Any) -> latency.Session:
        session = real(*arguments)
        return session.model_copy(update={"reference_ms": 1.0 * next(slow, 1.0)})

    monkeypatch.setattr(latency, "time_files", drifting)
    monkeypatch.setattr("evaluators.measurement.time_files", drifting)
    monkeypatch.setattr(latency, "DRIFTED", 0.05)
    monkeypatch.setattr(latency, "OFF", 0.15)
    monkeypatch.setattr(latency, "RETRIES", 0)
    search = repository.create_search("one", one_target.document())
    trials = run(repository, search)
    assert [trial.state for trial in trials] == ["complete"] * 3
    classes = len(one_target.dataset.names)
    found = {
        trial.number: [
            (one.quality, one.flags)
            for one in repository.sessions(trial.architecture, classes, 32, one_target.targets[0][1])
        ]
        for trial in trials
    }
    assert found[2][0] == ("noisy", ("off_calibration",))
    if not exclusive:
        assert found[1] == [("good", ("drifted",))]
        return
    assert found[1][0] == ("invalid", ("drifted",))
    assert ("good", ()) in found[1]  # once more
    for trial in trials:
        assert "drifted" not in trial.latencies["cpu"].flags


def test_the_exported_files_of_finalists_are_validated_in_the_end(
    run: Run, repository: Repository, one_target: SearchConfig
) -> None:
    search = repository.create_search("one", replace(one_target, budgets=(parse_budget("1trials"),)).document())
    (trial,) = run(repository, search)
    deployed = trial.deployed["cpu"]
    assert (deployed.target, deployed.fingerprint, deployed.precision) == ("cpu", one_target.targets[0][1], "fp32")
    assert (deployed.images, deployed.epochs) == (one_target.dataset.val_images, 1)
    assert deployed.map50_95 == pytest.approx(deployed.torch_map50_95, abs=0.002)

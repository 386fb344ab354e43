from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from evaluators.evaluation import Complexity, DeployedAccuracy, Epoch, Failure, Latency, LibraryEntry
from evaluators.latency import Calibration
from search_spaces.image_size import ImageSize
from search_spaces.presets import load_preset
from storage import (
    Job,
    Repository,
    Search,
    SearchBusyError,
    SearchExistsError,
    SearchNotFoundError,
    Spent,
    StorageError,
)
from storage.events import (
    AssemblyScored,
    AttemptFailed,
    EntryMade,
    EpochEnded,
    JobEnded,
    JobStarted,
    LatencyMeasured,
    Sized,
)
from storage.state import fold

STOCK, GHOST = load_preset("yolov8n"), load_preset("yolov8n-ghost")
CONFIG: dict[str, Any] = {
    "targets": [{"name": "cpu", "fingerprint": "aaaa"}],
    "dataset": {"names": ["cat", "dog"]},
    "imgsz": 96,
}


def latency(ms: float, fingerprint: str = "aaaa", quality: Any = "good", imgsz: int = 96) -> Latency:
    return Latency(
        "cpu", fingerprint, ImageSize(imgsz, imgsz), ms, ms, ms, 1.0, ms, ms, None, 100, 0.0, None, quality, ("drift",)
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres")
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
    repository = Repository(url)
    yield repository
    repository.close()


@pytest.fixture
def search(repository: Repository) -> Search:
    return repository.create_search("one", CONFIG)


def test_a_trial_comes_back_with_everything_measured(repository: Repository, search: Search, by_hand: Any) -> None:
    rows = by_hand(repository, search)
    rows.trial(0, STOCK, "preset:yolov8n")
    complexity = Complexity(3_000_000, 8.1, 2_900_000, 8.0, 225)
    epochs = (Epoch(1, 0.1, 0.2, 5.0, 3.0), Epoch(2, 0.15, 0.3, 4.0, 2.0))
    failure = Failure("crash", "the worker died", "traceback")
    rows.record(Sized(0, complexity), *(EpochEnded(0, epoch) for epoch in epochs), AttemptFailed(0, failure))
    rows.record(LatencyMeasured(0, latency(1.5)))
    rows.move(0, "ready", "training", "paused")

    again = Repository(repository.url)
    (found,) = again.trials(again.search("one"))
    again.close()

    assert found.architecture == STOCK
    assert found.complexity == complexity
    assert found.epochs == epochs
    assert found.latencies == {"cpu": latency(1.5)}
    assert found.failures == (failure,)
    assert (found.number, found.origin, found.state, found.reason) == (0, "preset:yolov8n", "paused", "")


def test_a_library_comes_back_with_what_failed_and_nothing_of_it_counts_twice(
    repository: Repository, search: Search, by_hand: Any
) -> None:
    first = [LibraryEntry("P3.block", "Conv", 1, 0.2, 3.0), LibraryEntry("P3.block", "Conv", 2, None, 0.0, "no form")]
    scores = [AssemblyScored(STOCK, 0.3, 1.0), AssemblyScored(GHOST, None, 0.5, "ValueError: wide")]
    by_hand(repository, search).record(*map(EntryMade, first), *scores)
    again = [EntryMade(LibraryEntry("P3.block", "Conv", 1, 0.9, 9.0)), AssemblyScored(STOCK, 0.9, 9.0)]
    written = by_hand(repository, search).record(*again)
    state = repository.state(search)
    assert state == written
    assert list(state.entries.values()) == first
    assert [(one.architecture, one.map50_95, one.problem) for one in state.assemblies] == [
        (STOCK, 0.3, ""),
        (GHOST, None, "ValueError: wide"),
    ]
    assert state.library_seconds == 4.5
    folded = fold(one.event for one in repository.events(search))
    assert (folded.entries, folded.assemblies) == (state.entries, state.assemblies)


def test_two_searches_have_libraries_of_their_own(repository: Repository, search: Search, by_hand: Any) -> None:
    other = repository.create_search("other", search.config)
    entry, score = EntryMade(LibraryEntry("pooling", "-", 1, 0.2, 3.0)), AssemblyScored(STOCK, 0.3, 1.0)
    for one in (search, other):
        by_hand(repository, one).record(entry, score)
        assert len(repository.state(one).entries) == len(repository.state(one).assemblies) == 1


def test_an_epoch_cannot_be_recorded_twice(repository: Repository, search: Search, by_hand: Any) -> None:
    rows = by_hand(repository, search)
    rows.trial(0, STOCK, "preset:yolov8n")
    for value in (0.1, 0.9):
        rows.record(EpochEnded(0, Epoch(1, value, 0.2, 5.0, 3.0)))

    assert repository.trials(search)[0].epochs == (Epoch(1, 0.1, 0.2, 5.0, 3.0),)


def test_a_latency_counts_only_under_the_same_conditions(repository: Repository, search: Search) -> None:
    repository.add_latency(GHOST, 2, latency(1.2))
    repository.add_latency(GHOST, 2, latency(9.9, quality="noisy"))

    assert repository.find_latency(GHOST, 2, ImageSize(96, 96), "aaaa") == latency(1.2)
    assert repository.find_latency(GHOST, 3, ImageSize(96, 96), "aaaa") is None
    assert repository.find_latency(GHOST, 2, ImageSize(128, 128), "aaaa") is None
    assert repository.find_latency(GHOST, 2, ImageSize(96, 96), "bbbb") is None
    assert repository.find_latency(STOCK, 2, ImageSize(96, 96), "aaaa") is None


def test_a_search_does_not_see_latencies_of_other_conditions(
    repository: Repository, search: Search, by_hand: Any
) -> None:
    by_hand(repository, search).trial(0, GHOST, "preset:yolov8n-ghost")
    repository.add_latency(GHOST, 2, latency(5.0, fingerprint="bbbb"))
    repository.add_latency(GHOST, 2, latency(6.0, imgsz=640))
    repository.add_latency(GHOST, 80, latency(7.0))

    assert repository.trials(search)[0].latencies == {}


def test_what_was_measured_at_a_size_that_is_not_square_is_its_own(repository: Repository, by_hand: Any) -> None:
    wide, high, square = ImageSize(96, 64), ImageSize(64, 96), ImageSize(96, 96)
    search = repository.create_search("wide", CONFIG | {"imgsz": wide.plain})
    by_hand(repository, search).trial(0, STOCK, "preset:yolov8n")
    for ms, size in ((3.0, square), (2.0, wide), (1.0, high)):
        repository.add_latency(STOCK, 2, replace(latency(ms), imgsz=size))
        repository.add_calibration(Calibration("aaaa", size, ms, 0.01))
    assert repository.trials(search)[0].latencies == {"cpu": replace(latency(2.0), imgsz=wide)}
    assert [repository.calibration("aaaa", size) for size in (wide, high)] == [
        Calibration("aaaa", wide, 2.0, 0.01),
        Calibration("aaaa", high, 1.0, 0.01),
    ]


def test_the_ledger_adds_up(repository: Repository, search: Search, by_hand: Any) -> None:
    by_hand(repository, search).trial(0, STOCK, "preset:yolov8n")
    session, training = Job("session", "session", "session", 0.0), Job("train 0", "train", "train", 10.0, 0, "", 0.5, 2)
    with repository.claimed(other := repository.create_search("two", CONFIG)) as claim:
        repository.journal(other, claim).record([JobStarted(session), JobEnded("session", 1000.0)], 1000.0)
    with repository.claimed(search) as claim:
        journal = repository.journal(search, claim)
        journal.record([JobStarted(session), JobStarted(training)], 10.0)
        for now_s in (20.0, 40.0):
            journal.charge(now_s)
        assert repository.spent(search) == journal.state.spent_at(40.0) == Spent(40, 15, 60)
        journal.record([JobEnded("train 0", 40.0), JobEnded("session", 60.0)], 60.0)
    assert repository.spent(search) == repository.state(search).spent == Spent(60, 20, 80)


def test_calibration_is_kept_and_replaced(repository: Repository) -> None:
    assert repository.calibration("aaaa", ImageSize(96, 96)) is None
    repository.add_calibration(Calibration("aaaa", ImageSize(96, 96), 2.0, 0.01))
    repository.add_calibration(Calibration("aaaa", ImageSize(96, 96), 2.5, 0.02))
    assert repository.calibration("aaaa", ImageSize(96, 96)) == Calibration("aaaa", ImageSize(96, 96), 2.5, 0.02)


def test_what_was_measured_is_given_anew_when_the_reference_is_calibrated_again(
    repository: Repository, search: Search, by_hand: Any
) -> None:
    by_hand(repository, search).trial(0, GHOST, "preset:yolov8n-ghost")
    measured = replace(latency(3.0), ratio=1.5, reference_ms=2.0, ci_low_ms=2.8, ci_high_ms=3.2, median_ms=3.3)
    repository.add_latency(GHOST, 2, measured)
    repository.add_latency(GHOST, 2, replace(measured, fingerprint="bbbb"))
    repository.add_latency(GHOST, 2, replace(measured, imgsz=ImageSize(128, 128)))

    repository.add_calibration(Calibration("aaaa", ImageSize(96, 96), 2.5, 0.02))

    found = repository.trials(search)[0].latencies["cpu"]
    assert (found.latency_ms, found.ci_low_ms, found.ci_high_ms) == pytest.approx((3.75, 3.5, 4.0))
    assert (found.reference_ms, found.ratio, found.median_ms) == (2.5, 1.5, 3.3)  # ratio and raw time are as they were
    assert repository.find_latency(GHOST, 2, ImageSize(96, 96), "bbbb") == replace(measured, fingerprint="bbbb")
    assert repository.find_latency(GHOST, 2, ImageSize(128, 128), "aaaa") == replace(
        measured, imgsz=ImageSize(128, 128)
    )


def test_sessions_of_one_network_are_combined(repository: Repository, search: Search, by_hand: Any) -> None:
    by_hand(repository, search).trial(0, GHOST, "preset:yolov8n-ghost")
    for ms, quality in ((3.0, "good"), (9.0, "noisy"), (3.2, "good"), (50.0, "invalid"), (3.1, "good")):
        repository.add_latency(GHOST, 2, latency(ms, quality=quality))

    found = repository.trials(search)[0].latencies["cpu"]
    assert (found.latency_ms, found.sessions, found.samples) == (3.1, 3, 300)
    assert (found.ci_low_ms, found.ci_high_ms) == pytest.approx((3.0, 3.2))
    assert repository.find_latency(GHOST, 2, ImageSize(96, 96), "aaaa") == found


def test_a_network_that_was_never_measured_well_has_the_noisy_latency_or_none(
    repository: Repository, search: Search, by_hand: Any
) -> None:
    by_hand(repository, search).trial(0, GHOST, "preset:yolov8n-ghost", state="ready")
    repository.add_latency(GHOST, 2, latency(50.0, quality="invalid"))
    assert repository.trials(search)[0].latencies == {}
    repository.add_latency(GHOST, 2, latency(9.0, quality="noisy"))
    assert repository.trials(search)[0].latencies == {"cpu": latency(9.0, quality="noisy")}
    assert repository.find_latency(GHOST, 2, ImageSize(96, 96), "aaaa") is None


def test_one_device_under_two_names_is_measured_once(repository: Repository, by_hand: Any) -> None:
    names = [{"name": name, "fingerprint": "aaaa"} for name in ("cpu", "desk")]
    search = repository.create_search("two names", CONFIG | {"targets": names})
    by_hand(repository, search).trial(0, GHOST, "preset:yolov8n-ghost")
    repository.add_latency(GHOST, 2, latency(1.5))

    assert repository.trials(search)[0].latencies == {
        "cpu": latency(1.5),
        "desk": replace(latency(1.5), target="desk"),
    }


def test_what_was_measured_since_a_device_began_to_drift_is_taken_back(repository: Repository) -> None:
    def measured(ms: float, *flags: str) -> None:
        repository.add_latency(GHOST, 2, replace(latency(ms), flags=flags))

    def good() -> Any:
        found = repository.find_latency(GHOST, 2, ImageSize(96, 96), "aaaa")
        return found and (found.latency_ms, found.sessions)

    measured(9.0, "drifted")  # long ago: the device came back from it
    measured(3.0)
    repository.add_latency(GHOST, 2, replace(latency(7.0, fingerprint="bbbb"), flags=("drifted",)))
    measured(4.0, "drifted")
    measured(6.0, "drifted")
    measured(5.0, "off_calibration")

    assert good() == (5.0, 3)  # of 9, 3 and 5
    other = repository.find_latency(GHOST, 2, ImageSize(96, 96), "bbbb")
    assert other
    assert other.latency_ms == 7.0


def test_the_newest_deployed_accuracy_of_each_target_comes_back(
    repository: Repository, search: Search, by_hand: Any
) -> None:
    by_hand(repository, search).trial(0, STOCK, "preset:yolov8n")
    by_hand(repository, search).trial(1, STOCK, "repeat:0")
    old = DeployedAccuracy("nano", "cccc", "int8", 3, 128, 0.30, 0.50, 0.40, 0.60)
    new, other = replace(old, epochs=9, map50_95=0.35), replace(old, target="cpu", precision="fp32", map50_95=0.40)
    for accuracy in (old, other, new):
        repository.add_deployed(search, 0, accuracy)

    found = repository.trials(search)
    assert found[0].deployed == {"nano": new, "cpu": other}
    assert found[1].deployed == {}


def test_names_are_unique(repository: Repository, search: Search) -> None:
    with pytest.raises(SearchExistsError, match="nas-yolo resume one"):
        repository.create_search("one", CONFIG)
    assert [found.name for found in repository.searches()] == ["one"]


def test_an_unknown_name_is_answered_with_the_nearest(repository: Repository, search: Search) -> None:
    with pytest.raises(SearchNotFoundError, match="did you mean 'one'"):
        repository.search("onne")


def test_an_architecture_is_tried_once_in_a_search(repository: Repository, search: Search, by_hand: Any) -> None:
    by_hand(repository, search).trial(0, STOCK, "preset:yolov8n")
    with pytest.raises(Exception, match=r"(?i)unique"):
        by_hand(repository, search).trial(1, STOCK, "sampler:tpe")
    assert len(repository.trials(search)) == 1


def test_a_repeat_has_the_architecture_and_the_latency_of_another_trial(
    repository: Repository, search: Search, by_hand: Any
) -> None:
    first = by_hand(repository, search).trial(0, STOCK, "preset:yolov8n")
    repository.add_latency(STOCK, 2, latency(1.5))
    for number in (1, 2):
        by_hand(repository, search).trial(number, STOCK, "repeat:0")
    assert first.repeat_of is None
    assert [trial.repeat_of for trial in repository.trials(search)] == [None, 0, 0]
    assert [trial.latencies["cpu"].latency_ms for trial in repository.trials(search)] == [1.5] * 3


def write_old_tables(url: str, revision: str) -> None:
    """The tables of an earlier version, with a search of one trial."""
    from alembic import command
    from alembic.config import Config

    import storage

    config = Config()
    config.set_main_option("script_location", str(Path(storage.__file__).parent / "migrations"))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    at = "2026-01-01 00:00:00.000000"
    given = {"at": at, "key": STOCK.key, "document": STOCK.document, "config": json.dumps(CONFIG), "flags": '["drift"]'}
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO nas_searches VALUES (1, 'one', :at, 'done', :config, NULL, NULL)",
            "INSERT INTO nas_architectures VALUES (:key, 'yolov8', :document)",
            "INSERT INTO nas_trials (id, search_id, number, architecture_key, origin, state, reason, created_at, "
            "updated_at) VALUES (7, 1, 0, :key, 'preset:yolov8n', 'complete', '', :at, :at)",
            "INSERT INTO nas_epochs VALUES (7, 1, 0.1, 0.2, 5.0, 3.0, :at)",
            "INSERT INTO nas_latencies (architecture_key, classes, imgsz, fingerprint, target, latency_ms, "
            "ci_low_ms, ci_high_ms, ratio, reference_ms, median_ms, samples, drift, quality, flags, measured_at) "
            "VALUES (:key, 2, 96, 'aaaa', 'cpu', 1.5, 1.5, 1.5, 1.0, 1.5, 1.5, 100, 0.0, 'good', :flags, :at)",
            "INSERT INTO nas_calibrations VALUES ('aaaa', 96, 1.5, 0.01, :at)",
        ):
            connection.execute(text(statement), given)
    engine.dispose()


def test_a_database_of_the_first_revision_is_brought_up_to_date_with_all_it_holds(tmp_path: Path, by_hand: Any) -> None:
    write_old_tables(f"sqlite:///{tmp_path / 'old.db'}", "0002")

    repository = Repository(f"sqlite:///{tmp_path / 'old.db'}")
    search = repository.search("one")
    (trial,) = repository.trials(search)
    assert (trial.architecture, trial.epochs) == (STOCK, (Epoch(1, 0.1, 0.2, 5.0, 3.0),))
    by_hand(repository, search).trial(1, STOCK, "repeat:0")
    stray = JobStarted(Job("train 99", "train", "train", 0.0))
    with repository.claimed(search) as claim:
        journal = repository.journal(search, claim)
        journal._ids[99] = 99  # of no trial
        with pytest.raises(Exception, match=r"(?i)foreign key"):  # they hold again
            journal.record([JobStarted(replace(stray.job, trial=99))], 0.0)
    repository.close()


def test_latencies_from_before_conditions_were_recorded_are_kept(repository: Repository) -> None:
    repository.close()
    engine = create_engine(repository.url)
    with engine.begin() as connection:
        from storage.tables import Base

        Base.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE nas_yolo_version"))
    engine.dispose()
    write_old_tables(repository.url, "0003")

    again = Repository(repository.url)
    (trial,) = again.trials(again.search("one"))
    assert trial.latencies == {"cpu": latency(1.5)}
    assert trial.latencies["cpu"].conditions == {}
    assert again.find_latency(STOCK, 2, ImageSize(96, 96), "aaaa") == latency(1.5)
    assert again.calibration("aaaa", ImageSize(96, 96)) == Calibration("aaaa", ImageSize(96, 96), 1.5, 0.01)
    again.add_latency(STOCK, 2, replace(latency(1.6), conditions={"first_ms": 9.0}))
    assert again.trials(again.search("one"))[0].latencies["cpu"].conditions == {"first_ms": 9.0}
    again.close()


def test_a_second_process_is_refused(repository: Repository, search: Search) -> None:
    with repository.claimed(search):
        assert repository.is_claimed(search)
        with pytest.raises(SearchBusyError, match=f"process {os.getpid()}"), repository.claimed(search):
            pass
    assert not repository.is_claimed(search)


def test_the_claim_of_a_killed_process_is_void(repository: Repository, search: Search) -> None:
    code = (
        "import os, signal\n"
        "from storage import Repository\n"
        f"r = Repository({repository.url!r})\n"
        "with r.claimed(r.search('one')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with repository.claimed(search):
        pass


def test_another_hosts_claim_holds_while_its_heart_beats(repository: Repository, search: Search) -> None:
    def set_owner(age: str) -> None:
        engine = create_engine(repository.url)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE nas_searches SET owner = :owner, heartbeat_at = :at"),
                {"owner": json.dumps(["elsewhere", 1, 0.0]), "at": age},
            )
        engine.dispose()

    set_owner("2999-01-01 00:00:00.000000")
    with pytest.raises(SearchBusyError, match="on elsewhere"), repository.claimed(search):
        pass
    set_owner("2020-01-01 00:00:00.000000")
    with repository.claimed(search):
        pass


def test_a_database_of_a_newer_version_is_refused(repository: Repository) -> None:
    engine = create_engine(repository.url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE nas_yolo_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StorageError, match="newer nas-yolo"):
        Repository(repository.url)


def test_a_database_whose_designs_have_another_form_is_refused_and_left_alone(repository: Repository) -> None:
    engine = create_engine(repository.url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE nas_yolo_version SET version_num = '0001'"))
    with pytest.raises(StorageError, match="move it away, it stays as it is, or choose another --storage"):
        Repository(repository.url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM nas_yolo_version")) == "0001"
    engine.dispose()


def test_migrations_make_the_tables_that_the_code_uses(repository: Repository) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from storage.tables import Base

    engine = create_engine(repository.url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "nas_yolo_version"})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_that_the_code_asks_for() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import storage
    from storage.repository import REVISION

    config = Config()
    config.set_main_option("script_location", str(Path(storage.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "sqlite:///search.db"),
        ("bogus://host/base", "is not usable"),
        ("sqlite:////no/such/folder/search.db", "cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_opened(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        Repository(url)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "search.db"
    file.write_text("this is not a database" * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        Repository(f"sqlite:///{file}")


def test_a_password_is_not_shown() -> None:
    from sqlalchemy.engine import make_url

    repository = Repository.__new__(Repository)
    repository.url = "postgresql+psycopg://me:secret@host/base"
    assert make_url(repository.url).password == "secret"
    assert "secret" not in repository.shown_url


def test_processes_that_create_the_same_database_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    code = (
        f"from storage import Repository; Repository({url!r}).create_search('x' + str(__import__('os').getpid()), {{}})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert len(Repository(url).searches()) == 4

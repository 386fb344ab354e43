"""The whole loop with real trainings, real (if brief) latencies and a real database, in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from evaluators.complexity import predict_size
from evaluators.latency import Calibration, fingerprint
from evaluators.target import get_target
from nas_yolo.application import make_config
from nas_yolo.budget import parse_budget
from nas_yolo.cli import main
from nas_yolo.config import SearchConfig
from nas_yolo.design_files import design_of, write_yaml
from nas_yolo.driver import SearchError
from nas_yolo.objective import LimitError, parse_limit
from nas_yolo.planning import decide
from nas_yolo.planning.actions import events_of
from nas_yolo.results import front_document, front_trials
from nas_yolo.samplers import Assembled, Observation
from nas_yolo.samplers.frontier import Frontier
from nas_yolo.snapshot import Snapshot
from nas_yolo.strategy import context_of
from search_spaces import Architecture
from search_spaces.image_size import ImageSize, chosen_size
from search_spaces.model_file import read_model
from search_spaces.presets import load_preset
from storage import Repository, Search, Trial
from storage.events import BudgetsSet, PhaseEntered
from storage.state import fold

SPACE = Path(__file__).parent / "space.yaml"
pytestmark = pytest.mark.usefixtures("quick_probe", "trainings_only")

TRAINING = ("batch=16", "nbs=16", "optimizer=AdamW", "lr0=0.003")


@pytest.fixture
def repository(database: str) -> Repository:
    opened = Repository(database)
    # The reference's time was measured, once, on some machine; the ratio to it is measured here.
    opened.add_calibration(Calibration(fingerprint(get_target("cpu")), ImageSize(32, 32), 0.8, 0.01))
    return opened


@pytest.fixture
def config(few_digits: Path) -> SearchConfig:
    return make_config(
        data=str(few_digits),
        targets=("cpu",),
        budgets=("4trials",),
        space=str(SPACE),
        imgsz=32,
        epochs=4,
        training=TRAINING,
        runner="local",
        inherit=False,
    )


Run = Callable[..., list[Trial]]


@pytest.fixture
def run(run: Run, repository: Repository) -> Run:
    return partial(run, repository)


def test_a_search_measures_trains_and_completes(
    repository: Repository, config: SearchConfig, run: Run, tmp_path: Path
) -> None:

    search = repository.create_search("one", config.document())
    seen: list[Snapshot] = []
    trials = run(search, seen.append)

    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert trials[0].origin == "preset:yolov8n"
    assert {trial.origin for trial in trials[1:]} == {"sampler:frontier"}
    assert len({trial.architecture.key for trial in trials}) == 4
    for trial in trials:
        assert trial.complexity is not None
        assert trial.latencies["cpu"].latency_ms > 0
        assert [epoch.epoch for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
        assert (trial.state == "complete") == (len(trial.epochs) == 4)
        file = tmp_path / f"{trial.number}.yaml"
        write_yaml(design_of("one", config, trial), file)
        model = read_model(str(file)).build()
        assert sum(parameter.numel() for parameter in model.parameters()) == trial.complexity.params
    assert trials[0].state == "complete"  # the stock model, to compare with
    assert sum(trial.state == "complete" for trial in trials) >= 2
    assert repository.search("one").state == "done"
    assert seen[0].phase == "preparing"
    assert seen[-1].phase == "done"
    spent = repository.spent(search)
    assert spent.wall_seconds >= sum(epoch.seconds for trial in trials for epoch in trial.epochs)
    assert spent.cpu_seconds > 0
    assert spent.gpu_seconds == 0


def test_a_stopped_search_goes_on_and_ends_like_an_uninterrupted_one(
    repository: Repository, config: SearchConfig, run: Run, tmp_path: Path
) -> None:
    config = replace(config, warm_start=False)  # neither learns from the other
    straight = run(repository.create_search("straight", config.document()))
    broken = repository.create_search("broken", config.document())
    changes = interruptions = 0
    seen: object = None

    def interrupt(snapshot: Snapshot) -> None:  # by what happened, not by time: a busy machine gets on as well
        nonlocal changes, interruptions, seen
        now = [(trial.state, len(trial.epochs)) for trial in snapshot.trials]
        changes += now != seen
        if now != seen and changes % 4 == 0:
            interruptions += 1
            raise KeyboardInterrupt
        seen = now

    before: list[Trial] = []
    for _ in range(30):
        for trial in before:  # what is there stays as it is
            after = repository.trials(broken)[trial.number]
            assert after.epochs[: len(trial.epochs)] == trial.epochs
        try:
            run(broken, interrupt)
            break
        except KeyboardInterrupt:
            assert repository.search("broken").state == "stopped"
            before = repository.trials(broken)
            assert all(trial.state not in ("measuring", "training") for trial in before)
    assert interruptions >= 3

    ended = repository.trials(broken)
    assert [trial.architecture for trial in ended] == [trial.architecture for trial in straight]
    for one, other in zip(straight, ended, strict=True):
        shared = min(len(one.epochs), len(other.epochs))
        assert shared >= 1
        for a, b in zip(one.epochs[:shared], other.epochs[:shared], strict=True):
            assert (a.epoch, a.map50_95, a.map50, a.loss) == (b.epoch, b.map50_95, b.map50, b.loss)


def test_a_training_that_dies_is_recorded_and_the_search_goes_on(
    repository: Repository, config: SearchConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators.accuracy.trainer import ProxyTrainer

    build = ProxyTrainer.setup_model

    def die_on_second(self: ProxyTrainer) -> None:
        if self.request.checkpoint.parent.name == "00001":
            raise RuntimeError("out of luck")
        build(self)

    monkeypatch.setattr(ProxyTrainer, "setup_model", die_on_second)
    trials = run(repository.create_search("one", replace(config, epochs=1).document()))

    assert trials[1].state == "failed"
    assert trials[1].reason == "error: RuntimeError: out of luck"
    assert "die_on_second" in trials[1].failures[0].detail
    assert trials[0].state == "complete"
    assert len(trials) == 4


def test_a_search_in_which_every_training_dies_ends_with_the_cause(
    repository: Repository, config: SearchConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators.accuracy.trainer import ProxyTrainer

    def die(self: ProxyTrainer) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(ProxyTrainer, "setup_model", die)
    config = replace(
        config, budgets=make_config(data=config.dataset.file, targets=("cpu",), budgets=("50trials",)).budgets
    )
    with pytest.raises(SearchError, match=r"first 5 trials all failed.*no such luck"):
        run(repository.create_search("one", config.document()))


def test_limits_on_size_are_kept_by_every_proposal_but_the_stock_model(
    repository: Repository, few_digits: Path, config: SearchConfig, run: Run
) -> None:
    rng = np.random.default_rng(0)
    drawn = [config.space.architecture(config.space.sample(rng)) for _ in range(200)]
    sizes = sorted({predict_size(architecture, 10, ImageSize(32, 32)).params for architecture in drawn})
    limit = sizes[len(sizes) // 3]
    limited = make_config(
        data=str(few_digits),
        targets=("cpu",),
        budgets=("6trials",),
        space=str(SPACE),
        imgsz=32,
        epochs=1,
        limits=(f"params<={limit}",),
        training=TRAINING,
        runner="local",
        inherit=False,
    )
    trials = run(repository.create_search("one", limited.document()))
    assert len(trials) == 6
    assert {trial.state for trial in trials} == {"complete"}  # nothing over the limit became a trial
    stock, *others = [trial.complexity.params for trial in trials if trial.complexity]
    assert trials[0].preset == "yolov8n"
    assert stock > limit
    assert max(others) <= limit < sizes[-1]


def test_limits_on_latency_reject_before_training_but_never_the_stock_model(
    repository: Repository, config: SearchConfig, run: Run
) -> None:
    config = replace(config, epochs=1, limits=(parse_limit("latency_ms<=0.000001"),))
    trials = run(repository.create_search("one", config.document()))
    assert trials[0].state == "complete"
    for trial in trials[1:]:
        assert trial.state == "rejected"
        assert "latency_ms on cpu is" in trial.reason
        assert trial.epochs == ()


@pytest.mark.parametrize("limit", ["params<=1000", "params_m<=0.001", "gflops<=0.0001"])
def test_a_limit_that_nothing_keeps_is_refused_before_anything_runs(few_digits: Path, limit: str) -> None:
    with pytest.raises(LimitError, match=rf"--limit {limit} leaves nothing of space .*space\.yaml"):
        make_config(
            data=str(few_digits),
            targets=("cpu",),
            budgets=("3trials",),
            space=str(SPACE),
            imgsz=32,
            limits=(limit,),
            runner="local",
        )


def test_a_search_at_a_size_that_is_not_square_trains_measures_exports_and_validates_at_it(
    repository: Repository, config: SearchConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators.accuracy.trainer import ProxyTrainer

    shapes: set[tuple[int, ...]] = set()
    prepare = ProxyTrainer.preprocess_batch

    def note(self: ProxyTrainer, batch: Any) -> Any:
        prepared = prepare(self, batch)
        shapes.add(tuple(prepared["img"].shape[1:]))
        return prepared

    monkeypatch.setattr(ProxyTrainer, "preprocess_batch", note)
    wide = ImageSize(96, 64)
    config = replace(config, imgsz=wide, epochs=1, budgets=(parse_budget("1trials"),))
    search = repository.create_search("one", config.document())
    assert search.config["imgsz"] == "96x64"
    trial = run(search)[0]
    assert trial.state == "complete", trial.reason
    assert shapes == {(3, 64, 96)}
    assert trial.latencies["cpu"].imgsz == wide
    assert trial.complexity is not None
    assert trial.complexity.gflops == pytest.approx(predict_size(trial.architecture, 10, wide).gflops, abs=1e-9)

    storage = ("--storage", repository.url)
    out = tmp_path / "out"
    exported = CliRunner().invoke(main, ["export", "one", "--trial", "0", "--output", str(out), *storage])
    assert exported.exit_code == 0, exported.output
    assert "nas-yolo train one --trial 0" in exported.stdout  # which trains at this size, as Ultralytics alone does not
    (given,) = onnxruntime.InferenceSession(out / "best.onnx").get_inputs()
    assert given.shape == [1, 3, 64, 96]
    validated = CliRunner().invoke(main, ["validate", "one", "--trial", "0", "--json", *storage])
    assert validated.exit_code == 0, validated.output
    document = json.loads(validated.stdout)
    assert document["imgsz"] == "96x64"
    assert document["deployed"]["cpu"]["images"] == config.dataset.val_images


def test_a_space_that_chooses_the_image_size_is_trained_and_measured_at_it(
    repository: Repository, few_digits: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators.accuracy.trainer import ProxyTrainer

    trained: list[tuple[str, int]] = []
    setup = ProxyTrainer.setup_model

    def note(self: ProxyTrainer) -> None:
        trained.append((self.request.checkpoint.parent.name, int(self.args.imgsz)))
        setup(self)

    monkeypatch.setattr(ProxyTrainer, "setup_model", note)
    mark = fingerprint(get_target("cpu"))
    assert repository.calibration(mark, ImageSize(64, 64)) is None
    (tmp_path / "space.yaml").write_text(SPACE.read_text() + "imgsz: [32, 64]\nactivation: [ReLU, SiLU]\n")
    config = make_config(
        data=str(few_digits),
        targets=("cpu",),
        budgets=("5trials",),
        space=str(tmp_path / "space.yaml"),
        imgsz=64,
        epochs=1,
        training=TRAINING,
        runner="local",
        inherit=False,
    )
    assert config.image_sizes == (ImageSize(32, 32), ImageSize(64, 64))
    search = repository.create_search("one", config.document())
    trials = run(search)

    assert (
        repository.calibration(mark, ImageSize(64, 64)) is not None
    )  # the search times the reference where that was not done
    assert trials[0].architecture == replace(load_preset("yolov8n"), imgsz=64)
    assert {trial.architecture.imgsz for trial in trials} == {32, 64}
    assert {None, "ReLU"} <= {trial.architecture.activation for trial in trials}
    for trial in trials:
        imgsz = chosen_size(trial.architecture, ImageSize(96, 96))
        assert trial.state == "complete"
        assert trial.complexity is not None
        size = predict_size(trial.architecture, 10, imgsz)
        assert trial.complexity.params == size.params
        assert trial.complexity.gflops == pytest.approx(size.gflops, abs=1e-9)
        assert trial.latencies["cpu"].imgsz == imgsz
        design = design_of("one", config, trial)
        assert design.imgsz == imgsz
        write_yaml(design, tmp_path / "best.yaml")
        network = read_model(str(tmp_path / "best.yaml")).build()
        kinds = {type(module).__name__ for module in network.modules()}
        assert {"ReLU", "SiLU"} & kinds == {trial.architecture.activation or "SiLU"}
    assert dict(trained) == {f"{trial.number:05}": trial.architecture.imgsz for trial in trials}
    document = json.loads(json.dumps(front_document(search, config, trials, repository.spent(search))))
    assert document["front"]
    for member in document["front"]:
        assert Architecture.from_document(member["architecture"]) == trials[member["trial"]].architecture


def test_a_latency_measured_by_an_earlier_search_is_not_measured_again(
    repository: Repository, config: SearchConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, epochs=1, warm_start=False)
    first = run(repository.create_search("first", config.document()))

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("evaluators.measurement.measure_latency", refuse)
    second = run(repository.create_search("second", config.document()))
    assert [t.architecture for t in second] == [t.architecture for t in first]
    assert [t.latencies for t in second] == [t.latencies for t in first]

    # One that learns from earlier searches begins with their best, and knows their latencies too.
    third = run(repository.create_search("third", replace(config, seed=7, warm_start=True).document()))
    proposed = {t.architecture for t in third if t.origin == "sampler:frontier"}
    assert proposed <= {t.architecture for t in first}
    assert {t.architecture for t in front_trials(first, "cpu")} <= {t.architecture for t in third}


def test_a_space_that_is_exhausted_ends_the_search(repository: Repository, config: SearchConfig, run: Run) -> None:
    one = {name: values[:1] for name, values in config.space.choices.items()}
    space = replace(config.space, choices={**one, "P2.block": ("Conv", "C2f")})
    budgets = make_config(data=config.dataset.file, targets=("cpu",), budgets=("50trials",)).budgets
    trials = run(repository.create_search("one", replace(config, space=space, budgets=budgets, epochs=1).document()))
    assert len(trials) == 3  # both of the space, and the stock model
    assert all(trial.state == "complete" for trial in trials)


def test_the_config_comes_back_from_the_database(config: SearchConfig) -> None:
    assert SearchConfig.from_document(json.loads(json.dumps(config.document()))) == config


def test_a_config_of_before_there_were_repeats_still_loads(config: SearchConfig) -> None:
    document = config.document()
    assert document.pop("repeats") is None
    assert SearchConfig.from_document(document) == config


def seeds_used(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The seed that each trial is trained with, by the name of its folder; filled while trainings run."""
    from evaluators.accuracy.trainer import ProxyTrainer

    used: dict[str, int] = {}
    setup = ProxyTrainer.setup_model

    def note(self: ProxyTrainer) -> None:
        used[self.request.checkpoint.parent.name] = self.request.seed
        setup(self)

    monkeypatch.setattr(ProxyTrainer, "setup_model", note)
    return used


@pytest.fixture
def anything_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings as short as here learn next to nothing, and are repeated all the same."""
    monkeypatch.setattr("nas_yolo.results.NOISE_FLOOR", 0.0)


@pytest.mark.usefixtures("anything_counts")
def test_repeats_are_trained_last_with_seeds_of_their_own_and_tell_the_noise(
    repository: Repository, config: SearchConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = seeds_used(monkeypatch)
    plain = run(repository.create_search("plain", config.document()))
    search = repository.create_search("one", replace(config, repeats=2).document())
    purses: list[int] = []
    trials = run(search, lambda snapshot: purses.append(snapshot.spending.trials))

    first, repeats = trials[:4], trials[4:]
    assert [(t.architecture, t.state) for t in first] == [(t.architecture, t.state) for t in plain]
    assert purses[-1] == 4
    assert len(repeats) == 2
    assert len({repeat.repeat_of for repeat in repeats}) == 2  # the two that the verdict compares
    assert 0 in {repeat.repeat_of for repeat in repeats}
    for repeat in repeats:
        assert repeat.repeat_of is not None
        original = trials[repeat.repeat_of]
        assert original.state == repeat.state == "complete"
        assert (repeat.architecture, repeat.complexity) == (original.architecture, original.complexity)
        assert repeat.latencies == original.latencies
        assert [epoch.loss for epoch in repeat.epochs] != [epoch.loss for epoch in original.epochs]
    assert [used[f"{number:05}"] for number in range(6) if f"{number:05}" in used] == [0, 0, 0, 0, 1, 1]

    document = json.loads(json.dumps(front_document(search, config, trials, repository.spent(search))))
    assert document["budget"]["spent"] == 4
    assert document["trust"]["noise_map50_95"]["degrees_of_freedom"] == 2
    assert {member["trial"] for member in document["front"]} <= {trial.number for trial in first}
    several = {member["trial"]: len(member["map50_95_seeds"]) for member in document["front"]}
    assert several == {number: 1 + sum(t.repeat_of == number for t in repeats) for number in several}

    assert len(run(search)) == 6  # nothing is due again


@pytest.mark.parametrize(("seconds", "chosen"), [(16.6, "sampler:tpe"), (16.4, "repeat:1"), (9.8, None)])
def test_a_finalist_starts_only_if_the_repeats_fit_after_it(
    finished: tuple[Repository, Search], seconds: float, chosen: str | None, by_hand: Any
) -> None:
    repository, _ = finished
    template = repository.trials(finished[1])
    config = SearchConfig.from_document(finished[1].config)
    search = repository.create_search("late", replace(config, epochs=9, sampler="tpe", repeats=1).document())
    rows = by_hand(repository, search)
    for number, (origin, reached) in enumerate(
        [("preset:yolov8n", 9), ("preset:yolov8n-ghost", 9), ("sampler:tpe", 3)]
    ):
        state = "complete" if reached == 9 else "paused"
        rows.trial(number, template[number].architecture, origin, *[0.1] * reached, state=state)
    rows.record(PhaseEntered("finishing"), BudgetsSet((f"{seconds}s",)))
    # a second an epoch: 1.1 times 6 to complete the one that waits, 1.1 times 9 for a repeat
    context = context_of(repository, search, slots=1, threads=1, on_gpu=False)
    state = repository.state(search)
    for action in decide(context, state, 0.0):
        state = fold(events_of(action, state, 0.0), state)
    begun = [job for job in state.work if job.purpose == "train"]
    assert [(state.trials[job.trial or 0].origin, job.until) for job in begun] == ([(chosen, 9)] if chosen else [])


@pytest.mark.usefixtures("anything_counts")
def test_a_search_interrupted_during_a_repeat_goes_on_with_it(
    repository: Repository, config: SearchConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = seeds_used(monkeypatch)
    config = replace(config, budgets=(parse_budget("3trials"),), repeats=3)
    straight = run(repository.create_search("straight", config.document()))
    broken = repository.create_search("broken", config.document())

    def interrupt(snapshot: Snapshot) -> None:
        if any(t.repeat_of is not None and t.state == "training" and len(t.epochs) == 1 for t in snapshot.trials):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(broken, interrupt)
    (half,) = (trial for trial in repository.trials(broken) if trial.repeat_of is not None)
    assert (half.state, len(half.epochs)) == ("paused", 1)
    used.clear()
    trials = run(broken)
    again = [(t.origin, t.state, [(e.epoch, e.map50_95, e.loss) for e in t.epochs]) for t in trials]
    assert again == [(t.origin, t.state, [(e.epoch, e.map50_95, e.loss) for e in t.epochs]) for t in straight]
    assert used[f"{half.number:05}"] == 1
    assert sum(trial.repeat_of is not None for trial in trials) == 3


def test_the_budget_ends_even_while_the_next_step_is_thought_out(
    repository: Repository, config: SearchConfig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()

    def ponder(self: Frontier, seen: Sequence[Observation], assembled: Sequence[Assembled]) -> list[int]:
        if any(one.accuracies for one in seen):
            done.wait(60)
        return [i for i, one in enumerate(seen) if one.idle]

    monkeypatch.setattr(Frontier, "order", ponder)
    search = repository.create_search("slow", replace(config, budgets=(parse_budget("25s"),)).document())
    trials = run(search)
    done.set()

    assert any(trial.epochs for trial in trials)
    assert repository.search("slow").state == "done"
    assert 25 <= repository.spent(search).wall_seconds < 26
    assert all(trial.state not in ("training", "measuring") for trial in trials)

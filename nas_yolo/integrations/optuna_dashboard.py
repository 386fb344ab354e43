"""A search as an Optuna study, for optuna-dashboard. Our tables are the truth; the study can be remade from them."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_yolo.config import SearchConfig
from nas_yolo.results import designs, front_trials, opponents_curve, seeds
from nas_yolo.samplers import distributions
from storage import Repository, Search, Trial

log = logging.getLogger(__name__)

REFRESH_S = 5.0
ENDED = {
    "complete": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "rejected": TrialState.PRUNED,
    "paused": TrialState.PRUNED,
}


def mirror(repository: Repository, search: Search, storage: RDBStorage) -> None:
    """Bring the study of a search up to date: all trials that ended; when nobody works on it, also those that wait.

    Repeats and the parent are left out, which Optuna would take for designs of their own. Complete trials have mAP50-95
    (maximised) and the latency on each target (minimised) as values. Trials that wait or were rejected are shown as
    pruned. Optuna cannot change a finished trial, so the study is remade when one went on. A plot for each target has
    the front, and the line of what it is compared with.
    """
    from optuna_dashboard import save_plotly_graph_object

    config = SearchConfig.from_document(search.config)
    shown = ("complete", "failed", "rejected") if repository.is_claimed(search) else tuple(ENDED)
    trials = repository.trials(search)
    ended = [trial for trial in designs(trials) if trial.state in shown]
    targets = [target.name for target, _ in config.targets]
    wanted = {trial.number: _frozen(trial, config, targets) for trial in ended}
    study = _study(search.name, storage, targets)
    there = {trial.user_attrs.get("trial"): trial for trial in study.get_trials(deepcopy=False)}
    if any(number not in wanted or wanted[number].user_attrs != there[number].user_attrs for number in there):
        optuna.delete_study(study_name=search.name, storage=storage)
        study, there = _study(search.name, storage, targets), {}
    study.add_trials([trial for number, trial in wanted.items() if number not in there])
    for position, target in enumerate(targets):
        save_plotly_graph_object(study, Plot(trials, config, target), graph_object_id=f"front-{position}")


@dataclass(frozen=True)
class Plot:
    """The front on a target, and what it is compared with, for plotly, which only the dashboard's page needs.

    Attributes:
        trials: All.
        config: Of the search.
        target: The target's name.
    """

    trials: Sequence[Trial]
    config: SearchConfig
    target: str

    def to_json(self) -> str:
        """As a figure of plotly writes itself."""
        curve = opponents_curve(self.trials, self.config, self.target, seeds(self.trials))
        ours = [t for t in front_trials(self.trials, self.target) if t.architecture.key not in self.config.opponents]
        layout = {
            "title": {"text": f"Front on {self.target}"},
            "xaxis": {"title": {"text": "latency, ms"}, "type": "log"},
            "yaxis": {"title": {"text": "mAP50-95"}},
        }
        data = [self._trace("front", "markers", ours), self._trace("stock, scaled", "lines+markers", curve)]
        return json.dumps({"data": data, "layout": layout})

    def _trace(self, name: str, mode: str, trials: Sequence[Trial]) -> dict[str, Any]:
        latencies, values = [trial.latencies[self.target] for trial in trials], seeds(self.trials)
        return {
            "type": "scatter",
            "name": name,
            "mode": mode,
            "x": [latency.latency_ms for latency in latencies],
            "y": [fmean(values[trial.number]) for trial in trials],
            "error_x": {"array": [(latency.ci_high_ms - latency.ci_low_ms) / 2 for latency in latencies]},
            "text": [f"trial {trial.number}, {trial.origin}" for trial in trials],
        }


class Following:
    """A study that is brought up to date with its search: read anew only once something has happened."""

    def __init__(self, repository: Repository, search: Search, storage: RDBStorage):
        self._repository, self._search, self._storage = repository, search, storage
        self._last = 0
        self._claimed: bool | None = None  # nothing was read yet

    def refresh(self) -> None:
        """Bring it up to date; where that fails, the next call tries again."""
        claimed = self._repository.is_claimed(self._search)
        news = self._repository.events(self._search, after=self._last)
        if news or claimed != self._claimed:
            mirror(self._repository, self._search, self._storage)
            self._last = news[-1].id if news else self._last
            self._claimed = claimed


def serve(repository: Repository, searches: list[Search], port: int) -> None:
    """Serve optuna-dashboard on loopback until interrupted, keeping the studies up to date.

    Raises:
        OSError: If the port is taken.
    """
    import optuna_dashboard

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = RDBStorage(repository.url)
    studies = [Following(repository, search, storage) for search in searches]
    for study in studies:
        study.refresh()
    stop = threading.Event()

    def refresh() -> None:
        while not stop.wait(REFRESH_S):
            for study in studies:
                try:
                    study.refresh()
                except Exception:  # a database that is away comes back
                    log.exception("a study of the dashboard could not be brought up to date")

    threading.Thread(target=refresh, name="mirror", daemon=True).start()
    try:
        optuna_dashboard.run_server(storage, host="127.0.0.1", port=port)
    finally:
        stop.set()


def _study(name: str, storage: RDBStorage, targets: list[str]) -> optuna.Study:
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(targets)]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(["map50_95", *(f"latency_ms ({target})" for target in targets)])
    return study


def _frozen(trial: Trial, config: SearchConfig, targets: list[str]) -> FrozenTrial:
    choices = config.space.choices_of(trial.architecture)
    values = None
    if trial.state == "complete":
        values = [trial.map50_95 or 0.0, *(trial.latencies[name].latency_ms for name in targets)]
    attributes: dict[str, Any] = {
        "trial": trial.number,
        "origin": trial.origin,
        "state": trial.state,
        "epochs": len(trial.epochs),
        "validated_epochs": trial.validated_epochs,
        "map50_95": trial.map50_95,
        "params": trial.complexity.params if trial.complexity else None,
        "gflops": trial.complexity.gflops if trial.complexity else None,
        "architecture": json.loads(trial.architecture.document),
    }
    if trial.reason:
        attributes["reason"] = trial.reason
    return create_trial(
        state=ENDED[trial.state],
        values=values,
        params=dict(choices) if choices else {},
        distributions=distributions(config.space.choices) if choices else {},
        user_attrs=attributes,
    )

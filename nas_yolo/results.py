"""What a search has found: front, baselines, the best, and a sentence on whether it was worth it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nas_yolo.config import SearchConfig
from nas_yolo.pareto import front
from nas_yolo.schedulers.asha import rungs
from nas_yolo.trust import RankCorrelation, iso_latency_correlation
from search_spaces.errors import UserError
from search_spaces.registry import get_family
from storage import Search, Spent, Trial

NOISE_FLOOR = 0.01  # mAP50-95 under which nothing was learned and differences mean nothing


class NoSuchTrialError(UserError, LookupError):
    """A trial that is not there, or has no result to give."""


def complete(trials: Sequence[Trial], target: str) -> list[Trial]:
    """Trials with all epochs trained and a latency on the target: only these are compared."""
    return [trial for trial in trials if trial.state == "complete" and target in trial.latencies]


def front_trials(trials: Sequence[Trial], target: str) -> list[Trial]:
    """Complete trials that no other complete trial beats in latency and mAP50-95, fastest first."""
    candidates = complete(trials, target)
    latencies = [trial.latencies[target].latency_ms for trial in candidates]
    return [candidates[i] for i in front(latencies, [trial.map50_95 or 0.0 for trial in candidates])]


def baselines(trials: Sequence[Trial], config: SearchConfig) -> list[Trial]:
    """The stock model of the family, as far as it was trained."""
    stock = get_family(config.space.family).baseline
    return [trial for trial in trials if trial.preset == stock and trial.latencies]


def best_trial(trials: Sequence[Trial], config: SearchConfig, max_latency_ms: float | None = None) -> Trial:
    """The most accurate complete trial within a latency: by default that of the stock model.

    Raises:
        NoSuchTrialError: If none is complete, or none is fast enough.
    """
    target = config.targets[0][0].name
    members = front_trials(trials, target)
    if not members:
        raise NoSuchTrialError(
            "no trial is complete yet; let the search run on, or give it more budget (nas-yolo resume)"
        )
    bound = max_latency_ms
    if bound is None:
        bound = max((b.latencies[target].ci_high_ms for b in baselines(trials, config)), default=float("inf"))
    within = [trial for trial in members if trial.latencies[target].latency_ms <= bound]
    if within:
        return within[-1]
    if max_latency_ms is None:
        return members[0]
    fastest = members[0].latencies[target].latency_ms
    raise NoSuchTrialError(f"no complete trial takes {max_latency_ms:g} ms or less; the fastest takes {fastest:.3g} ms")


def verdict(trials: Sequence[Trial], config: SearchConfig) -> str:
    """Whether the search beats the stock model at its latency, from complete trials."""
    target = config.targets[0][0].name
    stock = [trial for trial in baselines(trials, config) if trial.state == "complete"]
    done = complete(trials, target)
    if not stock:
        return "No verdict: the stock model was not trained to the end within the budget."
    base = stock[0]
    name, base_ms, base_map = base.preset, base.latencies[target].latency_ms, base.map50_95 or 0.0
    if max(trial.map50_95 or 0.0 for trial in done) < NOISE_FLOOR:
        return (
            f"No verdict: no net reached {NOISE_FLOOR} mAP50-95 in {config.epochs} epochs, so their differences "
            "are noise; train longer (--epochs)."
        )
    rivals = [t for t in done if t is not base and t.latencies[target].latency_ms <= base.latencies[target].ci_high_ms]
    if not rivals:
        return f"No trial was as fast as stock {name} ({base_ms:.3g} ms on {target}) and trained to the end."
    rival = max(rivals, key=lambda t: t.map50_95 or 0.0)
    gain = (rival.map50_95 or 0.0) - base_map
    time = f"{rival.latencies[target].latency_ms:.3g} ms against {base_ms:.3g} ms on {target}"
    seeds = "one training each: the noise between seeds was not measured"
    if gain > 0:
        return f"Trial {rival.number} beats stock {name} by {gain:.3f} mAP50-95 at {time} ({seeds})."
    return f"The search does not beat stock {name}: best {gain:+.3f} mAP50-95 at {time} ({seeds})."


def front_document(search: Search, config: SearchConfig, trials: Sequence[Trial], spent: Spent) -> dict[str, Any]:
    """The JSON of `nas-yolo front`; with several targets a trial is on the front if it is on one of theirs."""
    shown = {trial.number: trial for target, _ in config.targets for trial in front_trials(trials, target.name)}
    first = config.targets[0][0].name
    members = sorted(shown.values(), key=lambda trial: trial.latencies[first].latency_ms)
    return {
        "name": search.name,
        "budget": budget_document(config, spent, len(trials)),
        "front": [trial_document(trial) for trial in members],
        "baselines": [trial_document(trial) for trial in baselines(trials, config)],
        "trust": trust_document(trials, config),
    }


def trust_document(trials: Sequence[Trial], config: SearchConfig) -> dict[str, Any]:
    """How far the results can be trusted: the verdict, and how well each rung tells the end of it."""
    return {
        "verdict": verdict(trials, config),
        "rung_correlation": {
            str(rung): None if found is None else asdict(found)
            for rung, found in rung_correlations(trials, config).items()
        },
        "noise_map50_95": None,
    }


def rung_correlations(trials: Sequence[Trial], config: SearchConfig) -> dict[int, RankCorrelation | None]:
    """For each rung below the last, of complete trials: is the better of two equally fast ones known by then?"""
    target = config.targets[0][0].name
    done = [trial for trial in complete(trials, target) if trial.map50_95 is not None]
    latencies = [trial.latencies[target].latency_ms for trial in done]
    final = [trial.map50_95 or 0.0 for trial in done]
    return {
        rung: iso_latency_correlation(latencies, [trial.epochs[rung - 1].map50_95 for trial in done], final)
        for rung in rungs(config.epochs)[:-1]
    }


def trust_text(trials: Sequence[Trial], config: SearchConfig) -> str:
    """The verdict, and a line on how well the rungs told the end, if enough trials are complete to say."""
    lines = [verdict(trials, config)]
    known = {rung: found for rung, found in rung_correlations(trials, config).items() if found is not None}
    if known:
        parts = [f"{found.tau:.2f} ({found.low:.2f} to {found.high:.2f}) at {rung}" for rung, found in known.items()]
        pairs = next(iter(known.values())).pairs
        lines.append(
            f"Rank correlation with {config.epochs} epochs, {pairs} pairs of trials of equal latency: "
            f"{', '.join(parts)} epochs; 0 is chance."
        )
    return "\n".join(lines)


def budget_document(config: SearchConfig, spent: Spent, trials: int) -> dict[str, float | str]:
    """Limit and use of the budget that is nearest to its end, in the user's own unit."""
    tightest = max(config.budgets, key=lambda budget: budget.spent(spent, trials) / budget.limit)
    return tightest.shown(spent, trials)


def trial_document(trial: Trial) -> dict[str, Any]:
    """A trial's measured values."""
    latencies = trial.latencies
    return {
        "trial": trial.number,
        "origin": trial.origin,
        "map50_95": trial.map50_95,
        "latency_ms": {name: latency.latency_ms for name, latency in latencies.items()},
        "latency_ci_ms": {name: [latency.ci_low_ms, latency.ci_high_ms] for name, latency in latencies.items()},
        "latency_quality": {name: latency.quality for name, latency in latencies.items()},
        "params": trial.complexity.params if trial.complexity else None,
        "params_m": round(trial.complexity.params / 1e6, 3) if trial.complexity else None,
        "gflops": round(trial.complexity.gflops, 4) if trial.complexity else None,
        "epochs": len(trial.epochs),
        "architecture": json.loads(trial.architecture.document),
    }

"""What a search has found: front, baselines, the best, and a sentence on whether it was worth it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluators.evaluation import TIE, DeployedAccuracy
from nas_yolo.config import SearchConfig
from nas_yolo.equal_latency import Comparison, Point, Relation, compare, envelope
from nas_yolo.fidelities import accuracies_of
from nas_yolo.pareto import front
from nas_yolo.samplers import Fits, Grid, Observation, ScoreVerdict, judge_scores
from nas_yolo.trust import Noise, RankCorrelation, iso_latency_correlation, seed_noise
from search_spaces.errors import UserError
from storage import Search, Spent, Trial

NOISE_FLOOR = 0.01  # mAP50-95 under which nothing was learned and differences mean nothing


class NoSuchTrialError(UserError, LookupError):
    """A trial that is not there, or has no result to give."""


def designs(trials: Iterable[Trial]) -> list[Trial]:
    """All trials that are designs of their own."""
    return [trial for trial in trials if trial.is_design]


def complete(trials: Sequence[Trial], target: str) -> list[Trial]:
    """Trials with all epochs trained and a latency on the target: only these are compared. Only designs are."""
    return [trial for trial in designs(trials) if trial.state == "complete" and target in trial.latencies]


def front_trials(trials: Sequence[Trial], target: str) -> list[Trial]:
    """Complete trials that no other complete trial beats in latency and mAP50-95, fastest first.

    Of two that differ in latency by less than measurements do, only the more accurate one is on it.
    """
    candidates = complete(trials, target)
    latencies = [trial.latencies[target].latency_ms for trial in candidates]
    return [candidates[i] for i in front(latencies, [trial.map50_95 or 0.0 for trial in candidates], TIE)]


def baselines(trials: Sequence[Trial], config: SearchConfig, target: str = "") -> list[Trial]:
    """The model to beat, as far as it was trained; measured on the target, if one is given, or on any."""
    stock = config.space.baseline
    measured = [trial for trial in trials if (target in trial.latencies if target else trial.latencies)]
    return [trial for trial in measured if trial.preset == stock]


def opponents(trials: Sequence[Trial], config: SearchConfig, target: str = "") -> list[Trial]:
    """The model to beat in all widths and depths in which it was measured on the target, or on any; fastest first.

    These are so by what they are, whoever proposed them.
    """
    there = [t for t in designs(trials) if t.architecture.key in config.opponents]
    measured = [t for t in there if (target in t.latencies if target else t.latencies)]
    first = target or config.targets[0][0].name
    return sorted(measured, key=lambda t: t.latencies[first].latency_ms if first in t.latencies else float("inf"))


def opponents_curve(
    trials: Sequence[Trial], config: SearchConfig, target: str, values: Mapping[int, Sequence[float]]
) -> list[Trial]:
    """Complete opponents that are more accurate than all that are as fast, fastest first.

    Only those that began with weights of the same kind as the model to beat.

    Args:
        trials: All.
        config: Of the search.
        target: On which.
        values: mAP50-95 by trial number: the mean counts.
    """
    done = [trial for trial in opponents(trials, config, target) if trial.state == "complete"]
    stock = [trial for trial in done if trial.preset == config.space.baseline]
    alike_begun = [trial for trial in done if stock and inherits(trial) == inherits(stock[0])]
    return [alike_begun[i] for i in envelope([_point(trial, values, target) for trial in alike_begun])]


def _point(trial: Trial, values: Mapping[int, Sequence[float]], target: str) -> Point:
    latency, own = trial.latencies[target], values[trial.number]
    half = (latency.ci_high_ms - latency.ci_low_ms) / 2
    return Point(latency.latency_ms, half / latency.latency_ms, fmean(own), len(own))


def has_scaled(trials: Sequence[Trial], config: SearchConfig, target: str) -> bool:
    """Whether there is more than the model to beat itself to compare with on a target."""
    return sum(trial.state == "complete" for trial in opponents(trials, config, target)) > 1


def comparisons(trials: Sequence[Trial], config: SearchConfig, target: str) -> dict[int, Comparison]:
    """What is on the front on a target, and the challenger, against the opponents' curve; by number, fastest first.

    Opponents are left out, and what began with weights of another kind. None before two opponents are complete.
    """
    values, floor = seeds(trials), noise(trials)
    curve = opponents_curve(trials, config, target, values)
    if not curve or not has_scaled(trials, config, target):
        return {}
    chosen = {trial.number: trial for trial in front_trials(trials, target)}
    if rival := challenger(trials, config, target):
        chosen[rival.number] = rival
    ours = [t for t in chosen.values() if t.architecture.key not in config.opponents]
    fair = [trial for trial in ours if inherits(trial) == inherits(curve[0])]
    points = [_point(trial, values, target) for trial in curve]
    ordered = sorted(fair, key=lambda trial: trial.latencies[target].latency_ms)
    return {trial.number: compare(_point(trial, values, target), points, floor) for trial in ordered}


def best_trial(
    trials: Sequence[Trial], config: SearchConfig, max_latency_ms: float | None = None, target: str = ""
) -> Trial:
    """The most accurate complete trial within a latency: by default that of the stock model.

    Args:
        trials: All.
        config: Of the search.
        max_latency_ms: At most.
        target: On which; by default the search's first.

    Raises:
        NoSuchTrialError: If none is complete, or none is fast enough.
    """
    target = target or config.targets[0][0].name
    members = front_trials(trials, target)
    if not members:
        raise NoSuchTrialError(
            "no trial is complete yet; let the search run on, or give it more budget (nas-yolo resume)"
        )
    bound = max_latency_ms
    if bound is None:
        bound = max((b.latencies[target].ci_high_ms for b in baselines(trials, config, target)), default=float("inf"))
    within = [trial for trial in members if trial.latencies[target].latency_ms <= bound]
    if within:
        return within[-1]
    if max_latency_ms is None:
        return members[0]
    fastest = members[0].latencies[target].latency_ms
    raise NoSuchTrialError(f"no complete trial takes {max_latency_ms:g} ms or less; the fastest takes {fastest:.3g} ms")


def numbered_trial(search: Search, trials: Sequence[Trial], number: int) -> Trial:
    """The trial of that number.

    Raises:
        NoSuchTrialError: If there is none.
    """
    if 0 <= number < len(trials):
        return trials[number]
    there = f"trials 0 to {len(trials) - 1}" if trials else "no trials yet"
    raise NoSuchTrialError(
        f"search {search.name!r} has no trial {number}; it has {there} (nas-yolo status {search.name})"
    )


def challenger(trials: Sequence[Trial], config: SearchConfig, target: str = "") -> Trial | None:
    """The most accurate complete trial within the stock model's latency; None if there is none but opponents.

    It is chosen by its own training, not by the mean with its repeats, so that these do not change who it is.
    """
    target = target or config.targets[0][0].name
    stock = baselines(trials, config, target)
    bound = max((trial.latencies[target].ci_high_ms for trial in stock), default=float("inf"))
    others = [trial for trial in complete(trials, target) if trial.architecture.key not in config.opponents]
    rivals = [trial for trial in others if trial.latencies[target].latency_ms <= bound]
    return max(rivals, key=lambda trial: trial.map50_95 or 0.0, default=None)


def seeds(trials: Sequence[Trial]) -> dict[int, list[float]]:
    """mAP50-95 after each training to the end, by trial number: the trial's own, then its repeats'."""
    ended = [trial for trial in trials if trial.state == "complete"]
    values = {trial.number: [trial.map50_95 or 0.0] for trial in designs(ended)}
    for trial in ended:
        if trial.repeat_of is not None:
            values[trial.repeat_of].append(trial.map50_95 or 0.0)
    return values


def noise(trials: Sequence[Trial]) -> Noise | None:
    """How much mAP50-95 differs between seeds; None without complete repeats of nets that learned something."""
    return seed_noise(values for values in seeds(trials).values() if values[0] >= NOISE_FLOOR)


def difference(trials: Sequence[Trial], first: Trial, second: Trial) -> tuple[float, float | None]:
    """How much more accurate one complete trial is than another, in mAP50-95, from means over seeds.

    Returns:
        The difference, and half its 95 % interval: None if the noise is not known.
    """
    values, floor = seeds(trials), noise(trials)
    one, other = values[first.number], values[second.number]
    half = None if floor is None else floor.difference(len(one), len(other))
    return fmean(one) - fmean(other), half


def alike(trials: Sequence[Trial], first: Trial, second: Trial) -> bool:
    """Whether two complete trials differ by less than chance may; False without repeats, where that is not known."""
    gain, half = difference(trials, first, second)
    return half is not None and abs(gain) < half


def due_repeats(trials: Sequence[Trial], config: SearchConfig, count: int) -> list[Trial]:
    """The trials that should be trained once more with another seed, in this order.

    First those that the verdicts compare, then the rest of the front, the most accurate first, and over again where
    `count` is more; none that learned nothing. What was begun is not due again, whatever came of it.

    Args:
        trials: All.
        config: Of the search.
        count: How many there should be in all.
    """
    if not count:
        return []
    main = [
        *(challenger(trials, config, target.name) for target, _ in config.targets),
        *(trial for target, _ in config.targets for trial in _beside_challenger(trials, config, target.name)),
        *(t for t in baselines(trials, config) if t.state == "complete"),
    ]
    fronts = [trial for target, _ in config.targets for trial in front_trials(trials, target.name)]
    rest = sorted(fronts, key=lambda trial: -(trial.map50_95 or 0.0))
    learned = [trial for trial in [*main, *rest] if trial and (trial.map50_95 or 0.0) >= NOISE_FLOOR]
    order = list({trial.number: trial for trial in learned}.values())
    begun = Counter(trial.repeat_of for trial in trials)
    due = []
    for trial in islice(cycle(order), count):
        if begun[trial.number]:
            begun[trial.number] -= 1
        else:
            due.append(trial)
    return due


def _beside_challenger(trials: Sequence[Trial], config: SearchConfig, target: str) -> list[Trial]:
    """The opponents that the challenger is compared with, the nearer first; by their own training, as it is."""
    own = {number: values[:1] for number, values in seeds(trials).items()}
    rival, curve = challenger(trials, config, target), opponents_curve(trials, config, target, own)
    if rival is None or not curve:
        return []
    shares = compare(_point(rival, own, target), [_point(trial, own, target) for trial in curve], None).shares
    return [curve[i] for i in sorted(range(len(curve)), key=lambda i: -shares[i]) if shares[i]]


def verdict(trials: Sequence[Trial], config: SearchConfig, target: str = "") -> str:
    """Whether the search beats the stock model at equal latency, from complete trials, means over seeds.

    That is its curve over widths and depths, as far as it is known: between two that were measured, the line. Where
    only the model itself was trained to the end, that alone is compared with, and the sentence says so.

    Args:
        trials: All.
        config: Of the search.
        target: On which; by default the search's first.
    """
    target = target or config.targets[0][0].name
    stock = [trial for trial in baselines(trials, config, target) if trial.state == "complete"]
    done = complete(trials, target)
    if not stock:
        return f"No verdict: {_to_beat(config)} was not trained to the end within the budget."
    base = stock[0]
    base_ms = base.latencies[target].latency_ms
    name = config.space.baseline if config.space.model else f"stock {config.space.baseline}"
    if max(trial.map50_95 or 0.0 for trial in done) < NOISE_FLOOR:
        return (
            f"No verdict: no net reached {NOISE_FLOOR} mAP50-95 in {config.epochs} epochs, so their differences "
            "are noise; train longer (--epochs)."
        )
    rival = challenger(trials, config, target)
    if rival is not None and inherits(rival) != inherits(base):
        return f"No verdict: trial {rival.number} and {name} did not both begin with inherited weights."
    if has_scaled(trials, config, target):
        return _against_curve(trials, config, target, name, rival)
    others = len(config.opponents) > 1
    why = (
        "no other width or depth of it was trained to the end" if others else "the space holds no other width or depth"
    )
    alone = f"Compared with it alone: {why}."
    if rival is None:
        return f"No trial was as fast as {name} ({base_ms:.3g} ms on {target}) and trained to the end. {alone}"
    gain, half = difference(trials, rival, base)
    time = f"{rival.latencies[target].latency_ms:.3g} ms against {base_ms:.3g} ms on {target}"
    interval = "" if half is None else f" ± {half:.3f}"
    rest = f"{interval} mAP50-95 at {time} ({_noise_text(trials)}). {alone}"
    if half is not None and abs(gain) < half:
        return f"Trial {rival.number} and {name} cannot be told apart: {gain:+.3f}{rest}"
    if gain > 0:
        return f"Trial {rival.number} beats {name} by {gain:.3f}{rest}"
    return f"The search does not beat {name}: best {gain:+.3f}{rest}"


def _noise_text(trials: Sequence[Trial]) -> str:
    if (floor := noise(trials)) is None:
        return "one training each: the noise between seeds was not measured"
    return f"noise between seeds from {repeats_text(floor)}"


def _against_curve(trials: Sequence[Trial], config: SearchConfig, target: str, name: str, rival: Trial | None) -> str:
    """The verdict where there is a curve to compare with: on the challenger, then on the others of the front."""
    found = comparisons(trials, config, target)
    sizes = [t.latencies[target].latency_ms for t in opponents(trials, config, target) if t.state == "complete"]
    if rival is None:
        said = f"No trial was as fast as {name} on {target} and trained to the end."
    else:
        at = f"{rival.latencies[target].latency_ms:.3g} ms on {target} ({_noise_text(trials)})"
        said = _challenger_text(rival.number, found.pop(rival.number), name, at)
    others = {relation: [n for n, one in found.items() if one.relation == relation] for relation in REST_OF_FRONT}
    rest = "; ".join(
        f"{REST_OF_FRONT[relation]}: {', '.join(map(str, numbers))}" for relation, numbers in others.items() if numbers
    )
    compared = f" Compared with {len(sizes)} sizes of it, {sizes[0]:.3g} to {sizes[-1]:.3g} ms."
    return said + compared + (f" Other trials of the front: {rest}." if rest else "")


REST_OF_FRONT: dict[Relation, str] = {
    "beats": "beat it",
    "not told apart": "cannot be told apart from it",
    "worse": "worse",
    "no opponent": "faster than any size of it",
}


def _challenger_text(number: int, found: Comparison, name: str, at: str) -> str:
    error = "" if found.gain_error is None else f" ± {found.gain_error:.3f}"
    gain = f"{found.gain:+.3f}{error} mAP50-95"
    if found.is_fastest:
        gain += " against its fastest size"
    match found.relation:
        case "beats":
            said = f"Trial {number} beats {name}, scaled: {gain} at {at}."
        case "worse":
            said = f"The search does not beat {name}, scaled: trial {number} {gain} at {at}."
        case "not told apart":
            said = f"Trial {number} and {name}, scaled, cannot be told apart: {gain} at {at}."
        case "no opponent":
            said = f"No size of {name} is as fast as trial {number}: {gain} at {at}."
        case "not known":
            said = f"Trial {number} and {name}, scaled: {gain} at {at}; it may be chance."
    if found.latency_saved is None:
        return said
    error = "" if found.latency_saved_error is None else f" ± {found.latency_saved_error:.0%}"
    less = "less" if found.latency_saved >= 0 else "more"
    return f"{said} At equal accuracy it takes {abs(found.latency_saved):.0%}{error} {less} time."


def _to_beat(config: SearchConfig) -> str:
    return config.space.baseline if config.space.model else "the stock model"


def inherits(trial: Trial) -> bool:
    """Whether its training began with weights of trained networks."""
    return trial.weights is not None and bool(trial.weights.parents)


def weights_text(trials: Iterable[Trial], config: SearchConfig) -> str:
    """What the trainings of a search begin with, and so in which regime its accuracies were reached."""
    if config.weights == "scratch":
        return "from scratch"
    trials, stock = list(trials), config.space.baseline
    parent = next((trial for trial in trials if trial.is_parent), None)
    given_up = parent is not None and not parent.alive and parent.state != "complete"
    never = parent is None and (not config.trains_parent or any(trial.epochs for trial in trials))
    if config.pretrained is not None and (config.weights == "inherited" or given_up or never):
        return f"first weights from {Path(config.pretrained).name}"
    if never:
        return f"from scratch: the budget was too small to train {_to_beat(config)} first"
    if parent is None or parent.alive:
        reached = len(parent.epochs) if parent else 0
        return f"first weights from {stock}, which is trained first ({reached} of {config.epochs} epochs so far)"
    if parent.state == "complete" and config.weights == "library":
        by = f" by {parent.weights.parents[0]}" if parent.weights and config.pretrained is None else ""
        return f"first weights from blocks that imitate {stock}, trained {len(parent.epochs)} epochs on this data{by}"
    if parent.state == "complete":
        return f"first weights from {stock}, trained {len(parent.epochs)} epochs on this data"
    return f"from scratch, since {stock}, to begin with its weights, was not trained to the end ({parent.reason})"


def repeats_text(floor: Noise) -> str:
    """`1 repeat`, `2 repeats`: each complete one is a degree of freedom."""
    return f"{floor.degrees_of_freedom} repeat{'s' if floor.degrees_of_freedom > 1 else ''}"


def front_document(search: Search, config: SearchConfig, trials: Sequence[Trial], spent: Spent) -> dict[str, Any]:
    """The JSON of `nas-yolo front`; with several targets a trial is on the front if it is on one of theirs."""
    shown = {trial.number: trial for target, _ in config.targets for trial in front_trials(trials, target.name)}
    first = config.targets[0][0].name
    members = sorted(shown.values(), key=lambda trial: trial.latencies[first].latency_ms)
    stock = baselines(trials, config)
    compared = list({t.number: t for t in [*members, *stock] if t.state == "complete"}.values())
    return {
        "name": search.name,
        "budget": budget_document(config, spent, len(designs(trials))),
        "latency_of": config.timed,
        "weights": weights_text(trials, config),
        "front": [
            trial_document(trial)
            | {
                "map50_95_seeds": seeds(trials)[trial.number],
                "indistinguishable_from": [
                    other.number for other in compared if other is not trial and alike(trials, trial, other)
                ],
            }
            for trial in members
        ],
        "baselines": [trial_document(trial) for trial in stock],
        "opponents": opponents_document(trials, config),
        "trust": trust_document(trials, config),
    }


def opponents_document(trials: Sequence[Trial], config: SearchConfig) -> dict[str, Any]:
    """What results are compared with, and by target the numbers that make its curve, and what compares with it."""
    values = seeds(trials)
    return {
        "trials": [
            trial_document(trial) | {"name": config.opponents[trial.architecture.key], "state": trial.state}
            for trial in opponents(trials, config)
        ],
        "curve": {
            target.name: [trial.number for trial in opponents_curve(trials, config, target.name, values)]
            for target, _ in config.targets
        },
        "comparisons": {
            target.name: [
                {"trial": number, "relation": one.relation} | asdict(one)
                for number, one in comparisons(trials, config, target.name).items()
            ]
            for target, _ in config.targets
        },
    }


def trust_document(trials: Sequence[Trial], config: SearchConfig) -> dict[str, Any]:
    """How far the results can be trusted: the verdict, how well fidelities tell the end, the noise of seeds."""
    floor = noise(trials)
    return {
        "verdict": verdict(trials, config),
        "verdicts": {target.name: verdict(trials, config, target.name) for target, _ in config.targets},
        "fidelity_correlation": {
            name: None if found is None else asdict(found)
            for name, found in fidelity_correlations(trials, config).items()
        },
        "library_score_correlation": asdict(scored) if (scored := library_correlation(trials, config)) else None,
        "noise_map50_95": None if floor is None else asdict(floor) | {"difference_95": floor.difference()},
        "zero_cost_scores": [asdict(found) for found in score_verdicts(trials, config)],
    }


def score_verdicts(trials: Sequence[Trial], config: SearchConfig) -> tuple[ScoreVerdict, ...]:
    """Which zero-cost scores the engine uses, and why; none where it is another sampler, or too little was trained."""
    if config.sampler != "frontier":
        return ()
    grid, evaluated = Grid(config.space.choices), config.fidelities
    seen = []
    for trial in designs(trials):
        choices = config.space.choices_of(trial.architecture)
        reached = accuracies_of(trial, evaluated)
        if choices is not None and reached and all(target.name in trial.latencies for target, _ in config.targets):
            latencies = tuple(trial.latencies[target.name].latency_ms for target, _ in config.targets)
            seen.append(Observation(grid.codes(choices), latencies, reached, scores=trial.scores))
    return judge_scores(grid, seen, len(evaluated), Fits())


def fidelity_correlations(trials: Sequence[Trial], config: SearchConfig) -> dict[str, RankCorrelation | None]:
    """For each fidelity below the last, of complete trials: is the better of two equally fast ones known by then?"""
    target = config.targets[0][0].name
    *lower, _ = evaluated = config.fidelities
    found = [(trial, accuracies_of(trial, evaluated)) for trial in complete(trials, target)]
    done = [(trial.latencies[target].latency_ms, reached) for trial, reached in found if len(reached) > len(lower)]
    latencies, final = [latency for latency, _ in done], [reached[-1] for _, reached in done]
    return {
        fidelity.name: iso_latency_correlation(latencies, [reached[index] for _, reached in done], final)
        for index, fidelity in enumerate(lower)
    }


def library_correlation(trials: Sequence[Trial], config: SearchConfig) -> RankCorrelation | None:
    """Of complete trials: did what they found when they were put together from the library tell the better one?"""
    target = config.targets[0][0].name
    done = [trial for trial in complete(trials, target) if trial.assembled is not None]
    return iso_latency_correlation(
        [trial.latencies[target].latency_ms for trial in done],
        [trial.assembled or 0.0 for trial in done],
        [trial.map50_95 or 0.0 for trial in done],
    )


def trust_text(trials: Sequence[Trial], config: SearchConfig) -> str:
    """The verdict, what trainings began with, and as far as known the noise and how well fidelities told the end."""
    lines = list(dict.fromkeys(verdict(trials, config, target.name) for target, _ in config.targets))
    lines.append(f"Trainings: {weights_text(trials, config)}.")
    if floor := noise(trials):
        lines.append(
            f"Noise between seeds: standard deviation {floor.sd:.3f} mAP50-95, from {repeats_text(floor)}; two single "
            f"trainings that differ by less than {floor.difference():.3f} cannot be told apart."
        )
    known = {name: found for name, found in fidelity_correlations(trials, config).items() if found is not None}
    if known:
        parts = [f"{found.tau:.2f} ({found.low:.2f} to {found.high:.2f}) at {name}" for name, found in known.items()]
        pairs = next(iter(known.values())).pairs
        lines.append(
            f"Rank correlation with {config.fidelities[-1].name}, {pairs} pairs of trials of equal latency: "
            f"{', '.join(parts)}; 0 is chance."
        )
    if found := library_correlation(trials, config):
        lines.append(
            f"Rank correlation of scores of the library with {config.fidelities[-1].name}, {found.pairs} pairs: "
            f"{found.tau:.2f} ({found.low:.2f} to {found.high:.2f})."
        )
    if config.sampler == "frontier" and any(trial.scores for trial in trials):
        lines.append(_scores_text(score_verdicts(trials, config)))
    return "\n".join(lines)


def _scores_text(verdicts: Sequence[ScoreVerdict]) -> str:
    if not verdicts:
        return "Zero-cost scores: none used; too few trials of about equal latency were trained to judge them."
    parts = [
        f"{found.name} {'kept' if found.kept else 'left out'} ({found.tau:.2f} -> {found.tau_with:.2f})"
        for found in verdicts
    ]
    return (
        f"Zero-cost scores, by the rank correlation of predictions at equal latency without and with each, in "
        f"cross-validation over {verdicts[0].trials} trials: {', '.join(parts)}."
    )


def budget_document(config: SearchConfig, spent: Spent, trials: int) -> dict[str, float | str]:
    """Limit and use of the budget that is nearest to its end, in the user's own unit.

    Args:
        config: Of the search.
        spent: From the ledger.
        trials: Asked so far.
    """
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
        "latency_sessions": {name: latency.sessions for name, latency in latencies.items()},
        "deployed": {name: deployed_document(accuracy) for name, accuracy in trial.deployed.items()},
        "params": trial.complexity.params if trial.complexity else None,
        "params_m": round(trial.complexity.params / 1e6, 3) if trial.complexity else None,
        "gflops": round(trial.complexity.gflops, 4) if trial.complexity else None,
        "epochs": len(trial.epochs),
        "validated_epochs": trial.validated_epochs,
        "weights": asdict(trial.weights) if trial.weights else None,
        "batch": trial.batch,
        "architecture": json.loads(trial.architecture.document),
    }


def deployed_document(accuracy: DeployedAccuracy) -> dict[str, Any]:
    """Accuracy of an exported file, and of its network by the same validation."""
    document = asdict(accuracy)
    del document["target"]
    return document

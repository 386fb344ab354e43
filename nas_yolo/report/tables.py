"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluators.evaluation import Latency
from nas_yolo.config import SearchConfig
from nas_yolo.results import alike, baselines, front_trials, opponents
from storage import Trial

DEPLOYED_SAME = 0.005  # mAP50-95 that an exported file may differ from its network by without a word


def count_text(count: int) -> str:
    """Every digit up to a million, then `4.2e+18`."""
    return f"{count:,}" if count < 10**6 else f"{count:.2g}"


def latency_text(latency: Latency) -> str:
    """`1.23 ±0.01`, with a question mark if the measurement was noisy."""
    half = (latency.ci_high_ms - latency.ci_low_ms) / 2
    doubt = "" if latency.quality == "good" else " ?"
    return f"{latency.latency_ms:.3g} ±{half:.1g}{doubt}"


def front_table(trials: Sequence[Trial], config: SearchConfig, target: str) -> Table:
    """The front on one target, fastest first, and the stock model in all its sizes below it, where they are not on it.

    With repeats, a `~` marks what is no more accurate than the next faster one, as far as can be told.
    """
    sizes = "/".join(map(str, config.image_sizes))
    title = f"Front on {target} at {sizes} px, all {config.epochs} epochs trained; latency of {config.timed}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in ("trial", "mAP50-95", "latency ms", "params M", "GFLOPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    if config.weights != "scratch":
        table.add_column("inherited", justify="right", no_wrap=True)
    activation = ", activation" if "activation" in config.space.choices else ""
    table.add_column(f"from; blocks P2 to P5: name-width×depth{activation}")
    members = front_trials(trials, target)
    captions = []
    for faster, trial in zip([None, *members], members, strict=False):
        doubt = faster is not None and alike(trials, faster, trial)
        _add_row(table, trial, config, target, " ~" if doubt else "")
        if doubt:
            captions = ["~: cannot be told apart from the row above"]
    captions += [text for trial in members if (text := deployed_text(trial, target))]
    table.caption, table.caption_justify = "\n".join(captions) or None, "left"
    compared = [*baselines(trials, config, target), *(t for t in opponents(trials, config, target) if t.epochs)]
    below = {trial.number: trial for trial in compared if trial not in members}
    if below:
        table.add_section()
    for trial in below.values():
        _add_row(table, trial, config, target)
    return table


def accuracy_text(trial: Trial) -> str:
    """mAP50-95, and after how many epochs where that is not the end."""
    if trial.map50_95 is None:
        return "-"
    return f"{trial.map50_95:.3f}" + ("" if trial.state == "complete" else f" ({trial.validated_epochs} ep)")


def _add_row(table: Table, trial: Trial, config: SearchConfig, target: str, doubt: str = "") -> None:
    complexity = trial.complexity
    table.add_row(
        str(trial.number),
        accuracy_text(trial) + doubt,
        latency_text(trial.latencies[target]),
        f"{complexity.params / 1e6:.2f}" if complexity else "-",
        f"{complexity.gflops:.3g}" if complexity else "-",
        *([inherited_text(trial)] if config.weights != "scratch" else []),
        origin_text(trial) if trial.preset or trial.scaled else f"{origin_text(trial)}: {blocks_text(trial)}",
    )


def deployed_text(trial: Trial, target: str) -> str:
    """A sentence if the exported file is known to be more or less accurate than its network; else nothing."""
    accuracy = trial.deployed.get(target)
    if accuracy is None or accuracy.epochs != len(trial.epochs):
        return ""
    change = accuracy.map50_95 - accuracy.torch_map50_95
    if abs(change) <= DEPLOYED_SAME:
        return ""
    return f"Trial {trial.number} deployed in {accuracy.precision}: {change:+.3f} mAP50-95 against PyTorch"


def origin_text(trial: Trial) -> str:
    """Name of the preset or of the sampler; of others than designs that compete, what they are."""
    if trial.repeat_of is not None:
        return f"repeat of {trial.repeat_of}"
    name = trial.origin.partition(":")[2]
    if trial.scaled:
        return f"{name}, stock scaled"
    return f"{name}, for first weights" if trial.is_parent else name


def inherited_text(trial: Trial) -> str:
    """Share of its first weights that were inherited; a dash before it is known."""
    return "-" if trial.weights is None else f"{trial.weights.share:.0%}"


def batch_text(trial: Trial) -> str:
    """A sentence if its batch is not the search's; else nothing."""
    return "" if trial.batch is None else f"batch of {trial.batch}: memory had run out"


def blocks_text(trial: Trial) -> str:
    """The stages in short: block, width and depth; and the activation, if it is not what its blocks have anyway."""
    stages = [f"{stage.block}-{stage.width}×{stage.depth}" for stage in trial.architecture.stages]
    return " ".join([*stages, *filter(None, [trial.architecture.activation])])


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

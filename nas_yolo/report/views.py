"""Progress of a running search: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nas_yolo.budget import Budget
from nas_yolo.report.tables import batch_text, duration, front_table, latency_text, origin_text
from nas_yolo.results import front_trials
from nas_yolo.snapshot import Snapshot
from storage import Trial

PHASES = {
    "preparing": "scanning images, calibrating",
    "exploring": "exploring",
    "finishing": "training the best to the end",
    "done": "done",
}


class LineView:
    """One line for each trial that moves on; nothing is overwritten, so it suits logs and pipes."""

    def __init__(self, console: Console):
        self.console = console
        self._seen: dict[int, tuple[str, int]] = {}
        self._phase = ""
        self._away: Mapping[str, str] = {}
        self._notice = ""
        self._began_s: float | None = None
        self._now_s = 0.0

    def __call__(self, snapshot: Snapshot) -> None:
        """Print what changed since the last call."""
        self._now_s = snapshot.now_s
        if self._began_s is None:
            self._began_s = snapshot.now_s
        if snapshot.notice != self._notice:
            self._notice = snapshot.notice
            self._print(snapshot.notice or "storage answers again")
        if snapshot.phase != self._phase:
            self._phase = snapshot.phase
            self._print(PHASES[snapshot.phase])
        for name, reason in snapshot.away.items():
            if name not in self._away:
                self._print(f"target {name} is away, and is tried again: {reason}")
        for name in self._away:
            if name not in snapshot.away:
                self._print(f"target {name} is back")
        self._away = snapshot.away
        for trial in snapshot.trials:
            now = (trial.state, len(trial.epochs) if trial.state in ("paused", "complete") else 0)
            if now != self._seen.get(trial.number) and trial.state not in ("new", "measuring", "training"):
                self._print(trial_line(trial))
            self._seen[trial.number] = now

    def close(self) -> None:
        """Nothing to put away."""

    def _print(self, text: str) -> None:
        stamp = duration(self._now_s - (self._began_s or 0.0))
        self.console.print(f"{stamp:>12}  {text}", highlight=False, markup=False, soft_wrap=True)


class LiveView:
    """Budget, trials by state, what runs, and the front, redrawn in place."""

    def __init__(self, console: Console):
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def __call__(self, snapshot: Snapshot) -> None:
        """Redraw."""
        self._live.update(render(snapshot))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def trial_line(trial: Trial) -> str:
    """A trial in one line."""
    parts = [f"trial {trial.number} ({origin_text(trial)})", trial.state]
    several = len(trial.latencies) > 1
    for name, latency in trial.latencies.items():
        parts.append(f"{latency_text(latency)} ms{f' on {name}' if several else ''}")
    if trial.map50_95 is not None:
        parts.append(f"mAP50-95 {trial.map50_95:.3f} after {trial.validated_epochs} epochs")
    parts += filter(None, [batch_text(trial)])
    if trial.reason:
        parts.append(trial.reason)
    return "  ".join(parts)


def render(snapshot: Snapshot) -> Group:
    """The live view's content."""
    head = Text.assemble((snapshot.search.name, "bold"), f"  {PHASES[snapshot.phase]}")
    budgets = Table.grid(padding=(0, 2))
    for budget in snapshot.spending.budgets:
        budgets.add_row(*_budget_row(budget, snapshot))
    states = Counter(trial.state for trial in snapshot.trials)
    counts = "  ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none yet"
    lines: list[Any] = [head, budgets, Text(f"trials: {counts}")]
    trials = {trial.number: trial for trial in snapshot.trials}
    for kind, number in snapshot.running:
        if number is None:
            continue
        trial = trials[number]
        verb = "training" if kind == "train" else "measuring"
        progress = f"epoch {len(trial.epochs)}/{snapshot.config.epochs}" if kind == "train" else ""
        lines.append(Text(f"  {verb} trial {number} ({origin_text(trial)}) {progress}"))
    for name, reason in snapshot.away.items():
        lines.append(Text(f"  target {name} is away, and is tried again: {reason}", style="yellow"))
    if snapshot.notice:
        lines.append(Text(f"  {snapshot.notice}", style="yellow"))
    for target, _ in snapshot.config.targets:
        if front_trials(snapshot.trials, target.name):
            lines.append(front_table(snapshot.trials, snapshot.config, target.name))
    lines.append(Text("Ctrl-C stops and keeps everything.", style="dim"))
    return Group(*lines)


def _budget_row(budget: Budget, snapshot: Snapshot) -> tuple[str, str, str]:
    spent = budget.spent(snapshot.spending.spent, snapshot.spending.trials)
    share = min(spent / budget.limit, 1.0)
    bar = "━" * round(30 * share) + "╌" * (30 - round(30 * share))
    left = ""
    if budget.kind == "wall":
        left = f"{duration(budget.limit - spent)} left"
    elif budget.kind != "trials":
        held = snapshot.spending.gpus if budget.kind == "gpu" else snapshot.spending.cpus
        rate = held * max(sum(kind == "train" for kind, _ in snapshot.running), 1)
        left = f"about {duration((budget.limit - spent) / rate)} left"
    return f"budget {budget.text}", f"{bar} {share:.0%}", left

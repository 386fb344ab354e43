"""What every block costs and gives at every place, on the data and the device of a search."""

from __future__ import annotations

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from nas_yolo.library import Changes, scores_of
from nas_yolo.planning.situation import Context
from search_spaces.kinds import Kind
from search_spaces.space import Value
from storage import State

GOOD, POOR = 0.98, 0.8  # of the stock model's score: nothing is lost, much is


def library_document(context: Context, state: State) -> dict[str, Any]:
    """All of it as plain data.

    Of each change by itself: mAP50-95 of the stock model with it, put together and not trained, and what it adds to
    the latency, predicted from what the search measured.
    """
    changes, latency = context.changes, context.latency(state.trials)
    scores = {tuple(sorted(choices.items())): score for choices, score in scores_of(changes, state.assemblies)}
    own, stock_ms = scores.get(tuple(sorted(changes.start.items()))), math.exp(latency.constant)
    return {
        "stock": context.config.space.baseline,
        "score": own,
        "latency_ms_predicted": stock_ms,
        "entries": [vars(entry) for entry in state.entries.values()],
        "scores": len(state.assemblies),
        "seconds": state.library_seconds,
        "changes": [
            {
                "choice": name,
                "value": value,
                "score": scores.get(tuple(sorted(choices.items()))),
                "latency_ms_added": math.exp(latency.predict(choices)) - stock_ms,
                "error": _error(changes, state, name, value),
            }
            for (name, value), choices in changes.single.items()
        ],
    }


def _error(changes: Changes, state: State, name: str, value: Value) -> float | None:
    """Of the entry that the change takes, if it takes just one."""
    kinds: set[Kind] = changes.needed({**changes.start, name: value})
    found = [state.entries.get((kind.place, kind.block, kind.widen)) for kind in kinds]
    return found[0].error if len(found) == 1 and found[0] else None


def library_table(document: dict[str, Any]) -> Table:
    """A row for each change that was scored, by place, the one that leaves most first."""
    own, stock = document["score"], document["stock"]
    title = f"{stock} with one change: put together from the library, not trained"
    if own is not None:
        title += f"; {stock} itself {own:.3f}, predicted {document['latency_ms_predicted']:.3g} ms"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("place")
    table.add_column("instead")
    for heading in ("mAP50-95", "left", "ms (predicted)"):
        table.add_column(heading, justify="right", no_wrap=True)
    scored = [change for change in document["changes"] if change["score"] is not None]
    last = ""
    for change in sorted(scored, key=lambda one: (_order(document, one), -one["score"])):
        left = change["score"] / own if own else 0.0
        colour = "green" if left >= GOOD else "red" if left < POOR else "yellow"
        place = change["choice"] if change["choice"] != last else ""
        last = change["choice"]
        share = Text(f"{left:.0%}", style=colour)
        table.add_row(
            place, str(change["value"]), f"{change['score']:.3f}", share, f"{change['latency_ms_added']:+.3f}"
        )
    return table


def _order(document: dict[str, Any], change: dict[str, Any]) -> int:
    return [one["choice"] for one in document["changes"]].index(change["choice"])

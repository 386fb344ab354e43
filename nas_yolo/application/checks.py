"""What must hold before a search goes on: what it began with is still there, and still the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluators.dataset import Change, find_change
from evaluators.errors import LatencyError
from evaluators.latency import differences, identify, is_changed, is_same
from evaluators.location import check_writable
from evaluators.target import Target
from nas_yolo.application import machine
from nas_yolo.application.pretrained import digest
from nas_yolo.budget import Budget, BudgetError
from nas_yolo.config import SearchConfig
from search_spaces.errors import UserError
from storage import Search


def check_search(search: Search) -> None:
    """Refuse to go on where it cannot, or where results would not compare.

    Raises:
        UserError: With one line on what to do.
    """
    config = SearchConfig.from_document(search.config)
    check_trainings(search)
    check_budgets(config.budgets)
    check_dataset(search)
    check_pretrained(search)
    check_targets(search)
    if config.artifacts is not None:  # last, as it writes there
        check_writable(config.artifacts)


def check_budgets(budgets: Sequence[Budget]) -> None:
    """Refuse a GPU budget where there is no GPU: nothing would ever be spent of it.

    Raises:
        BudgetError: If there is one.
    """
    of_gpus = [budget for budget in budgets if budget.kind == "gpu"]
    if of_gpus and not machine.count_gpus():
        raise BudgetError(
            f"budget {of_gpus[0].text}: this machine has no GPU that PyTorch can use; give a budget in wall-clock or "
            "CPU time, e.g. 8h or 16cpu-h"
        )


def check_trainings(search: Search) -> None:
    """Refuse to go on where trainings saw fewer or smaller images at first, as an earlier version could be told to.

    Raises:
        UserError: If they did.
    """
    if search.config.get("subset", 1.0) != 1.0 or search.config.get("small_imgsz") is not None:
        raise UserError(
            f"search {search.name!r} was begun with --subset or --small-imgsz, which are gone, so further accuracies "
            "would not compare: start a new search, which learns from this one"
        )


def check_dataset(search: Search) -> None:
    """Refuse to go on with images or labels that are not those that the search began with.

    Raises:
        UserError: If they are gone or changed.
    """
    known = SearchConfig.from_document(search.config).dataset
    if change := find_change(known):
        raise UserError(
            f"the data of {known.file} {change_text(change, search.name)}; accuracies would not compare: "
            "put them back, or start a new search"
        )


def change_text(change: Change, name: str) -> str:
    """What to say of data that are not what they were when a search began."""
    return f"are gone: {change.text}" if change.gone else f"changed since search {name!r} began: {change.text}"


def check_pretrained(search: Search) -> None:
    """Refuse to go on without the checkpoint that trainings begin with.

    Raises:
        UserError: If it is gone or another.
    """
    config = SearchConfig.from_document(search.config)
    if config.pretrained is None:
        return
    file = Path(config.pretrained)
    if not file.is_file() or digest(file) != config.pretrained_sha256:
        what = "is another file now" if file.is_file() else "is gone"
        raise UserError(f"{file}, with which the trainings of {search.name!r} begin, {what}: put it back")


def check_targets(search: Search) -> None:
    """Refuse to go on with devices that are not those that the search began with.

    Raises:
        UserError: If one does not answer, or changed, or does not tell whether it did; says what.
    """
    config = SearchConfig.from_document(search.config)
    for target, known in config.targets:
        identity, before = ask_target(target), config.identities.get(target.name, {})
        if is_same(before, known, identity):
            continue
        told = differences(before, identity) if before else "an earlier nas-yolo measured in another way"
        if before and not is_changed(before, identity):
            raise UserError(
                f"target {target.name!r} does not tell the same of itself as when search {search.name!r} began "
                f"({told}), so whether latencies would compare is not known: put that right, or start a new search"
            )
        raise UserError(
            f"target {target.name!r} is not what it was when search {search.name!r} began ({told}); latencies "
            "would not compare: put it back as it was, or start a new search"
        )


def ask_target(target: Target) -> dict[str, Any]:
    """What a target says of itself.

    Raises:
        UserError: If it does not answer, or cannot measure.
    """
    try:
        return identify(target)
    except LatencyError as error:
        raise UserError(
            f"target {target.name} cannot be measured on: {error} (nas-yolo target check {target.name})"
        ) from error

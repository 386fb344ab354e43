"""Ultralytics arguments, given as on its own command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.accuracy.request import OWN_ARGUMENTS
from search_spaces.errors import UserError
from search_spaces.names import unknown


def parse_training(given: Sequence[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` pairs of training arguments for the trainings of a search.

    Raises:
        UserError: If one is unknown, of the wrong kind, or decided by the search itself.
    """
    reason = "is decided by the search itself (see nas-yolo search --help)"
    return parse_arguments(given, dict.fromkeys(OWN_ARGUMENTS, reason), "--train ")


def parse_arguments(given: Sequence[str], refused: Mapping[str, str], option: str = "") -> dict[str, Any]:
    """Read `KEY=VALUE` pairs of Ultralytics arguments, as its own command line does.

    Args:
        given: The pairs.
        refused: What cannot be given, and why.
        option: What stands before each pair, for messages.

    Raises:
        UserError: If one is unknown, of the wrong kind, or refused.
    """
    if not given:
        return {}
    from ultralytics.cfg import check_cfg, smart_value
    from ultralytics.utils import DEFAULT_CFG_DICT

    arguments: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"{option}{item!r} must be KEY=VALUE, e.g. batch=32")
        if key in refused:
            raise UserError(f"{option}{key} {refused[key]}")
        if key not in DEFAULT_CFG_DICT:
            raise UserError(unknown("training argument", key, DEFAULT_CFG_DICT.keys() - refused.keys()))
        arguments[key] = smart_value(value)
    try:
        check_cfg(dict(arguments))
    except (TypeError, ValueError) as error:
        raise UserError(f"{option}{' '.join(str(error).split())}") from error
    return arguments

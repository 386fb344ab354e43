"""Letting one training go on where another ended."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from evaluators.evaluation import Failure, HandedOver
from evaluators.location import StoreError, open_whole, write_whole

if TYPE_CHECKING:
    from evaluators.location import Location


def hand_over(source: Location, target: Location) -> Iterator[HandedOver | Failure]:
    """Copy a checkpoint, as work of a search; where there is none, what was trained is trained again."""
    try:
        copy_checkpoint(source, target)
    except FileNotFoundError:  # it died before its first
        pass
    except StoreError as error:
        yield Failure("storage", str(error))
        return
    yield HandedOver()


def copy_checkpoint(source: Location, target: Location) -> None:
    """Copy a checkpoint, as a whole.

    Raises:
        FileNotFoundError: If there is none.
        StoreError: If it cannot be read or written.
    """
    with open_whole(source) as original:
        write_whole(lambda file: shutil.copyfileobj(original, file), target)

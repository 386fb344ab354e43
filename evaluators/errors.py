"""Why a device gave no figure, or a training none."""

from __future__ import annotations

from typing import get_args

from evaluators.evaluation import Cause

AWAY = frozenset({"unreachable", "device_busy", "disk_full", "throttled", "drifted"})
"""Causes that are the device's and may pass: the network is not to blame."""


def printable(text: str) -> str:
    """Text of a device without what would command a terminal or what a database refuses."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text.expandtabs(4))


class LatencyError(RuntimeError):
    """A measurement that gave no number.

    Attributes:
        cause: A word to count by.
        detail: What the device said, its end, for developers.
    """

    def __init__(self, cause: Cause, message: str, detail: str = ""):
        super().__init__(printable(message))
        self.cause: Cause = cause
        self.detail = printable(detail)

    def __reduce__(self) -> tuple[type[LatencyError], tuple[Cause, str, str]]:
        return type(self), (self.cause, str(self), self.detail)  # workers send it to the search

    @classmethod
    def said(cls, cause: str, message: str, detail: str) -> LatencyError:
        """What a device reports; a cause that is not known here is an error like any other."""
        line = " ".join(message.split())[:300]
        return cls(cause if cause in get_args(Cause) else "error", line, detail[-4096:])  # type: ignore[arg-type]

    @classmethod
    def garbage(cls, text: bytes) -> LatencyError:
        """An answer that cannot be read."""
        shown = " ".join(text[:200].decode(errors="replace").split())
        return cls(
            "garbage", f"the device answered what cannot be read: {shown!r}", text[-4096:].decode(errors="replace")
        )


class TrainingError(RuntimeError):
    """A training that cannot go on.

    Attributes:
        cause: `nan`: a loss or a weight is not finite; `diverged`: the mean loss of an epoch is more than 50 and ten
            times the lowest so far, or over a million in a first one; `data_changed`: images or
            labels are not what the search began with.
    """

    def __init__(self, cause: Cause, message: str):
        super().__init__(message)
        self.cause: Cause = cause

"""Checkpoints: tensors and plain values, no pickled classes, each a file that is replaced as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evaluators.location import open_whole, write_whole

if TYPE_CHECKING:
    from evaluators.location import Location


def save_checkpoint(document: dict[str, Any], location: Location) -> None:
    """Write a checkpoint; nobody else writes the same at the same time.

    Raises:
        StoreError: If that fails; the one before is still there.
    """
    checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)  # nothing in PyTorch reads them, and they take as long as writing
    try:
        write_whole(lambda file: torch.save(document, file), location)
    finally:
        torch.serialization.set_crc32_options(checksums)


def load_checkpoint(location: Location) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: If there is none.
        StoreError: If it cannot be read.
        pickle.UnpicklingError: If it holds something else than tensors and plain values.
    """
    with open_whole(location) as file:
        document: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return document


def trained_weights(checkpoint: Location) -> dict[str, torch.Tensor] | None:
    """The moving average of the weights that a training has reached; None before its first checkpoint.

    Raises:
        StoreError: If the checkpoint cannot be read.
    """
    try:
        weights: dict[str, torch.Tensor] = load_checkpoint(checkpoint)["ema"]
    except FileNotFoundError:
        return None
    return weights


def trained_epochs(checkpoint: Location) -> int:
    """After which epoch a checkpoint was written: the weights that it holds."""
    return int(load_checkpoint(checkpoint)["epoch"])


def version(location: Location) -> str:
    """Another one when the file was written again.

    Raises:
        OSError: If it cannot be asked for.
    """
    if isinstance(location, Path):
        return str(location.stat().st_mtime_ns)
    return str(location.fs.ukey(location.path))

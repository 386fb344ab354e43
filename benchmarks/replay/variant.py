"""Make another table of one: other costs of its fidelities, a low one that tells more, fewer rows.

An engine that is good on one table may be so because of what its lower fidelity costs there. `--epochs 1,3` makes it a
third of a full training.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXAMPLES = """
    \b
    Example, of a table where a lower fidelity costs a third and tells more:
      python -m benchmarks.replay.variant nb201_cifar10.npz third.npz --epochs 1,3 --mix 0.5 --rows 968
"""


def mixed(accuracy: Array, share: float) -> Array:
    """Accuracies whose lower fidelities are, by ranks, a mean of their own and the full training's.

    Args:
        accuracy: Of each row at each fidelity, (N, F).
        share: Of the full training, 0 to 1. Ranks are put back into values of the fidelity itself.
    """
    ranks = accuracy.argsort(axis=0).argsort(axis=0).astype(float)
    result: Array = accuracy.copy()
    for fidelity in range(accuracy.shape[1] - 1):
        both = (1 - share) * ranks[:, fidelity] + share * ranks[:, -1]
        result[np.argsort(both, kind="stable"), fidelity] = np.sort(accuracy[:, fidelity])
    return result


@click.command(epilog=EXAMPLES)
@click.argument("path", metavar="TABLE.npz", type=click.Path(path_type=Path, exists=True))
@click.argument("out", metavar="OUT.npz", type=click.Path(path_type=Path))
@click.option("--epochs", help="Of the fidelities, ascending, separated by commas. Default: as they are.")
@click.option("--mix", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Share of the final accuracy.")
@click.option("--rows", type=click.IntRange(1), help="Only so many, drawn at random. Default: all.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def main(path: Path, out: Path, epochs: str | None, mix: float, rows: int | None, seed: int) -> None:
    """Write another table like this one."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    count = len(arrays["configs"])
    if epochs:
        arrays["epochs"] = np.array([float(value) for value in epochs.split(",")])
    arrays["accuracy"] = mixed(arrays["accuracy"].astype(float), mix)
    if rows and rows < count:
        kept = np.sort(np.random.default_rng(seed).permutation(count)[:rows])
        arrays = {key: value[kept] if value.ndim and len(value) == count else value for key, value in arrays.items()}
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main()

"""The engine's processes against the textbook."""

from __future__ import annotations

import numpy as np
import pytest

from nas_yolo.samplers._processes import JITTER, Parameters, condition, linear_in

LENGTHS = ((0.7, 1.3), (1.1, 0.4))
MIX = np.array([[1.0, 0.8], [0.8, 1.1]])
TREND = np.array([[1.0, 0.6], [0.6, 1.5]])
NOISE = np.array([0.1, 0.02])


def textbook_kernel(
    one: list[np.ndarray], other: list[np.ndarray], lengths: tuple[float, ...], levels: np.ndarray, others: np.ndarray
) -> np.ndarray:
    squares = [
        ((a[:, None] - b[None]) ** 2).sum(axis=2) / length**2 for a, b, length in zip(one, other, lengths, strict=True)
    ]
    root = np.sqrt(5 * np.sum(squares, axis=0))
    matern = (1 + root + root**2 / 3) * np.exp(-root)
    lines = linear_in(one) @ linear_in(other).T
    return matern * MIX[np.ix_(levels, others)] + lines * TREND[np.ix_(levels, others)]


@pytest.mark.parametrize("levels", [[0, 1, 0, 1, 1, 0, 0], [0] * 7, [1] * 7])
def test_beliefs_are_those_of_the_textbook_whatever_the_order_of_what_was_seen(levels: list[int]) -> None:
    rng = np.random.default_rng(0)
    known = [rng.normal(size=(7, 3)), rng.normal(size=(7, 1))]
    points = [rng.normal(size=(4, 3)), rng.normal(size=(4, 1))]
    values, fidelity = rng.normal(size=7), np.array(levels)
    processes = condition([Parameters(np.array(one), MIX, TREND, NOISE) for one in LENGTHS], known, fidelity, values)
    means, covariances = processes.predict(points)
    rough = processes.single().predict(points)
    for k, lengths in enumerate(LENGTHS):
        inverse = np.linalg.inv(
            textbook_kernel(known, known, lengths, fidelity, fidelity) + np.diag(NOISE[fidelity] + JITTER)
        )
        for i in range(2):
            to_i = textbook_kernel(points, known, lengths, np.full(4, i), fidelity)
            assert means[k, i] == pytest.approx(to_i @ inverse @ values)
            assert processes.expect(points)[k, i] == pytest.approx(to_i @ inverse @ values)
            for j in range(2):
                to_j = textbook_kernel(points, known, lengths, np.full(4, j), fidelity)
                prior = textbook_kernel(points, points, lengths, np.full(4, i), np.full(4, j))
                assert covariances[k, i, j] == pytest.approx(np.diag(prior - to_i @ inverse @ to_j.T))
    assert np.allclose(rough[0], means, atol=1e-4)
    assert np.allclose(rough[1], covariances, atol=1e-4)


def test_one_process_of_several_is_the_one_alone() -> None:
    rng = np.random.default_rng(1)
    known, points = [rng.normal(size=(6, 2))], [rng.normal(size=(3, 2))]
    both = [Parameters(np.array([length]), MIX, TREND, NOISE) for length in (0.5, 2.0)]
    arguments = known, np.array([0, 1, 0, 0, 1, 0]), rng.normal(size=6)
    together = condition(both, *arguments)
    for k, one in enumerate(both):
        alone = condition([one], *arguments)
        assert together.part(slice(k, k + 1)).expect(points) == pytest.approx(alone.expect(points))
    assert not len(together.part(slice(2, None)).noise)

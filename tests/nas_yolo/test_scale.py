"""The scale that the engine's model sees final accuracies on."""

from __future__ import annotations

import numpy as np
import pytest

from nas_yolo.samplers._scale import final_scale, standard

EARLY = np.linspace(0, 1, 100)


@pytest.mark.parametrize("below", [[], [EARLY]])
def test_distances_between_good_accuracies_are_kept(below: list[np.ndarray]) -> None:
    final = np.array([0.9, 0.88, 0.91, 0.93, 0.94, 0.1])
    scale = final_scale([*below, final])
    values = standard([*below, final], scale)[-1]
    assert np.diff(values[[0, 2, 3]]) * scale.deviation == pytest.approx(np.diff(final[[0, 2, 3]]))


def test_with_one_fidelity_broken_designs_are_told_apart_but_hardly_widen_the_scale() -> None:
    good = np.linspace(0.88, 0.94, 20)
    broken = np.array([0.8, 0.5, 0.1])
    scale = final_scale([np.concatenate([good, broken])])
    assert scale.deviation < 2.5 * final_scale([good]).deviation
    assert np.all(np.diff(scale.standard(broken)) < -0.2)


def test_what_was_chosen_and_is_broken_nevertheless_is_cut_off() -> None:
    scale = final_scale([EARLY, np.append(np.linspace(0.88, 0.94, 20), [0.5, 0.1])])
    assert len(set(scale.standard(np.array([0.5, 0.1, 0.0])).tolist())) == 1


def test_a_scale_of_few_or_equal_accuracies_is_finite() -> None:
    for final in (np.array([]), np.array([0.5]), np.full(5, 0.5), np.zeros(9)):
        for raw in ([EARLY, final], [final]) if len(final) else ([EARLY, final],):
            values = standard(raw, final_scale(raw))[-1]
            assert np.all(np.isfinite(values))
            assert len(values) == len(final)

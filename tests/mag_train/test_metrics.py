"""Metrics agree with scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mag_train.metrics import average_precision


@pytest.mark.parametrize("levels", [2, 5, 256, 10**9])
@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_average_precision_is_scikit_learns_ties_included(levels: int, share: float) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(5):
        truth = rng.random((40, 50)) < share
        truth[0, 0] = True
        score = rng.integers(0, levels, (40, 50)) / levels
        expected = average_precision_score(truth.ravel(), score.ravel())
        assert average_precision(truth, score) == pytest.approx(expected, abs=1e-9)


def test_a_constant_map_scores_the_share_of_the_splice() -> None:
    truth = np.zeros((10, 10), bool)
    truth[:2] = True
    assert average_precision(truth, np.full((10, 10), 0.5)) == pytest.approx(0.2)


def test_nothing_to_find_is_no_number() -> None:
    assert math.isnan(average_precision(np.zeros((4, 4), bool), np.ones((4, 4))))

"""Metrics agree with scikit-learn, ties included, and with numbers worked out by hand."""

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from mag_train.metrics import (
    Ranking,
    auc,
    average_precision,
    best_f1,
    bootstrap_interval,
    class_iou,
    f1_at,
    permuted_average_precision,
    ranked_average_precision,
)

Case = tuple[NDArray[np.bool_], NDArray[np.floating]]


def maps(levels: int, share: float, shape: tuple[int, int], count: int = 5) -> list[Case]:
    """Random truths with at least one pixel of each class, and random maps of so many distinct scores."""
    rng = np.random.default_rng(levels)
    cases = []
    for _ in range(count):
        truth = rng.random(shape) < share
        truth[0, :2] = True, False
        cases.append((truth, rng.integers(0, levels, shape) / levels))
    return cases


@pytest.mark.parametrize("levels", [1, 2, 5, 256, 10**9])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_ap_and_auc_are_scikit_learns_ties_included(levels: int, share: float) -> None:
    for truth, score in maps(levels, share, (40, 50)):
        ranking = Ranking.of(truth, score)
        expected = average_precision_score(truth.ravel(), score.ravel())
        assert average_precision(truth, score) == pytest.approx(expected, abs=1e-9)
        assert ranked_average_precision(ranking) == pytest.approx(expected, abs=1e-9)
        of_inverse = average_precision_score(~truth.ravel(), score.ravel())
        assert ranked_average_precision(ranking.inverse()) == pytest.approx(of_inverse, abs=1e-9)
        assert auc(ranking) == pytest.approx(roc_auc_score(truth.ravel(), score.ravel()), abs=1e-9)


@pytest.mark.parametrize("levels", [1, 2, 7, 10**9])
def test_f1_and_ciou_are_the_best_of_scikit_learns_over_every_threshold(levels: int) -> None:
    for truth, score in maps(levels, 0.3, (6, 8)):
        ranking, y = Ranking.of(truth, score), truth.ravel()
        cuts = [(score >= threshold).ravel() for threshold in (*np.unique(score), 2.0)]
        f1 = max(f1_score(y, cut, zero_division=0.0) for cut in cuts)
        ious = (jaccard_score(y, cut, average=None, zero_division=1.0) for cut in cuts)
        assert best_f1(ranking) == pytest.approx(f1, abs=1e-9)
        assert class_iou(ranking) == pytest.approx(max(each.mean() for each in ious), abs=1e-9)
        for threshold in (0.0, 0.5, float(score[0, 0]), 1.1):
            expected = f1_score(y, (score >= threshold).ravel(), zero_division=0.0)
            assert f1_at(ranking, threshold) == pytest.approx(expected, abs=1e-9)


def test_float32_maps_are_cut_at_the_threshold_itself() -> None:
    score = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.7], np.float32)
    assert f1_at(Ranking.of(np.array([True, True, False]), score), 0.5) == pytest.approx(0.5)


def test_a_constant_map_scores_what_the_share_of_the_splice_gives() -> None:
    truth = np.zeros((10, 10), bool)
    truth[:2] = True
    ranking = Ranking.of(truth, np.full((10, 10), 0.5))
    assert ranked_average_precision(ranking) == pytest.approx(0.2)
    assert class_iou(ranking) == pytest.approx(0.4)  # nothing called spliced: 0 and 80/100
    assert best_f1(ranking) == pytest.approx(2 * 0.2 / 1.2)
    assert auc(ranking) == 0.5


def test_the_inverse_counts_only_where_areas_are_equal_within_a_hundredth() -> None:
    score = np.linspace(1, 0, 1000)
    for true, permuted in ((500, True), (505, True), (495, True), (494, False), (100, False)):
        truth = np.arange(1000) >= 1000 - true  # the map marks exactly the other side
        ranking = Ranking.of(truth, score)
        assert (permuted_average_precision(ranking) == 1.0) is permuted
        assert permuted or permuted_average_precision(ranking) == ranked_average_precision(ranking)


def test_a_perfect_map_has_one_everywhere() -> None:
    truth = np.arange(100) < 30
    ranking = Ranking.of(truth, truth.astype(np.float32))
    assert ranked_average_precision(ranking) == class_iou(ranking) == f1_at(ranking, 0.5) == auc(ranking) == 1.0


def test_nothing_to_find_is_no_number() -> None:
    nothing = Ranking.of(np.zeros((4, 4), bool), np.ones((4, 4)))
    everything = Ranking.of(np.ones((4, 4), bool), np.ones((4, 4)))
    for metric in (ranked_average_precision, permuted_average_precision, class_iou, best_f1, auc):
        assert math.isnan(metric(nothing))
    assert math.isnan(f1_at(nothing, 0.5)) and math.isnan(auc(everything))
    assert class_iou(everything) == 1.0


def test_a_map_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="no numbers"):
        Ranking.of(np.array([True, False]), np.array([np.nan, 0.3]))


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        low, high = bootstrap_interval(rng.beta(2, 3, 60))
        covered.append(low <= 2 / 5 <= high)
    assert 0.88 < np.mean(covered) <= 0.99


def test_the_interval_is_the_same_every_time_and_shrinks_with_the_pictures() -> None:
    values = np.random.default_rng(1).random(400)
    low, high = bootstrap_interval(values)
    assert bootstrap_interval(values) == (low, high) != bootstrap_interval(values, seed=1)
    few = bootstrap_interval(values[:25])
    assert low < values.mean() < high and (few[1] - few[0]) > 2 * (high - low)


def test_a_map_of_512_takes_milliseconds() -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.random((512, 512)) < 0.2, rng.random((512, 512), dtype=np.float32)
    spent = []
    for _ in range(5):
        begun = time.process_time()
        average_precision(truth, score)
        spent.append(time.process_time() - begun)
    assert min(spent) < 0.2  # about 0.02; a slow machine must not fail

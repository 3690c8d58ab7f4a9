"""What the paper and the field report, one function per metric. scikit-learn is the oracle in the tests.

The metrics of a map are read off its `Ranking`, so that its pixels are sorted once. NaN stands for a metric that has no
value: nothing is true, or, for the AUC, everything is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EQUAL_AREAS = 0.01
"""Share of the picture by which mask and inverse may differ in area and still count as equal for p-AP."""
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ranking:
    """A score map cut at each of its T distinct scores, the highest first; pixels of one score are taken together."""

    threshold: NDArray[np.floating]
    """The distinct scores, descending, T."""
    taken: NDArray[np.int64]
    """How many pixels reach the threshold, T; the last is all of them."""
    hits: NDArray[np.int64]
    """How many true pixels reach it, T; the last is all of them."""

    @classmethod
    def of(cls, truth: NDArray[np.bool_], score: NDArray[np.floating]) -> "Ranking":
        """The ranking of a map; truth and score of one shape, any. Raises ValueError when a score is NaN.

        >>> Ranking.of(np.array([True, False, True]), np.array([0.9, 0.8, 0.8])).hits
        array([1, 2])
        """
        ranked, true = np.sort(score, axis=None), np.sort(score[truth])
        if np.isnan(ranked[-1]):  # NaN sorts to the end
            raise ValueError("the map holds values that are no numbers")
        first = np.append(0, np.flatnonzero(ranked[1:] != ranked[:-1]) + 1)
        threshold = ranked[first]
        hits = len(true) - np.searchsorted(true, threshold)
        return cls(threshold[::-1], (len(ranked) - first)[::-1], hits[::-1])

    @property
    def true(self) -> int:
        """True pixels in all."""
        return int(self.hits[-1])

    @property
    def pixels(self) -> int:
        """Pixels in all."""
        return int(self.taken[-1])

    def inverse(self) -> "Ranking":
        """The same map held against the inverse truth."""
        return Ranking(self.threshold, self.taken, self.taken - self.hits)


def average_precision(truth: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """AP over pixels, for who wants this metric alone; see `ranked_average_precision`.

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7]))
    0.8333333333333333
    """
    return ranked_average_precision(Ranking.of(truth, score))


def ranked_average_precision(ranking: Ranking) -> float:
    """AP: the mean of the precision at every rank that adds a true pixel, ties taken together.

    >>> ranked_average_precision(Ranking.of(np.array([True, False, True]), np.array([0.9, 0.8, 0.8])))
    0.8333333333333333
    """
    if not ranking.true:
        return float("nan")
    precision = ranking.hits / ranking.taken
    return float(np.diff(ranking.hits, prepend=0) @ precision / ranking.true)


def permuted_average_precision(ranking: Ranking) -> float:
    """p-AP: the higher of AP for the mask and AP for its inverse where both areas are equal (within 1%), else AP.

    With equal areas nothing says which side is the splice. Elsewhere the inverse would only inflate the score.

    >>> permuted_average_precision(Ranking.of(np.array([True, False]), np.array([0.1, 0.9])))
    1.0
    >>> permuted_average_precision(Ranking.of(np.array([True, False, False]), np.array([0.1, 0.9, 0.9])))
    0.3333333333333333
    """
    own = ranked_average_precision(ranking)
    if abs(2 * ranking.true - ranking.pixels) > EQUAL_AREAS * ranking.pixels:
        return own
    return max(own, ranked_average_precision(ranking.inverse()))


def class_iou(ranking: Ranking) -> float:
    """cIoU: the mean of the IoU of the true and of the false class at the threshold that makes it highest.

    Calling no pixel true is among the thresholds. A class without a pixel in truth and map alike has an IoU of 1.

    >>> class_iou(Ranking.of(np.array([True, False, False, False]), np.array([0.9, 0.9, 0.2, 0.1])))
    0.5833333333333333
    """
    if not ranking.true:
        return float("nan")
    hits, taken = np.append(0, ranking.hits), np.append(0, ranking.taken)
    of_true = hits / (taken + ranking.true - hits)
    agreed, either = ranking.pixels - taken - ranking.true + hits, ranking.pixels - hits  # false in both, in one
    of_false = np.divide(agreed, either, out=np.ones(len(hits)), where=either > 0)
    return float((of_true + of_false).max() / 2)


def f1_at(ranking: Ranking, threshold: float) -> float:
    """F1 of the pixels that reach the threshold.

    >>> f1_at(Ranking.of(np.array([True, False, True]), np.array([0.9, 0.5, 0.4])), 0.5)
    0.5
    """
    if not ranking.true:
        return float("nan")
    reached = int(np.searchsorted(-ranking.threshold, -threshold, side="right"))
    return 2 * int(ranking.hits[reached - 1]) / (int(ranking.taken[reached - 1]) + ranking.true) if reached else 0.0


def best_f1(ranking: Ranking) -> float:
    """F1 at the threshold that makes it highest.

    >>> best_f1(Ranking.of(np.array([True, False, True]), np.array([0.9, 0.5, 0.4])))
    0.8
    """
    if not ranking.true:
        return float("nan")
    return float((2 * ranking.hits / (ranking.taken + ranking.true)).max())


def auc(ranking: Ranking) -> float:
    """Area under the ROC curve (Mann-Whitney): how often a true item outscores a false one, a tie counting half.

    >>> auc(Ranking.of(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.8, 0.1])))
    0.875
    """
    false = ranking.pixels - ranking.true
    if not ranking.true or not false:
        return float("nan")
    found = np.append(0, ranking.hits)
    alarms = np.diff(ranking.taken - ranking.hits, prepend=0)
    # Each false item: the true ones above its score, and half of those at it.
    return float(alarms @ (found[1:] + found[:-1]) / (2 * ranking.true * false))


def bootstrap_interval(values: NDArray[np.floating], seed: int = 0) -> tuple[float, float]:
    """The 95% interval of the mean of N values under resampling of them, the same for the same seed.

    >>> bootstrap_interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5)
    """
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)), dtype=np.int32)
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)

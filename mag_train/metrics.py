"""What the paper and the field report, one function per metric. scikit-learn is the oracle in the tests."""

import numpy as np
from numpy.typing import NDArray


def average_precision(truth: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """AP over pixels: the mean of the precision at every rank that adds a true pixel, ties taken together.

    truth and score of the same shape. NaN when nothing is true.

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7]))
    0.8333333333333333
    """
    order = np.argsort(-score.ravel(), kind="stable")
    ranked = score.ravel()[order]
    hits = np.cumsum(truth.ravel()[order])
    last_of_tie = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    found = hits[last_of_tie]
    if not found[-1]:
        return float("nan")
    precision = found / (last_of_tie + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / found[-1])

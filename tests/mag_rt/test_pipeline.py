"""Work ahead keeps the order, is bounded, and hands errors to the consumer."""

import threading
from collections.abc import Iterator

import pytest

from mag_rt.pipeline import ahead, windows


def test_order_is_kept() -> None:
    assert list(ahead(lambda item: item * 2, range(100), depth=3)) == [2 * item for item in range(100)]


def test_no_more_than_depth_items_are_taken_ahead() -> None:
    taken = []

    def source() -> Iterator[int]:
        for item in range(50):
            taken.append(item)
            yield item

    for consumed, _ in enumerate(ahead(lambda item: item, source(), depth=4)):
        assert len(taken) <= consumed + 4 + 1


def test_an_error_reaches_the_consumer_behind_what_came_before() -> None:
    results = []
    with pytest.raises(ZeroDivisionError):
        results.extend(ahead(lambda item: 1 // (3 - item), range(10), depth=2))
    assert results == [0, 0, 1]


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    stream = ahead(lambda item: item, iter(range(1000)), depth=2)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_windows() -> None:
    assert list(windows(range(5), 2)) == [[0, 1], [2, 3], [4]]

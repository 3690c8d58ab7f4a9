"""Work ahead keeps the order, is bounded, and hands errors to the consumer."""

import threading
import time
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
        assert len(taken) == min(50, consumed + 4)


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


def test_closing_drops_what_has_not_begun() -> None:
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.1 * item)

    stream = ahead(work, range(10), depth=10)
    next(stream)
    stream.close()
    assert len(begun) < 5


def test_an_error_that_is_kept_holds_nothing_open() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    with pytest.raises(ZeroDivisionError) as kept:
        list(ahead(lambda item: 1 // item, source(), depth=2))
    assert kept.value and closed


def test_closing_closes_what_it_draws_from_and_waits_for_its_threads() -> None:
    before, closed = threading.active_count(), []

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    stream = ahead(lambda item: item, ahead(lambda item: item, source(), depth=2), depth=3, threads=2)
    assert next(stream) == 0
    stream.close()
    assert closed and threading.active_count() == before


def test_several_threads_work_at_the_same_time_and_keep_the_order() -> None:
    together = threading.Barrier(3, timeout=10)

    def work(item: int) -> int:
        together.wait()  # passes only when three are here
        return item

    assert list(ahead(work, range(9), depth=3, threads=3)) == list(range(9))


def test_windows() -> None:
    assert list(windows(range(5), 2)) == [[0, 1], [2, 3], [4]]

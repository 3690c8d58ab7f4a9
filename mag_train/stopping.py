"""Ctrl-C and SIGTERM as a request to stop at the next good place, instead of an exception at any place."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether somebody has asked to stop."""

    requested = False


@contextmanager
def stop_request() -> Iterator[Stop]:
    """While inside, Ctrl-C and SIGTERM ask the loop to stop after the step in hand, not the process."""
    stop = Stop()

    def request(_signal: int, _frame: FrameType | None) -> None:
        stop.requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Whoever asks a loop to stop is heard, and everybody else is asked as before."""

import signal

import pytest

from mag_train.stopping import stop_request


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_while_inside_and_does_afterwards_what_it_did(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(RuntimeError, match="in the loop"), stop_request() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        raise RuntimeError("in the loop")
    assert signal.getsignal(number) is before

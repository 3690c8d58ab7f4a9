"""Hostile input is the CPU's business, whatever other tests have loaded."""

import pytest


@pytest.fixture(autouse=True)
def on_the_cpu(without_pycuda: None) -> None:
    """A scanner takes no GPU."""

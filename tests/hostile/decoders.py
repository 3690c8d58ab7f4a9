"""Decoders that do what no decoder should, for workers to run."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator

import numpy as np

from mag_rt.pictures import Decoded
from mag_rt.video import Sampling, Shot

HELD: list[np.ndarray] = []


def misbehave(data: bytes, enough: int | None) -> Decoded:
    """What the data says; else a picture of one pixel whose value is the process's number modulo 256."""
    match data:
        case b"segfault":
            ctypes.string_at(0)
        case b"abort":
            os.abort()
        case b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"exit":
            os._exit(3)
        case b"raise":
            raise ZeroDivisionError
        case b"hang":
            time.sleep(600)
        case b"nap":
            time.sleep(0.5)
        case b"spin":
            while True:
                pass
        case b"eat":
            while True:
                HELD.append(np.ones(1 << 27, np.uint8))
        case b"print":
            os.write(1, b"noise")
            os.write(2, b"noise")
        case b"read":
            return pixel(len(sys.stdin.read()))
        case b"flat":
            return Decoded(np.zeros((3, 3), np.uint8), (3, 3))
        case b"huge":
            return Decoded(np.zeros((3, 3, 3), np.uint8), (1 << 20, 1 << 20))
        case b"smaller":
            return Decoded(np.zeros((3, 3, 3), np.uint8), (3, 2))
        case _ if data.startswith(b"send"):  # it has been taken over, and answers by itself
            os.write(int(sys.argv[1]), len(data[4:]).to_bytes(4, "big") + data[4:])
        case b"limit":
            import resource

            return pixel(resource.getrlimit(resource.RLIMIT_AS)[0] >> 30)
        case b"sockets":
            return pixel(len(os.listdir("/proc/self/fd")))
    return pixel(os.getpid() % 256)


def pixel(value: int) -> Decoded:
    return Decoded(np.full((1, 1, 3), value, np.uint8), (1, 1))


def four_and_a_crash(path: str, sampling: Sampling, alive: object) -> Iterator[Shot]:
    """Some frames of a video that then takes its decoder down."""
    for index in range(4):
        yield Shot(index, index / 2, np.full((2, 3, 3), index, np.uint8))
    os.abort()


def slow(path: str, sampling: Sampling, alive: object) -> Iterator[Shot]:
    """Two frames with a long stretch between them that is passed over."""
    yield Shot(0, 0.0, np.zeros((2, 3, 3), np.uint8))
    for _ in range(30):
        time.sleep(0.1)
        alive()  # type: ignore[operator]
    yield Shot(30, 3.0, np.zeros((2, 3, 3), np.uint8))


def endless(path: str, sampling: Sampling, alive: object) -> Iterator[Shot]:
    """More frames than there is memory for, were they not asked for one by one; the file says how many there were."""
    index = 0
    while True:
        yield Shot(index, float(index), np.full((512, 512, 3), min(index, 255), np.uint8))
        index += 1
        with open(path, "w") as file:  # noqa: PTH123
            file.write(str(index))

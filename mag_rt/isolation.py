"""Decoding in processes of their own, limited in memory and time: a decoder that crashes costs one picture.

What decodes untrusted files is C code of many hands. Here it runs beside us; what it hands back is a size and pixels,
which are checked. It is no sandbox: a file that takes a worker over can do what the user can.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt import pictures, video
from mag_rt.errors import MagrtError, PictureError
from mag_rt.pictures import LARGER, MOST_BYTES, MOST_PIXELS, Decoded, Picture
from mag_rt.video import Sampling, Shot

MEMORY = 3 << 30
"""Address space that a worker may take, bytes. Pictures of `MOST_PIXELS` fit; CMYK TIFF and 16-bit PNG take 2.7 GB."""
SECONDS = 60.0
"""Within which a picture is decoded, or a frame of a video found: four times what a picture of `MOST_PIXELS` takes."""

_START = "import sys; sys.path[:] = sys.argv[5:]; from mag_rt.isolation import serve; serve(*sys.argv[1:5])"
_FRUGAL = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Each thread of each core would take address space that is not used."""
_LONGEST_HEADER = 1 << 16
_NOTHING = memoryview(b"")
_NONSENSE = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""What is raised where a header does not hold what it should."""


class Decoders:
    """Workers that decode pictures and videos: as many as threads ask at the same time, started again when they die.

    Its methods stand in for `mag_rt.pictures.decode` and `mag_rt.video.shots`, raise what these raise, and
    PictureError decoder-crashed or decoder-timeout. `seconds` for each picture or frame; `memory` in bytes.

    May be used by several threads. Use it in a `with` statement, or call `close`.

    Raises MagrtError where the system is no POSIX one; its methods raise it where a worker does not start.
    """

    def __init__(
        self,
        decode: Callable[[bytes, int | None], Decoded] = pictures.decode,
        shots: Callable[..., Iterator[Shot]] = video.shots,
        memory: int = MEMORY,
        seconds: float = SECONDS,
    ) -> None:
        if os.name != "posix":
            raise MagrtError("decoding in isolation needs a POSIX system")
        self._command = (f"{decode.__module__}:{decode.__qualname__}", f"{shots.__module__}:{shots.__qualname__}")
        self._memory, self._seconds = memory, seconds
        self._lock, self._closed = threading.Lock(), False
        self._idle = [self._started()]

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; those in use end when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def decode(self, data: bytes, enough: int | None = None) -> Decoded:
        """As `mag_rt.pictures.decode`."""
        with self._worker() as worker:
            worker.ask(self._seconds, {"do": "decode", "enough": enough}, data)
            header, picture = worker.answer(self._seconds)
            with _nothing_else():
                if "error" not in header:
                    height, width = map(int, header["size"])
                    quality = None if header["quality"] is None else int(header["quality"])
                    return Decoded(_checked(picture, height, width), (height, width), quality)
                failure = _failure(header)
        raise failure

    def shots(self, path: str, sampling: Sampling) -> Iterator[Shot]:
        """As `mag_rt.video.shots`; the worker is at most a few frames ahead."""
        with self._worker() as worker:
            wanted = {"do": "shots", "path": path, "every": sampling.every, "fps": sampling.fps}
            worker.ask(self._seconds, wanted)
            while True:
                header, picture = worker.answer(self._seconds)
                if "alive" in header:
                    continue
                with _nothing_else():
                    if "index" not in header:
                        failure = _failure(header) if "error" in header else None
                        break
                    shot = Shot(int(header["index"]), float(header["time_s"]), _checked(picture, *picture.shape[:2]))
                yield shot
        if failure:
            raise failure

    @contextlib.contextmanager
    def _worker(self) -> Iterator["_Worker"]:
        """A worker of one's own for a while; one that was left in the middle of something does not come back."""
        worker = self._take()
        try:
            worker.wait_until_ready(self._seconds)
            yield worker
        except BaseException:
            worker.end()
            raise
        self._give_back(worker)

    def _take(self) -> "_Worker":
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._started()

    def _started(self) -> "_Worker":
        try:
            return _Worker(*self._command, self._memory)
        except OSError as error:
            raise MagrtError(f"a process to decode in does not start: {error.strerror}") from None

    def _give_back(self, worker: "_Worker") -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(worker)
                return
        worker.end()


class _Worker:
    """A process that decodes, seen from here."""

    def __init__(self, decode: str, shots: str, memory: int) -> None:
        self._ready = False
        self._channel, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), decode, shots, str(memory), *sys.path]
        try:
            # It imports from where we did, and nothing that lies in the folder where we were started. A session of its
            # own keeps Ctrl-C from it: whether to stop is decided here.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_FRUGAL},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            self._channel.close()
            raise
        finally:
            theirs.close()

    def wait_until_ready(self, seconds: float) -> None:
        """Return once it has started. Raises MagrtError when it does not."""
        if not self._ready:
            try:
                self.answer(seconds)
            except PictureError as error:
                raise MagrtError(f"a process to decode in does not start: {error}") from None
            self._ready = True

    def ask(self, seconds: float, header: dict[str, Any], payload: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # it has died or hangs, which the answer will say
            self._channel.settimeout(seconds)
            _send(self._channel, header, memoryview(payload))

    def answer(self, seconds: float) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """The next header and what comes with it. Raises PictureError: decoder-crashed or decoder-timeout."""
        try:
            return _receive(self._channel, time.monotonic() + seconds)
        except TimeoutError:
            raise PictureError("decoder-timeout", f"decoding took more than {seconds:.0f} seconds") from None
        except (OSError, *_NONSENSE):
            raise PictureError("decoder-crashed", f"the decoder crashed ({self._death()})") from None

    def _death(self) -> str:
        self._process.kill()  # if it has not died yet; of two signals the first one counts
        status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    def end(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


def _checked(picture: NDArray[np.uint8], height: int, width: int) -> Picture:
    """The picture, which may be as large as a viewer shows it, height x width, or smaller. Raises ValueError."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise ValueError("no picture")
    if height < picture.shape[0] or width < picture.shape[1] or height * width > LARGER * MOST_PIXELS:
        raise ValueError("not its size")
    return picture


def _failure(header: dict[str, Any]) -> PictureError:
    kind, message = header["error"]
    return PictureError(str(kind), str(message))


@contextlib.contextmanager
def _nothing_else() -> Iterator[None]:
    """What a decoder sends that is none of ours is taken for a crash: a file may have taken the decoder over."""
    try:
        yield
    except _NONSENSE:
        raise PictureError("decoder-crashed", "the decoder sent no picture") from None


def _send(channel: socket.socket, header: dict[str, Any], payload: memoryview, shape: tuple[int, ...] = ()) -> None:
    """A header as JSON, its length before it, and bytes whose number or shape it says."""
    text = json.dumps({**header, "shape": shape or [payload.nbytes]}).encode("ascii")
    channel.sendall(len(text).to_bytes(4, "big") + text)
    channel.sendall(payload)


def _receive(channel: socket.socket, until: float | None = None) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """What `_send` sent, by the `until` of time.monotonic. Raises OSError (TimeoutError, the end), `_NONSENSE`."""
    length = int.from_bytes(_exactly(channel, 4, until), "big")
    if length > _LONGEST_HEADER:
        raise ValueError("a header too long")
    header = json.loads(_exactly(channel, length, until).tobytes())
    shape = tuple(map(int, header["shape"]))
    if min(shape) < 0 or np.prod(shape, dtype=float) > MOST_BYTES:
        raise ValueError("a payload too large")
    return header, _exactly(channel, int(np.prod(shape)), until).reshape(shape)


def _exactly(channel: socket.socket, count: int, until: float | None) -> NDArray[np.uint8]:
    received = np.empty(count, np.uint8)
    missing = received.data
    while missing:
        if until is not None:
            channel.settimeout(max(0.001, until - time.monotonic()))
        got = channel.recv_into(missing)
        if not got:
            raise ConnectionResetError
        missing = missing[got:]
    return received


def serve(descriptor: str, decode: str, shots: str, memory: str) -> None:
    """What a worker does: answer the requests on a socket until its other end closes. It never returns."""
    channel = socket.socket(fileno=int(descriptor))
    threading.Thread(target=_end_with, args=(channel,), daemon=True).start()
    pictures.silence_decoders()
    cv2.setNumThreads(1)  # the pictures are decoded side by side
    do = _named(decode), _named(shots)
    _limit(int(memory))
    _send(channel, {"ready": True}, _NOTHING)
    while True:
        header, payload = _receive(channel)
        data = payload.tobytes()
        del payload  # a large file is here once only
        try:
            _answer(channel, *do, header, data)
        except PictureError as error:
            _send(channel, {"error": [error.kind, str(error)]}, _NOTHING)
        except OSError as error:
            _send(channel, {"error": ["unreadable", error.strerror or str(error)]}, _NOTHING)
        except MemoryError:
            _send(channel, {"error": ["too-large", "there is not enough memory to decode it"]}, _NOTHING)
        del data


def _answer(
    channel: socket.socket,
    decode: Callable[[bytes, int | None], Decoded],
    shots: Callable[..., Iterator[Shot]],
    header: dict[str, Any],
    data: bytes,
) -> None:
    if header["do"] == "decode":
        decoded = decode(data, header["enough"])
        _send_picture(channel, {"size": decoded.size, "quality": decoded.quality}, decoded.picture)
    else:
        sampling = Sampling(header["every"], header["fps"])
        for shot in shots(header["path"], sampling, _sign_of_life(channel)):
            _send_picture(channel, {"index": shot.index, "time_s": shot.time_s}, shot.picture)
        _send(channel, {"end": True}, _NOTHING)


def _limit(memory: int) -> None:
    """From now on this process can take so many bytes more, and leaves no core file."""
    import resource  # no system but a POSIX one has it

    taken = 0
    with contextlib.suppress(OSError):  # Linux alone says it
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _send_picture(channel: socket.socket, header: dict[str, Any], picture: Picture) -> None:
    _send(channel, header, np.ascontiguousarray(picture).reshape(-1).data, picture.shape)


def _sign_of_life(channel: socket.socket) -> Callable[[], None]:
    """A function to call ever so often; once a second it says so."""
    last = time.monotonic()

    def alive() -> None:
        nonlocal last
        if time.monotonic() - last > 1:
            last = time.monotonic()
            _send(channel, {"alive": True}, _NOTHING)

    return alive


def _end_with(channel: socket.socket) -> None:
    """Wait until the other end closes, as when its process dies of whatever, and end this process at once."""
    poll = select.poll()
    poll.register(channel, 0)  # nothing but its hanging up
    poll.poll()
    os._exit(0)


def _named(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)

"""A decoder that crashes, hangs or eats memory costs one picture, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mag_rt import MagrtError, Scanner, pictures
from mag_rt.errors import PictureError
from mag_rt.isolation import Decoders
from mag_rt.video import Sampling, shots
from tests.conftest import grey_with_red_box, save
from tests.hostile.decoders import endless, four_and_a_crash, misbehave, slow
from tests.hostile.files import FILES, encode, film

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


def children() -> set[int]:
    """Process numbers of what was started from here and is not gone."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())) | {
        int(child) for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
    }


def failure(decoders: Decoders, data: bytes) -> tuple[str, str]:
    with pytest.raises(PictureError) as caught:
        decoders.decode(data)
    return caught.value.kind, str(caught.value)


def test_pictures_and_errors_are_those_of_the_decoder_itself() -> None:
    with Decoders() as decoders:
        for case in FILES[::5]:
            data = case.make()
            try:
                expected = pictures.decode(data, 32)
            except PictureError as error:
                assert failure(decoders, data) == (error.kind, str(error)), case.name
            else:
                decoded = decoders.decode(data, 32)
                assert np.array_equal(decoded.picture, expected.picture) and decoded.size == expected.size, case.name
                assert decoded.quality == expected.quality, case.name


def test_frames_are_those_of_the_video(tmp_path: Path) -> None:
    (tmp_path / "film.avi").write_bytes(film())
    path, sampling = str(tmp_path / "film.avi"), Sampling(every=2)
    with Decoders() as decoders:
        for mine, theirs in zip(decoders.shots(path, sampling), shots(path, sampling), strict=True):
            assert (mine.index, mine.time_s) == (theirs.index, theirs.time_s)
            assert np.array_equal(mine.picture, theirs.picture)
        with pytest.raises(PictureError, match="no video"):
            list(decoders.shots(__file__, sampling))
        with pytest.raises(PictureError, match="No such file"):
            list(decoders.shots(path + "x", sampling))


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"segfault", "decoder-crashed", "SIGSEGV"),
        (b"abort", "decoder-crashed", "SIGABRT"),
        (b"kill", "decoder-crashed", "SIGKILL"),
        (b"exit", "decoder-crashed", "status 3"),
        (b"raise", "decoder-crashed", "crashed"),
        (b"flat", "decoder-crashed", "no picture"),
        (b"huge", "decoder-crashed", "no picture"),
        (b"smaller", "decoder-crashed", "no picture"),
        (b'send{"shape": [0]}', "decoder-crashed", "no picture"),
        (b'send{"shape": [0], "error": 7}', "decoder-crashed", "no picture"),
        (b'send{"shape": 7}', "decoder-crashed", "crashed"),
        (b'send{"shape": [Infinity]}', "decoder-crashed", "crashed"),
        (b"send7", "decoder-crashed", "crashed"),
        (b"send" + b"[" * 60_000, "decoder-crashed", "crashed"),
        (b"send" + b" " * 70_000 + b'{"shape": [0]}', "decoder-crashed", "crashed"),
        (b"eat", "too-large", "not enough memory"),
    ],
)
def test_a_crash_costs_one_picture(data: bytes, kind: str, message: str) -> None:
    with Decoders(misbehave, memory=1 << 30) as decoders:
        assert decoders.decode(b"").picture.shape == (1, 1, 3)
        found, said = failure(decoders, data)
        assert found == kind and message in said
        assert decoders.decode(b"").picture.shape == (1, 1, 3)


@pytest.mark.parametrize("data", [b"hang", b"spin"])
def test_a_hang_costs_one_picture_and_the_time_allowed(data: bytes) -> None:
    with Decoders(misbehave, seconds=2) as decoders:
        began = time.monotonic()
        assert failure(decoders, data) == ("decoder-timeout", "decoding took more than 2 seconds")
        assert time.monotonic() - began < 4
        assert decoders.decode(b"").picture.shape == (1, 1, 3)


def test_a_picture_has_its_own_time_however_little_the_one_before_had_left() -> None:
    with Decoders(misbehave) as decoders:
        decoders.decode(b"")
        (worker,) = decoders._idle
        worker._channel.settimeout(0.001)  # as an answer at the last moment leaves it
        assert decoders.decode(bytes(1 << 27)).picture.shape == (1, 1, 3)


def test_a_worker_says_nothing_reads_nothing_and_is_used_again(capfd: pytest.CaptureFixture[str]) -> None:
    with Decoders(misbehave) as decoders:
        first = decoders.decode(b"").picture
        decoders.decode(b"print")
        assert decoders.decode(b"read").picture[0, 0, 0] == 0
        assert np.array_equal(decoders.decode(b"").picture, first)
    assert capfd.readouterr() == ("", "")


def test_each_thread_has_a_worker_of_its_own_and_no_more_are_started() -> None:
    before = children()
    with Decoders(misbehave) as decoders, ThreadPoolExecutor(3) as pool:
        list(pool.map(decoders.decode, [b""] * 60))
        assert 1 <= len(children() - before) <= 3
    assert children() == before


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before, files_before = children(), len(os.listdir("/proc/self/fd"))
    decoders = Decoders(misbehave, endless)
    for data in (b"abort", b"segfault"):
        decoders.decode(b"")
        failure(decoders, data)
    frames = decoders.shots(str(tmp_path / "count"), Sampling())
    next(frames)
    frames.close()  # left in the middle
    unfinished = decoders.shots(str(tmp_path / "count"), Sampling())
    next(unfinished)
    with ThreadPoolExecutor(1) as pool:
        napping = pool.submit(decoders.decode, b"nap")
        time.sleep(0.2)
        decoders.close()
        assert napping.result().size == (1, 1)
    unfinished.close()
    assert children() == before and len(os.listdir("/proc/self/fd")) == files_before


def test_workers_share_no_descriptors() -> None:
    with Decoders(misbehave) as decoders, ThreadPoolExecutor(3) as pool:
        list(pool.map(decoders.decode, [b""] * 60))
        alone = [decoders.decode(b"sockets").picture[0, 0, 0] for _ in range(9)]
    assert max(alone) <= 6  # stdin, stdout, stderr, the socket, a random source and the folder being listed


def test_a_video_whose_decoder_crashes_keeps_the_frames_before() -> None:
    with Decoders(shots=four_and_a_crash) as decoders:
        taken = []
        with pytest.raises(PictureError, match="SIGABRT") as caught:
            for shot in decoders.shots("film.mp4", Sampling()):
                taken.append(shot.index)  # noqa: PERF401
        assert taken == [0, 1, 2, 3] and caught.value.kind == "decoder-crashed"


def test_a_long_stretch_that_is_passed_over_is_no_hang() -> None:
    with Decoders(shots=slow, seconds=2) as decoders:
        assert [shot.index for shot in decoders.shots("film.mp4", Sampling())] == [0, 30]


def test_frames_wait_until_they_are_asked_for(tmp_path: Path) -> None:
    with Decoders(shots=endless) as decoders:
        frames = decoders.shots(str(tmp_path / "count"), Sampling())
        next(frames)
        time.sleep(0.5)
        assert int((tmp_path / "count").read_text() or 0) <= 4
        assert [next(frames).picture[0, 0, 0] for _ in range(10)] == list(range(1, 11))
        frames.close()


START = """
import os, signal, sys, time
sys.path[:] = {path!r}
from mag_rt.isolation import Decoders
from tests.hostile.decoders import misbehave
from concurrent.futures import ThreadPoolExecutor
decoders = Decoders(misbehave)
pid = decoders._idle[0]._process.pid
decoders.decode(b"")  # it is ready
if {busy}:
    ThreadPoolExecutor(1).submit(decoders.decode, b"hang")
    time.sleep(0.3)
print(pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("busy", [False, True])
def test_workers_die_with_the_scan_even_when_it_is_killed(busy: bool) -> None:
    script = START.format(path=[os.getcwd(), *sys.path], busy=busy)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    assert is_running(worker)
    process.kill()
    process.wait()
    until = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_running(worker)
    process.stdout.close()


def test_ctrl_c_is_the_scans_to_decide() -> None:
    with Decoders(misbehave) as decoders:
        first = decoders.decode(b"").picture
        worker = decoders._idle[0]._process.pid
        assert os.getsid(worker) != os.getsid(0)  # so that the terminal's Ctrl-C does not reach it
        assert np.array_equal(decoders.decode(b"").picture, first)


def test_modules_in_the_folder_where_it_was_started_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "cv2", "numpy", "socket", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(9)")
    monkeypatch.setattr(sys, "path", [entry or os.getcwd() for entry in sys.path])
    monkeypatch.chdir(tmp_path)
    with Decoders() as decoders:
        assert decoders.decode(encode("PNG")).size == (32, 48)


def test_workers_that_do_not_start_are_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    for program in ("/bin/false", "/no/such/file"):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(MagrtError, match="does not start"), Decoders() as decoders:
            decoders.decode(b"")
    assert children() == before


def test_a_scanner_that_cannot_be_opened_leaves_no_worker(red_model: Path) -> None:
    before = children()
    with pytest.raises(MagrtError, match="abacus"):
        Scanner(red_model, isolate=True, backend="abacus")
    assert children() == before


def test_a_scan_in_isolation_finds_the_same_and_opens_nothing_here(
    red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    for index in range(6):
        save(folder / f"{index}.jpg", grey_with_red_box(40 + index, 60, (10, 10, 20, 20)))
    (folder / "3.jpg").write_bytes(b"not a picture")
    (folder / "film.avi").write_bytes(film())
    before = children()
    with Scanner(red_model) as scanner:
        expected = list(scanner.scan([folder]))
    for name in ("imdecode", "VideoCapture"):
        monkeypatch.setattr(pictures.cv2, name, None)
    with Scanner(red_model, isolate=True) as scanner:
        found = list(scanner.scan([folder]))
        assert list(scanner.scan([folder])) == found
    assert found == expected
    for mine, theirs in zip(found, expected, strict=True):
        assert np.array_equal(mine.mask, theirs.mask)
    assert children() == before


def test_a_crash_in_a_scan_is_one_error_line(red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png", grey_with_red_box(40, 40))
    (tmp_path / "in" / "b.png").write_bytes(b"segfault")
    with Scanner(red_model, isolate=True) as scanner, Decoders(misbehave) as decoders:
        monkeypatch.setattr(scanner, "_decoders", decoders)
        first, second, third = scanner.scan([tmp_path / "in"])
    assert first.error is None and third.error is None
    assert second.error is not None and second.error.type == "decoder-crashed"
    assert second.sha256 is not None
    assert signal.Signals.SIGSEGV.name in second.error.message

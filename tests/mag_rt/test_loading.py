"""A file becomes a picture or one reason why not, also when somebody changes it meanwhile."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mag_rt import loading
from mag_rt.loading import Loaded, load_picture, load_video
from mag_rt.pictures import Decoded
from mag_rt.video import Sampling, Shot, shots
from tests.hostile.files import encode, film, jpeg

EACH = Sampling(every=1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg())
    return path


def failure(loaded: Loaded) -> tuple[str, str]:
    assert loaded.failure is not None and loaded.decoded is None
    return loaded.failure.type, loaded.failure.message


def test_the_hash_is_of_what_was_decoded(photo: Path) -> None:
    given = []

    def decode(data: bytes, enough: int | None) -> Decoded:
        given.append((data, enough))
        return Decoded(np.zeros((1, 2, 3), np.uint8), (4, 8))

    loaded = load_picture(str(photo), 7, decode)
    assert given == [(photo.read_bytes(), 7)] and loaded.failure is None
    assert loaded.sha256 == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert loaded.decoded is not None and loaded.decoded.size == (4, 8)


def while_it_is_read(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Do something right after a file was opened and looked at."""
    look = os.fstat

    def look_and_change(descriptor: int) -> os.stat_result:
        status = look(descriptor)
        monkeypatch.setattr(loading.os, "fstat", look)
        change()
        return status

    monkeypatch.setattr(loading.os, "fstat", look_and_change)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def at_the_same_time(path: Path, change: Callable[[Path], object]) -> None:
    """Change a file and say that it was not."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        grow,
        lambda path: os.truncate(path, 100),
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, 1 << 40),  # as one that grows without end: no more is read than was there
        lambda path: path.write_bytes(path.read_bytes()[::-1]),
        lambda path: at_the_same_time(path, grow),
    ],
    ids=["grows", "shrinks", "empties", "grows-without-end", "is-rewritten", "grows-at-the-same-time"],
)
def test_a_picture_that_changes_while_it_is_read(
    photo: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    os.utime(photo, ns=(1, 1))
    while_it_is_read(monkeypatch, lambda: change(photo))
    assert failure(load_picture(str(photo), None)) == ("changed", "the file was changed while it was read")


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.rename(path.with_suffix(".gone"))])
def test_a_picture_that_goes_once_it_is_open_is_read(
    photo: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    while_it_is_read(monkeypatch, lambda: change(photo))
    assert load_picture(str(photo), None).failure is None


def test_a_picture_that_has_gone(photo: Path) -> None:
    photo.unlink()
    loaded = load_picture(str(photo), None)
    assert failure(loaded) == ("unreadable", "No such file or directory") and loaded.sha256 is None


def test_a_file_too_large_to_be_read_is_not(photo: Path) -> None:
    os.truncate(photo, 1 << 40)
    kind, message = failure(load_picture(str(photo), None))
    assert kind == "too-large" and "1099512 MB" in message


def test_no_memory_is_an_error_line(photo: Path) -> None:
    def decode(data: bytes, enough: int | None) -> Decoded:
        raise MemoryError

    loaded = load_picture(str(photo), None, decode)
    assert failure(loaded) == ("too-large", "there is not enough memory to decode it") and loaded.sha256


def test_a_video_is_hashed_and_its_frames_are_in_order(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    path.write_bytes(film())
    loaded = list(load_video(str(path), EACH))
    assert [each.frame.index for each in loaded] == [0, 1, 2, 3, 4]
    assert {each.sha256 for each in loaded} == {hashlib.sha256(film()).hexdigest()}
    assert not any(each.failure for each in loaded)


def test_times_are_to_the_millisecond(photo: Path) -> None:
    third = Shot(7, 1 / 3, np.zeros((1, 1, 3), np.uint8))
    (loaded,) = load_video(str(photo), EACH, lambda source, sampling: iter([third]))
    assert (loaded.frame.index, loaded.frame.time_s) == (7, 0.333)


def replaced(path: Path) -> None:
    data = path.read_bytes()
    path.rename(path.with_suffix(".old"))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (grow, "changed"),
        (Path.unlink, "unreadable"),
        (lambda path: (path.unlink(), path.write_bytes(film())), "changed"),
        (lambda path: os.utime(path, ns=(1, 1)), "changed"),
        (lambda path: at_the_same_time(path, replaced), "changed"),
    ],
    ids=["grows", "vanishes", "is-replaced", "is-touched", "is-replaced-at-the-same-time"],
)
def test_a_video_that_changes_between_hash_and_last_frame(
    tmp_path: Path, change: Callable[[Path], object], kind: str
) -> None:
    path = tmp_path / "film.avi"
    path.write_bytes(film())

    def meddled_with(source: str, sampling: Sampling) -> Iterator[Shot]:
        for shot in shots(source, sampling):
            yield shot
            if shot.index == 2:
                change(path)

    *frames, last = load_video(str(path), EACH, meddled_with)
    assert [each.frame.index for each in frames] == [0, 1, 2, 3, 4]
    assert failure(last)[0] == kind and last.frame.index is None


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        assert failure(load_picture(str(source), None)) == ("unreadable", "not a regular file")
        (loaded,) = load_video(str(source), EACH)
        assert failure(loaded) == ("unreadable", "not a regular file")


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.stat(photo)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(loading.os, "stat", lambda _: status)  # as it was a moment ago
    assert failure(load_picture(str(tmp_path / "pipe"), None)) == ("unreadable", "not a regular file")


def test_sources_are_opened_for_reading_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    really = os.open

    def watched(path: str, flags: int, *rest: int, **more: int) -> int:
        if str(path).startswith(f"{tmp_path}/a"):
            modes.append(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        return really(path, flags, *rest, **more)

    monkeypatch.setattr(loading.os, "open", watched)
    (tmp_path / "a.png").write_bytes(encode("PNG"))
    (tmp_path / "a.avi").write_bytes(film())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert load_picture(str(tmp_path / "a.png"), None).failure is None
    assert len(list(load_video(str(tmp_path / "a.avi"), EACH))) == 5
    assert modes == [0, 0]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before

"""Videos: the right frames at the right times, damaged ones as far as they go."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from mag_rt import Scanner
from mag_rt.errors import PictureError
from mag_rt.findings import Finding
from mag_rt.sources import find
from mag_rt.video import SUFFIXES, Sampling, expected, is_video, segments, shots
from tests.conftest import grey_with_red_box
from tests.mag_rt.running import lines, magrt

RATE, COUNT = 10, 40


def film(path: Path, red_from: int = COUNT, red_to: int = COUNT) -> Path:
    """Four seconds whose frames get brighter, red between two frame numbers."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (96, 64))
    assert writer.isOpened()
    for index in range(COUNT):
        frame = np.zeros((64, 96, 3), np.uint8)
        frame[..., :2] = 6 * index
        writer.write(grey_with_red_box(64, 96, (20, 10, 40, 30)) if red_from <= index < red_to else frame)
    writer.release()
    return path


KINDS = {
    "mp4": "mp4v", "m4v": "mp4v", "mov": "mp4v", "3gp": "mp4v", "3g2": "mp4v", "mkv": "mp4v", "webm": "VP80",
    "avi": "MJPG", "mpg": "mpg2", "mpeg": "mpg1", "vob": "mpg2", "mts": "mpg2", "m2ts": "mpg2", "m2t": "mpg2",
    "ts": "mpg2", "mxf": "mpg2", "wmv": "WMV2", "asf": "mp4v", "flv": "FLV1", "ogv": "VP80",
}  # fmt: skip
"""A codec for each kind of file."""


@pytest.mark.parametrize("kind", sorted({suffix[1:] for suffix in SUFFIXES}))
def test_every_kind_of_file_that_a_folder_scan_takes_is_read(kind: str, red_model: Path, tmp_path: Path) -> None:
    path = tmp_path / f"film.{kind}"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*KINDS[kind]), 25, (96, 64))
    if not writer.isOpened():
        pytest.skip(f"nothing writes {kind} here")
    for index in range(75):
        writer.write(grey_with_red_box(64, 96, (20, 10, 40, 30) if index >= 40 else (0, 0, 0, 0)))
    writer.release()
    with Scanner(red_model) as scanner:
        found = list(scanner.scan(tmp_path))
    assert [finding.verdict for finding in found] == ["authentic", "authentic", "spliced"]
    assert [finding.time_s for finding in found] == pytest.approx([0, 1, 2], abs=0.05)


def brightness(shot) -> int:
    return round(shot.picture[..., 0].mean() / 6)


@pytest.mark.parametrize(
    ("sampling", "expected_frames"),
    [
        (Sampling(every=1), range(COUNT)),
        (Sampling(every=7), range(0, COUNT, 7)),
        (Sampling(fps=1), range(0, COUNT, 10)),
        (Sampling(fps=4), [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38]),
        (Sampling(fps=1000), range(COUNT)),
    ],
)
def test_the_frames_asked_for_come_with_their_times(tmp_path: Path, sampling: Sampling, expected_frames) -> None:
    path = str(film(tmp_path / "film.mkv"))
    taken = list(shots(path, sampling))
    assert [shot.index for shot in taken] == list(expected_frames)
    assert [brightness(shot) for shot in taken] == pytest.approx(list(expected_frames), abs=1)
    assert [shot.time_s for shot in taken] == pytest.approx([index / RATE for index in expected_frames])
    assert expected(path, sampling) == pytest.approx(len(taken), abs=1)


@pytest.mark.parametrize(("kind", "codec"), [("3gp", "mp4v"), ("3g2", "mp4v"), ("m2ts", "MPG2")])
def test_what_phones_and_camcorders_make_is_found_in_a_folder_and_read(tmp_path: Path, kind: str, codec: str) -> None:
    path = str(tmp_path / f"film.{kind}")
    writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 25, (96, 64))
    assert writer.isOpened()
    for index in range(50):
        writer.write(np.full((64, 96, 3), 5 * index, np.uint8))
    writer.release()
    assert [frame.source for frame in find([tmp_path])] == [path] and is_video(path)
    first, second = shots(path, Sampling(fps=1))
    assert (first.index, second.index) == (0, 25) and second.time_s == pytest.approx(1, abs=0.001)
    assert (first.picture.mean(), second.picture.mean()) == pytest.approx((0, 125), abs=3)


def test_a_sign_of_life_is_given_at_every_frame_that_is_passed_over(tmp_path: Path) -> None:
    signs: list[int] = []
    path = str(film(tmp_path / "film.avi"))
    assert [shot.index for shot in shots(path, Sampling(every=1000), lambda: signs.append(1))] == [0]
    assert len(signs) >= COUNT


def test_at_the_rate_of_the_video_every_frame_is_taken_whatever_the_rounding() -> None:
    sampling = Sampling(fps=100)
    assert all(sampling.takes(index, index / 100, (index - 1) / 100) for index in range(1, 1000))


def interlaced(path: Path) -> Path:
    """A second of noise in MPEG-2, whose frames are then said to be interlaced, as those of camcorders are."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"MPG2"), 25, (352, 288))
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    for _ in range(25):
        writer.write(cv2.resize(rng.integers(0, 256, (72, 88, 3), np.uint8), (352, 288)))
    writer.release()
    data, at = bytearray(path.read_bytes()), -1
    while (at := data.find(b"\0\0\1\xb5", at + 1)) >= 0:
        if data[at + 4] >> 4 == 1:  # sequence extension
            data[at + 5] &= ~0x08  # progressive_sequence
        elif data[at + 4] >> 4 == 8:  # picture coding extension
            data[at + 8] &= ~0x80  # progressive_frame
    path.write_bytes(data)
    return path


def test_interlaced_video_is_read_or_is_an_error_but_never_a_verdict_on_empty_frames(tmp_path: Path) -> None:
    path = str(interlaced(tmp_path / "tape.mkv"))
    try:
        assert len({shot.picture.tobytes() for shot in shots(path, Sampling(every=5))}) == 5  # opencv-python up to 4.12
    except PictureError as error:
        assert error.kind == "not-a-video" and "interlaced" in str(error)


@pytest.mark.parametrize("codec", ["MJPG", "MPG2", "mp4v"])
def test_a_video_that_stays_black_is_read(tmp_path: Path, codec: str) -> None:
    path = str(tmp_path / "black.mkv")
    writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 25, (640, 480))
    assert writer.isOpened()
    for _ in range(25):
        writer.write(np.zeros((480, 640, 3), np.uint8))
    writer.release()
    assert len(list(shots(path, Sampling(every=5)))) == 5


def with_a_pause(film: Path, frame: int, milliseconds: int) -> Path:
    """The film with everything from a frame on shown later: its rate varies. Edits the times of Matroska's blocks."""
    data = bytearray(film.read_bytes())
    at, found = 0, 0
    while (at := data.find(b"\xa3", at + 1)) >= 0:  # SimpleBlock: size, track 1, time (2 bytes), flags
        size = 1 + (8 - data[at + 1].bit_length()) if data[at + 1] else 9
        track = at + 1 + size
        if track + 4 < len(data) and data[track] == 0x81 and data[track + 4 : track + 6] == b"\xff\xd8":
            if found >= frame:
                time = int.from_bytes(data[track + 1 : track + 3], "big") + milliseconds
                data[track + 1 : track + 3] = time.to_bytes(2, "big")
            found += 1
    assert found == COUNT
    film.write_bytes(data)
    return film


def test_times_are_right_where_the_rate_varies(tmp_path: Path) -> None:
    path = with_a_pause(film(tmp_path / "film.mkv"), 20, 3000)
    times = [shot.time_s for shot in shots(str(path), Sampling(every=1))]
    assert times == pytest.approx([index / RATE + 3.0 * (index >= 20) for index in range(COUNT)])
    by_time = [shot.index for shot in shots(str(path), Sampling(fps=1))]
    assert by_time == [0, 10, 20, 30]  # and nothing is made up for the pause


def joined(path: Path) -> Path:
    """Two recordings of two seconds, one behind the other as a recorder stores them: each has its own time stamps."""
    one = path.with_name("one.ts")
    writer = cv2.VideoWriter(str(one), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"MPG2"), 25, (96, 64))
    assert writer.isOpened()
    for index in range(50):
        writer.write(np.full((64, 96, 3), 5 * index, np.uint8))
    writer.release()
    path.write_bytes(2 * one.read_bytes())
    return path


def test_a_video_whose_time_stamps_begin_anew_is_looked_at_to_its_end(tmp_path: Path, red_model: Path) -> None:
    path = joined(tmp_path / "joined.ts")
    every = list(shots(str(path), Sampling(every=1)))
    assert [shot.time_s for shot in every] == pytest.approx([index / 25 for index in range(100)], abs=0.001)
    assert [shot.index for shot in shots(str(path), Sampling(fps=1))] == [0, 25, 50, 75]
    assert magrt("scan", path, "--out", tmp_path / "out", "--model", red_model).returncode == 0
    assert [line["time_s"] for line in lines(tmp_path / "out")] == pytest.approx([0, 1, 2, 3], abs=0.001)


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([0, 0.2, 0.1, 0.4, 0.3, 0.5], [0, 0.2, 0.2, 0.4, 0.4, 0.5]),  # out of order between neighbours
        ([0, 0.1, 0.2, -50, -49.9], [0, 0.1, 0.2, 0.3, 0.4]),
        ([0, 0.1, 0.1, -50], [0, 0.1, 0.1, 0.2]),
        ([-50, -49.9, -49.8], [0, 0.1, 0.2]),
        ([-0.1, 0, 0.1], [0, 0, 0.1]),
        ([0, 0.5, 0, 0.5, 0, 0.5], [0, 0.5, 1, 1.5, 2, 2.5]),
        ([7, 7.5, 9], [7, 7.5, 9]),
    ],
)
def test_times_never_go_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamps: list[float], times: list[float]
) -> None:
    path = film(tmp_path / "film.avi")
    monkeypatch.setattr("mag_rt.video.cv2.VideoCapture", lambda *_: Stamped(stamps))
    assert [shot.time_s for shot in shots(str(path), Sampling(every=1))] == pytest.approx(times)


class Stamped:
    """A video whose frames have these time stamps, in seconds."""

    def __init__(self, stamps: list[float]) -> None:
        self.stamps = iter(stamps)

    def get(self, number: int) -> float:
        return 1000 * self.stamp if number == cv2.CAP_PROP_POS_MSEC else 1

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def grab(self) -> bool:
        self.stamp = next(self.stamps, math.nan)
        return not math.isnan(self.stamp)

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": -1}, *({"fps": fps} for fps in (0, -2, math.nan, math.inf)),
                                   {"fps": None}])  # fmt: skip
def test_a_sampling_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Sampling(**wrong)


@pytest.mark.parametrize("fps", ["inf", "nan", "0", "-2"])
def test_a_rate_that_cannot_be_is_a_usage_error(tmp_path: Path, fps: str) -> None:
    done = magrt("scan", tmp_path, "--out", tmp_path / "out", "--fps", fps)
    assert done.returncode == 2 and "--fps" in done.stderr and "Traceback" not in done.stderr


def test_a_cut_off_video_gives_what_can_be_read_and_an_error(tmp_path: Path, red_model: Path) -> None:
    path = film(tmp_path / "film.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Scanner(red_model, sampling=Sampling(every=1)) as scanner:
        *read, last = scanner.scan([path])
    assert 5 < len(read) < 30 and all(finding.error is None for finding in read)
    assert [finding.frame for finding in read] == list(range(len(read)))
    assert last.error is not None and last.error.type == "truncated" and last.frame is None


def test_what_is_no_video_is_said(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(PictureError, match="no video") as refused:
        list(shots(str(path), Sampling()))
    assert refused.value.kind == "not-a-video" and is_video(str(path)) and is_video("A.MOV") and not is_video("a.jpg")


def test_a_video_without_a_byte_is_empty(tmp_path: Path, red_model: Path) -> None:
    (tmp_path / "film.mp4").touch()
    with Scanner(red_model) as scanner:
        (last,) = scanner.scan([tmp_path / "film.mp4"])
    assert last.error is not None and last.error.type == "empty"


def finding(source: str, time_s: float, score: float) -> Finding:
    verdict = "spliced" if score >= 0.7 else "authentic"
    return Finding(source, round(10 * time_s), time_s, score=score, verdict=verdict)


def test_segments_are_the_spliced_stretches_with_their_peak() -> None:
    scores = {"a.mp4": [0.1, 0.8, 0.9, 0.8, 0.1, 0.75], "b.mp4": [0.95, 0.1]}
    found = [finding(source, i, score) for source, each in scores.items() for i, score in enumerate(each)]
    found.insert(6, Finding("picture.jpg", score=0.99, verdict="spliced"))
    assert [(each.source, each.from_s, each.to_s, each.peak_s, each.peak_score) for each in segments(found)] == [
        ("a.mp4", 1, 3, 2, 0.9),
        ("a.mp4", 5, 5, 5, 0.75),
        ("b.mp4", 0, 0, 0, 0.95),
    ]


def test_the_command_line_scans_a_video_among_pictures(tmp_path: Path, red_model: Path) -> None:
    (tmp_path / "in").mkdir()
    film(tmp_path / "in" / "film.mkv", 10, 31)
    cv2.imwrite(str(tmp_path / "in" / "still.png"), grey_with_red_box(40, 40))
    done = magrt("scan", tmp_path / "in", "--out", tmp_path / "out", "--model", red_model, "--fps", 2)
    assert done.returncode == 0 and "0:01.0 to 0:03.0 spliced" in done.stdout
    found = lines(tmp_path / "out")
    assert [(line["frame"], line["time_s"]) for line in found] == [(5 * i, i / 2) for i in range(8)] + [(None, None)]
    assert [line["verdict"] == "spliced" for line in found] == [False] * 2 + [True] * 5 + [False] * 2
    assert len({line["mask"] for line in found}) == 9
    (segment,) = json.loads((tmp_path / "out" / "run.json").read_text())["segments"]
    assert (segment["source"], segment["from_s"], segment["to_s"]) == ("../in/film.mkv", 1.0, 3.0)
    assert segment["peak_score"] == max(line["score"] for line in found)


def test_every_and_fps_together_are_refused(tmp_path: Path) -> None:
    done = magrt("scan", tmp_path, "--out", tmp_path / "out", "--fps", 2, "--every", 3)
    assert done.returncode == 2 and "--every and --fps" in done.stderr

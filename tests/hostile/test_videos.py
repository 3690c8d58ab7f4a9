"""Videos that mean ill, by name or by what is in them: their own frames or one error, and no other file is opened."""

import math
import os
import random
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import fuzz
from mag_rt import Scanner, video
from mag_rt.errors import PictureError
from mag_rt.isolation import Decoders
from mag_rt.video import Sampling, expected, shots
from tests.hostile.files import film

EACH = Sampling(every=1)


@pytest.mark.parametrize(
    "name",
    ["undecodable-\udce9.avi",
     "写真 🐑.avi", "two\nlines.avi", "-i.avi", "%03d.avi", "concat:film.avi", "file:film.avi",
     "subfile,,start,0,end,9,,:film.avi", "data:text,x.avi", "pipe:0.avi", "http:film.avi", "n" * 251 + ".avi"],
    ids=lambda name: ascii(name)[1:20],
)  # fmt: skip
def test_a_name_is_just_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(film())
    assert [shot.index for shot in shots(name, EACH)] == [0, 1, 2, 3, 4]
    assert expected(name, EACH) == 5
    with Decoders() as decoders:
        assert [shot.index for shot in decoders.shots(name, EACH)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {film}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 26\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{film}</BaseURL></MPD>',
    ],
    ids=["playlist", "list", "session", "manifest"],
)
def test_a_file_that_names_others_is_no_video(tmp_path: Path, text: str) -> None:
    (tmp_path / "film.avi").write_bytes(film())
    path = tmp_path / "list.mp4"
    path.write_text(text.format(film="film.avi"))
    with pytest.raises(PictureError, match="no video") as refused:
        list(shots(str(path), EACH))
    assert refused.value.kind == "not-a-video" and expected(str(path), EACH) == 1


def test_what_cannot_be_counted_counts_as_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe.mp4", "empty.mp4", "folder.mp4", "gone.mp4"):
        assert expected(str(tmp_path / name), EACH) == 1


class Claiming:
    """A video of whatever properties."""

    def __init__(self, **properties: float) -> None:
        self.properties = properties

    def get(self, number: int) -> float:
        names = {getattr(cv2, f"CAP_PROP_{name}"): value for name, value in self.properties.items()}
        return names.get(number, 1.0)

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def grab(self) -> bool:
        return True

    def retrieve(self) -> None:
        raise cv2.error("a frame whose size has changed to a huge one")

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("properties", "kind", "message"),
    [
        ({"FRAME_WIDTH": 30_000, "FRAME_HEIGHT": 30_000}, "too-large", "more than 150 megapixels"),
        ({"POS_MSEC": math.nan}, "truncated", "frame 0 has no time"),
        ({"POS_MSEC": math.inf}, "truncated", "frame 0 has no time"),
        ({"POS_MSEC": 0}, "truncated", "a frame cannot be decoded"),
    ],
)
def test_claims_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, properties: dict[str, float], kind: str, message: str
) -> None:
    (tmp_path / "film.avi").write_bytes(film())
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda *_: Claiming(**properties))
    with pytest.raises(PictureError, match=message) as refused:
        list(shots(str(tmp_path / "film.avi"), EACH))
    assert refused.value.kind == kind


class Varying(Claiming):
    """A video of 20 frames, the last of them at 60 seconds, though some rate promises more."""

    left = 20

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((4, 4, 3), np.uint8)


class Undecodable(Varying):
    def retrieve(self) -> tuple[bool, None]:
        return False, None


@pytest.mark.parametrize(("kind", "frames"), [(Undecodable, 20), (Varying, 0)])
def test_a_video_without_a_frame_that_can_be_shown_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Varying], frames: int
) -> None:
    (tmp_path / "film.avi").write_bytes(film())
    nothing = kind(FRAME_COUNT=frames, FPS=25)
    nothing.left = frames
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda *_: nothing)
    with pytest.raises(PictureError, match=f"the video ends after 0 of {frames} frames") as refused:
        list(shots(str(tmp_path / "film.avi"), EACH))
    assert refused.value.kind == "truncated"


@pytest.mark.parametrize(("promised_s", "complete"), [(61, True), (100, False)])
def test_a_rate_that_varies_is_no_loss_of_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promised_s: float, complete: bool
) -> None:
    (tmp_path / "film.avi").write_bytes(film())
    claims = {"FRAME_COUNT": 30.0 * promised_s, "FPS": 30.0, "POS_MSEC": 60_000.0}
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda *_: Varying(**claims))
    with nullcontext() if complete else pytest.raises(PictureError, match="ends after 20 of 3000 frames"):
        assert len(list(shots(str(tmp_path / "film.avi"), EACH))) == 20


@pytest.mark.parametrize(("promised", "complete"), [(102, True), (106, False)])
def test_a_container_may_promise_a_few_frames_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promised: int, complete: bool
) -> None:
    (tmp_path / "film.avi").write_bytes(film())
    monkeypatch.setattr(Varying, "left", 100)
    monkeypatch.setattr(
        video.cv2, "VideoCapture", lambda *_: Varying(FRAME_COUNT=promised, FPS=100 / 60, POS_MSEC=60_000.0)
    )
    with nullcontext() if complete else pytest.raises(PictureError, match="ends after 100 of 106 frames"):
        assert len(list(shots(str(tmp_path / "film.avi"), EACH))) == 100


@pytest.mark.parametrize("count", [-1, 0, math.nan, math.inf, 1e300])
@pytest.mark.parametrize("rate", [-1, 0, math.nan, math.inf, 1e-300])
def test_absurd_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: float, rate: float) -> None:
    (tmp_path / "film.avi").write_bytes(film())
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda *_: Claiming(FRAME_COUNT=count, FPS=rate))
    assert expected(str(tmp_path / "film.avi"), Sampling()) >= 1


def test_damaged_videos_end_in_a_line(red_model: Path, tmp_path: Path) -> None:
    films = {name: data for name, data in fuzz.originals().items() if name.startswith("film")}
    rng = random.Random(7)
    for index in range(60):
        name, data = fuzz.mutated(rng, films)
        (tmp_path / f"{index:02d}-{name}").write_bytes(data)
    with Scanner(red_model, sampling=EACH) as scanner:
        findings = list(scanner.scan([tmp_path]))
    assert len({finding.source for finding in findings}) == 60
    for finding in findings:
        assert finding.error is None or finding.error.type in ("not-a-video", "truncated", "too-large")
        assert expected(str(finding.source), EACH) >= 1

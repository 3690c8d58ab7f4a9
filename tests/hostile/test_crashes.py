"""Files that have crashed a decoder once, found by benchmarks/fuzz.py: they never do so again."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mag_rt.errors import PictureError
from mag_rt.isolation import Decoders
from mag_rt.pictures import Decoded

CRASHES = sorted((Path(__file__).parent / "crashes").iterdir())


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: path.name)
def test_it_does_not_crash(path: Path) -> None:
    with Decoders() as decoders:
        try:
            decoders.decode(path.read_bytes())
        except PictureError as error:
            assert not error.kind.startswith("decoder-")


def by_opencv_alone(data: bytes, enough: int | None) -> Decoded:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return Decoded(picture, picture.shape[:2])


@pytest.mark.skipif(cv2.__version__ != "5.0.0", reason="crashes of OpenCV 5.0.0")
def test_where_it_does_isolation_holds_it() -> None:
    """A real crash of a real decoder."""
    with Decoders(by_opencv_alone) as decoders:
        with pytest.raises(PictureError, match=r"SIGSEGV|SIGABRT|SIGBUS") as caught:
            decoders.decode((Path(__file__).parent / "crashes" / "animation-opencv-5.0.png").read_bytes())
        assert caught.value.kind == "decoder-crashed"

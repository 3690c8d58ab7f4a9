"""Decoding refuses what is no picture, and nothing is ever enlarged or stretched."""

import os
import struct
import subprocess
import sys
import tempfile
import zlib

import cv2
import numpy as np
import pytest

from mag_rt import pictures
from mag_rt.errors import PictureError
from mag_rt.pictures import Normalisation, decode, map_back, pad, shrink
from tests.conftest import grey_with_red_box

SCENE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8), (0, 0), 3)


def encoded(picture: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, picture)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_decodes_every_promised_format(suffix: str) -> None:
    picture = decode(encoded(SCENE, suffix)).picture
    assert picture.shape == SCENE.shape and picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - SCENE).mean() < 3


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_a_phones_heic_is_called_that_whatever_its_name(brand: bytes) -> None:
    with pytest.raises(PictureError, match=r"HEIC .* convert it") as refused:
        decode(b"\0\0\0\x18ftyp" + brand + bytes(100))
    assert refused.value.kind == "not-a-picture"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.98])
def test_refuses_a_file_that_was_cut_off(suffix: str, kept: float) -> None:
    data = encoded(SCENE, suffix)
    with pytest.raises(PictureError):
        decode(data[: int(len(data) * kept)])


def test_a_jpeg_cut_off_behind_a_whole_thumbnail_is_truncated() -> None:
    data = encoded(SCENE, ".jpg")
    thumbnail = encoded(SCENE[:16, :16], ".jpg")
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    assert decode(with_thumbnail).picture.shape == SCENE.shape
    with pytest.raises(PictureError) as caught:
        decode(with_thumbnail[:-40])
    assert caught.value.kind == "truncated"


def test_bytes_behind_the_end_of_a_jpeg_are_no_damage() -> None:
    assert decode(encoded(SCENE, ".jpg") + b"trailing bytes of a phone").picture.shape == SCENE.shape


def test_fill_bytes_and_an_appendix_are_no_damage() -> None:
    jpeg, png = encoded(SCENE, ".jpg"), encoded(SCENE, ".png")
    assert decode(jpeg[:2] + b"\xff\xff" + jpeg[2:]).picture.shape == SCENE.shape
    assert decode(png + b"x" * 10000).picture.shape == SCENE.shape


@pytest.mark.parametrize(
    ("data", "kind"), [(b"", "empty"), (b"just text", "not-a-picture"), (b"\xff\xd8\xff", "truncated")]
)
def test_says_what_is_wrong(data: bytes, kind: str) -> None:
    with pytest.raises(PictureError) as caught:
        decode(data)
    assert caught.value.kind == kind


def test_grey_and_16_bit_become_8_bit_colour() -> None:
    grey = cv2.cvtColor(SCENE, cv2.COLOR_BGR2GRAY)
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(decode(encoded(grey, ".png")).picture, expected)
    assert np.abs(decode(encoded(grey.astype(np.uint16) * 257, ".png")).picture.astype(int) - expected).max() <= 1


def exif_with_orientation(orientation: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    payload = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def test_exif_orientation_is_applied() -> None:
    data = encoded(SCENE, ".jpg")
    upright = decode(data).picture
    turned = decode(data[:2] + exif_with_orientation(6) + data[2:]).picture
    assert np.array_equal(turned, cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE))


def test_shrink_never_enlarges_and_keeps_the_shape() -> None:
    assert shrink(SCENE, 160) is SCENE
    assert shrink(SCENE, 80).shape == (60, 80, 3)
    assert shrink(np.zeros((2, 5000, 3), np.uint8), 100).shape == (1, 100, 3)


def test_pad_mirrors_at_the_right_and_at_the_bottom() -> None:
    padded = pad(SCENE, 32)
    assert padded.shape == (128, 160, 3)
    assert np.array_equal(padded[:120], SCENE)
    assert np.array_equal(padded[120:], SCENE[118:110:-1])
    assert pad(np.zeros((1, 1, 3), np.uint8), 32).shape == (32, 32, 3)


def test_normalisation_gives_planar_rgb_in_its_range() -> None:
    blob = Normalisation(scale=1 / 127.5, offset=-1.0)([grey_with_red_box(2, 2, (0, 0, 1, 2))])
    assert blob.shape == (1, 3, 2, 2) and blob.dtype == np.float32
    np.testing.assert_allclose(blob[0, 0], [[1, -1], [1, -1]], atol=1e-6)  # red
    np.testing.assert_allclose(blob[0, 2], [[-1, 90 / 127.5 - 1]] * 2, atol=1e-6)  # blue


def test_map_back_keeps_a_map_that_was_not_shrunk() -> None:
    plane = np.random.default_rng(0).random((7, 9), dtype=np.float32)
    assert map_back(plane, (7, 9)) is plane
    assert map_back(plane, (70, 90)).shape == (70, 90)


@pytest.mark.parametrize(
    ("enough", "shape"), [(None, (601, 903)), (500, (601, 903)), (450, (301, 452)), (100, (76, 113))]
)
def test_a_jpeg_is_decoded_no_larger_than_needed(enough: int | None, shape: tuple[int, int]) -> None:
    data = encoded(cv2.resize(SCENE, (903, 601)), ".jpg")
    decoded = decode(data, enough)
    assert decoded.size == (601, 903) and decoded.picture.shape[:2] == shape


@pytest.mark.parametrize("quality", [20, 50, 70, 77, 78, 90, 98])
@pytest.mark.parametrize("enough", [None, 40])
def test_the_quality_of_a_jpeg_is_that_of_its_tables(quality: int, enough: int | None) -> None:
    jpeg = cv2.imencode(".jpg", SCENE, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    assert decode(jpeg, enough).quality == quality
    for suffix in (".png", ".webp"):
        assert decode(encoded(SCENE, suffix)).quality is None


def test_tables_of_16_bits_and_colour_before_brightness() -> None:
    jpeg = cv2.imencode(".jpg", SCENE, [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes()
    brightness, colour = (jpeg.index(b"\xff\xdb\x00\x43" + bytes([number])) for number in (0, 1))
    steps = jpeg[brightness + 5 : brightness + 69]
    wide = b"\xff\xdb\x00\x83\x10" + b"".join(b"\0" + steps[at : at + 1] for at in range(64))
    swapped = jpeg[:brightness] + jpeg[colour : colour + 69] + wide + jpeg[colour + 69 :]
    assert decode(swapped).quality == decode(jpeg).quality == 30


def test_a_turned_jpeg_decoded_smaller_keeps_the_size_that_a_viewer_shows() -> None:
    data = encoded(cv2.resize(SCENE, (903, 601)), ".jpg")
    decoded = decode(data[:2] + exif_with_orientation(6) + data[2:], 100)
    assert decoded.size == (903, 601) and decoded.picture.shape[:2] == (113, 76)


def test_a_turned_jpeg_that_is_nearly_square_decoded_smaller() -> None:
    for width, height in ((25, 26), (26, 25)):  # both sides are 13 at a half
        data = encoded(cv2.resize(SCENE, (width, height)), ".jpg")
        for orientation, size in (
            (1, (height, width)),
            (3, (height, width)),
            (6, (width, height)),
            (8, (width, height)),
        ):
            decoded = decode(data[:2] + exif_with_orientation(orientation) + data[2:], 12)
            assert decoded.size == size and decoded.picture.shape[:2] == (13, 13)


@pytest.mark.parametrize("warnings", ["default", "error"])
def test_a_phones_photo_of_200_megapixels(warnings: str) -> None:
    code = """
import sys
from mag_rt.pictures import decode
decoded = decode(sys.stdin.buffer.read(), 1024)
print(decoded.size, decoded.picture.shape)
"""
    data = encoded(np.zeros((12240, 16320), np.uint8), ".jpg")
    said = subprocess.check_output([sys.executable, "-W", warnings, "-c", code], input=data)
    assert said.decode().strip() == "(12240, 16320) (1530, 2040, 3)"
    with pytest.raises(PictureError, match="claims 200 megapixels; 150"):
        decode(data)


def test_a_jpeg_with_junk_between_its_segments() -> None:
    data = encoded(SCENE, ".jpg")
    assert decode(data[:20] + b"junk\xff\0" + data[20:], 8).size == SCENE.shape[:2]


def test_other_formats_are_decoded_whole() -> None:
    assert decode(encoded(SCENE, ".png"), 8).picture.shape == SCENE.shape


def test_a_file_that_claims_more_than_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb: a few hundred bytes that would take gigabytes."""
    bomb = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), ".png"))
    bomb[16:24] = (30000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(PictureError, match="claims") as refused:
        decode(bytes(bomb))
    assert refused.value.kind == "too-large"
    monkeypatch.setattr(pictures, "MOST_PIXELS", SCENE.shape[0] * SCENE.shape[1] - 1)
    data = encoded(SCENE, ".jpg")
    with pytest.raises(PictureError, match="megapixels"):
        decode(data)
    assert decode(data, max(SCENE.shape) // 2).size == SCENE.shape[:2]  # few enough when decoded at a half


def test_a_side_longer_than_the_decoder_takes_is_too_large() -> None:
    line = bytearray(encoded(np.zeros((1, 8), np.uint8), ".bmp"))
    line[18:22] = ((1 << 20) + 1).to_bytes(4, "little")
    with pytest.raises(PictureError, match="more pixels than can be decoded") as refused:
        decode(bytes(line))
    assert refused.value.kind == "too-large"


def test_a_grey_corner_is_no_damage() -> None:
    """Where a JPEG's data ends too early, the rest is of this very grey; it may as well be the picture's own."""
    for picture in (np.full((40, 56, 3), 128, np.uint8), np.full((8, 8), 128, np.uint8)):
        for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]):
            data = cv2.imencode(".jpg", picture, options)[1].tobytes()
            assert (decode(data).picture == 128).all()
    half = SCENE.copy()
    half[60:] = 128
    assert decode(encoded(half, ".jpg")).picture.shape == SCENE.shape


@pytest.mark.parametrize("enough", [None, 30])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kept", [0.4, 0.9, 0.97])
def test_a_jpeg_whose_rest_would_be_grey_is_truncated(enough: int | None, orientation: int, kept: float) -> None:
    data = encoded(cv2.resize(SCENE, (320, 240)), ".jpg")
    data = data[:2] + exif_with_orientation(orientation) + data[2:]
    with pytest.raises(PictureError) as caught:
        decode(data[: int(kept * len(data))] + b"\xff\xd9", enough)
    assert caught.value.kind == "truncated"


def test_no_memory_is_said_to_be_no_memory() -> None:
    code = """
import resource, sys
from mag_rt.errors import PictureError
from mag_rt.pictures import decode
data = open(sys.argv[1], "rb").read()
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    decode(data)
except PictureError as error:
    print(error.kind, "|", error)
"""
    picture = np.zeros((12_000, 12_000, 3), np.uint8)
    for suffix in (".png", ".tif", ".bmp"):
        with tempfile.NamedTemporaryFile() as file:
            file.write(encoded(picture, suffix))
            file.flush()
            said = subprocess.check_output([sys.executable, "-c", code, file.name], text=True)
        assert said.strip() == "too-large | there is not enough memory to decode it"


def test_silenced_decoders_leave_stderr_to_python() -> None:
    code = """
import os, sys
from mag_rt.pictures import silence_decoders
print("before", file=sys.stderr)
silence_decoders()
silence_decoders()
os.write(2, b"from a C library\\n")
print("after \\u2192", file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == "before\nafter →\n"

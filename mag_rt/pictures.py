"""Pictures on their way to the network and back: decode, shrink, pad, normalise, map back."""

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.errors import PictureError

Value = TypeVar("Value", np.float32, np.uint8)
Picture = NDArray[np.uint8]
"""H x W x 3, BGR, as a viewer shows it."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".jp2"}
)
"""File names that a folder scan picks up, lower case."""

MOST_PIXELS = 150_000_000
"""Decoded pixels of a picture, at most: a small file can claim to hold any number."""

LARGER = 2
"""Times `MOST_PIXELS` that a JPEG may have which is decoded at a half or less: its mask has all of them, and libjpeg
holds the coefficients of all of a progressive one."""

MOST_BYTES = 7 * MOST_PIXELS
"""Of a picture's file, at most: more than the largest picture takes with 16 bits a channel and no compression."""

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_DAMAGED = "the file is damaged, or no picture of a kind that can be decoded"

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
"""Of a segment that has a length."""
_JPEG_FRAMES, _JPEG_EXIF, _JPEG_SCAN = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}, 0xE1, 0xDA
_JPEG_STEPS = 0xDB
_STEPS_AT_50 = 57.625
"""Mean of the table that brightness is quantised with at libjpeg's quality 50 (ITU-T T.81, table K.1)."""
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_PNG_PICTURE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT"})
"""The chunks that a PNG's picture and its orientation are in."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GIF = b"GIF8"
_FORMATS = (_JPEG, _PNG, *_TIFF, b"BM", _GIF)
"""How files begin that are given to a decoder: OpenCV knows more formats, none of them a photo's, some read loosely."""
_RIFF_OR_BOX = (b"WEBP", b"ftypavif", b"ftypavis", b"jP  ")
"""The same from the fifth byte on (JPEG 2000), or the ninth (WebP)."""
_HEIF = (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1")
"""The same of phones' files, which are not read and often called .jpg."""
_NO_DATA = (128, 128, 128)
"""What libjpeg fills in, to the level, where a picture's data ends too early."""
_TIFF_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Pillow's kinds of picture of at most 8 bits a channel."""


@dataclass(frozen=True)
class Decoded:
    """A picture and the size, height and width, that a viewer shows it at; the pixels may be fewer."""

    picture: Picture
    size: tuple[int, int]
    quality: int | None = None
    """At which it was saved as a JPEG, 1 to 100 as libjpeg counts; None for what is no JPEG."""


def decode(data: bytes, enough: int | None = None) -> Decoded:
    """The picture in an encoded file: 8 bits, three channels, EXIF orientation applied, alpha dropped.

    JPEG, PNG, WebP, TIFF and BMP are read whatever the file is called, and GIF, AVIF and JPEG 2000 for good measure.
    16-bit, grey, palette and CMYK pictures are converted; of an animation or of several pages the first is taken.
    `enough`: a JPEG whose longer side is at least twice as many pixels is decoded at a half, a quarter or an eighth of
    its size, which its blocks give for free, but at no fewer than these.

    Raises PictureError: empty, truncated, not-a-picture, or too-large (more than `MOST_PIXELS`, a JPEG that is decoded
    at less than its size more than `LARGER` times as many, or more than there is memory for).
    """
    if not data:
        raise PictureError("empty", "the file is empty")
    if data.startswith(_HEIF, 4):
        raise PictureError(
            "not-a-picture", "the file is HEIC or the like, whatever its name: convert it to JPEG or PNG"
        )
    if not _is_known(data):
        raise PictureError("not-a-picture", "the file is no picture of a kind that can be decoded")
    if _is_cut_off(data):
        raise PictureError("truncated", "the file ends in the middle of the picture")
    claimed = _claimed_size(data)
    reduction = 1
    if enough and data.startswith(_JPEG):
        reduction = max(factor for factor in _REDUCED if factor == 1 or max(claimed) >= factor * enough)
    pixels, most = claimed[0] * claimed[1], MOST_PIXELS * (1 if reduction == 1 else LARGER)
    if pixels > most:
        raise PictureError(
            "too-large", f"the picture claims {pixels / 1e6:.0f} megapixels; {most // 10**6} are decoded at most"
        )
    try:
        picture = _by_pillow(data) if data.startswith((*_TIFF, _GIF)) else None
        if picture is None:
            picture = _decoded(_still(data) if data.startswith(_PNG) else data, reduction)
    except MemoryError:
        raise PictureError("too-large", "there is not enough memory to decode it") from None
    quality = _quality(data) if data.startswith(_JPEG) else None
    if reduction == 1:
        return Decoded(picture, picture.shape[:2], quality)
    height, width = (-(-side // reduction) for side in claimed)
    turned = _is_turned(data) if height == width else picture.shape[:2] != (height, width)
    return Decoded(picture, claimed[::-1] if turned else claimed, quality)


def _is_known(data: bytes) -> bool:
    return data.startswith(_FORMATS) or data.startswith(_RIFF_OR_BOX, 4) or data.startswith(_RIFF_OR_BOX, 8)


def _decoded(data: bytes, reduction: int) -> Picture:
    picture = _by_opencv(data, reduction)
    corners = picture[:: max(1, picture.shape[0] - 1), :: max(1, picture.shape[1] - 1)].reshape(-1, 3)
    if data.startswith(_JPEG) and (corners == _NO_DATA).all(axis=1).any():  # wherever orientation has put the last one
        # Where data lacks, some more of it makes a difference; where all is there, what follows is passed over.
        end = data.find(_JPEG_END, _first_scan(data))
        longer = _by_opencv(data[:end] + b"\x5a\x3c\xa5" * 64 + data[end:], reduction)
        if not np.array_equal(picture, longer):
            raise PictureError("truncated", "the picture's data ends in the middle")
    return picture


def _still(png: bytes) -> bytes:
    """A PNG without what is written beside its picture, and without the other frames of an animation.

    OpenCV (5.0 at least) crashes of some animations that are damaged, and inflates texts only to pass over them.
    """
    kept, at = [png[: len(_PNG)]], len(_PNG)
    while at + 12 <= len(png) and png[at + 4 : at + 8] != _PNG_END:
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")  # length, kind, content, checksum
        if png[at + 4 : at + 8] in _PNG_PICTURE:
            kept.append(png[at:end])
        at = end
    return b"".join([*kept, b"\0\0\0\0IEND\xaeB`\x82"])


def _by_opencv(data: bytes, reduction: int) -> Picture:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[reduction])
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        if "CV_IO_MAX_IMAGE" in str(error):
            raise PictureError("too-large", "the picture claims more pixels than can be decoded") from None
        picture = None
    if picture is None:
        raise PictureError("not-a-picture", _DAMAGED)
    return picture


def _by_pillow(data: bytes) -> Picture | None:
    """A TIFF of at most 8 bits a channel, or a GIF; None for a TIFF of more.

    OpenCV leaves black what is damaged in a compressed TIFF, multiplies by alpha and refuses small tiles; its reader of
    GIF is young.
    """
    try:
        with _pillow().open(io.BytesIO(data)) as image:
            if image.mode not in _TIFF_MODES:
                return None
            image.load()  # turns it, too
            rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except MemoryError:
        raise
    except Exception:  # of any kind, as below
        raise PictureError("not-a-picture", _DAMAGED) from None
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


def _claimed_size(data: bytes) -> tuple[int, int]:
    """Height and width that the file's header claims, before any orientation."""
    if data.startswith(_PNG):  # Pillow would look at what is written about the picture, and balk at long texts
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data.startswith(_JPEG):  # Pillow would refuse what is small enough at a half
        at = _frame(data)
        return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
    image_module = _pillow()
    try:
        with image_module.open(io.BytesIO(data)) as image:
            return image.height, image.width
    except image_module.DecompressionBombError:
        raise PictureError("too-large", "the picture claims more pixels than can be decoded") from None
    except Exception:  # Pillow's parsers raise what they please
        # OpenCV may be able to decode it yet, but to what size?
        raise PictureError("not-a-picture", _DAMAGED) from None


@cache
def _pillow() -> Any:
    """Its module of pictures, loaded when the first one is looked at."""
    from PIL import Image

    # Behind the filters of the program around us, if it has any: what is wrong with a file is said here.
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # or else it goes to stderr where nobody set up logging
    return Image


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; some decoders would hand over the rest as grey.

    The end of a JPEG is looked for behind its first scan, since an EXIF thumbnail brings an end of its own.
    """
    if data.startswith(_JPEG):
        return data.find(_JPEG_END, _first_scan(data)) < 0
    return data.startswith(_PNG) and data.rfind(_PNG_END) < 0


def _segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment up to the first scan, and of what looks like one behind it.

    As libjpeg does, what lies between them is skipped.
    """
    at = 2
    while marker := _JPEG_MARKER.search(jpeg, at):
        yield marker[1][0], marker.start()
        at = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")


def _first_scan(jpeg: bytes) -> int:
    """Where the first start of a scan lies; the end of the file when there is none."""
    return next((at for marker, at in _segments(jpeg) if marker == _JPEG_SCAN), len(jpeg))


def _frame(jpeg: bytes) -> int:
    """Where the start of the frame lies, which says the size. Raises PictureError when there is none."""
    for marker, at in _segments(jpeg):
        if marker in _JPEG_FRAMES:
            return at
        if marker == _JPEG_SCAN:
            break
    raise PictureError("not-a-picture", _DAMAGED)


def _quality(jpeg: bytes) -> int | None:
    """At which libjpeg's steps for brightness would be as large, on average, as the file's are."""
    for marker, at in _segments(jpeg):
        if marker == _JPEG_SCAN:
            break
        if marker == _JPEG_STEPS and jpeg[at + 4 : at + 5] in (b"\x00", b"\x10"):  # of 8 or of 16 bits, of brightness
            step = 1 + jpeg[at + 4] // 16  # bytes
            table = jpeg[at + 5 : at + 5 + 64 * step].ljust(64 * step, b"\x01")
            share = float(np.frombuffer(table, f">u{step}").mean()) / _STEPS_AT_50
            return min(max(round(100 - 50 * share if share <= 1 else 50 / share), 1), 100)
    return None


def _is_turned(jpeg: bytes) -> bool:
    """Whether the EXIF orientation of a JPEG swaps height and width."""
    for marker, at in _segments(jpeg):
        if marker == _JPEG_SCAN:
            break
        if marker == _JPEG_EXIF and jpeg.startswith(b"Exif\0\0", at + 4):
            exif = _pillow().Exif()
            with suppress(Exception):  # of any kind, as above
                exif.load(jpeg[at + 4 : at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")])
                return exif.get(0x0112) in (5, 6, 7, 8)
    return False


def shrink(picture: Picture, max_side: int) -> Picture:
    """The picture with its longer side at most `max_side` pixels, shape kept; a smaller one is returned as it is.

    Never enlarged and never stretched: the traces of a splice live at the scale of the pixels.
    """
    size = shrunk(picture.shape[:2], max_side)
    return picture if size == picture.shape[:2] else cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def shrunk(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The height and width that `shrink` gives a picture of this size."""
    factor = min(1.0, max_side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def pad(picture: Picture, multiple: int) -> Picture:
    """The picture mirrored outwards at the right and at the bottom until its sides are multiples of `multiple`."""
    height, width = picture.shape[:2]
    down, right = -height % multiple, -width % multiple
    return cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_REFLECT_101) if down or right else picture


@dataclass(frozen=True)
class Normalisation:
    """How a network wants its pixels: value * scale + offset, RGB."""

    scale: float
    offset: float

    def __call__(self, pictures: list[Picture]) -> NDArray[np.float32]:
        """Pictures of one shape, H x W x 3 BGR, to N x 3 x H x W RGB float32."""
        mean = -self.offset / self.scale
        return cv2.dnn.blobFromImages(pictures, self.scale, mean=(mean, mean, mean), swapRB=True)


def map_back(plane: NDArray[Value], size: tuple[int, int]) -> NDArray[Value]:
    """A map, h x w, at another `size` (height, width): that of a picture that was shrunk for it, most often.

    In 8 bits it is three times as fast as in float32, takes a quarter of the memory, and differs by a grey level.
    """
    if plane.shape == size:
        return plane
    return cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)


def as_grey(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities in [0, 1], of any shape, to the nearest of 256 grey levels."""
    rows = probability.reshape(-1, probability.shape[-1])
    return cv2.convertScaleAbs(rows, alpha=255).reshape(probability.shape)


def silence_decoders() -> None:
    """Keep the C libraries of OpenCV from writing to stderr what is said better here; it holds for the whole process.

    Some of them print with no switch to stop it, so the descriptor 2 itself leads nowhere from now on; `sys.stderr`
    keeps a way of its own to where it led. Before the first video is opened.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    silent = 0
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(silent)
    else:
        cv2.utils.logging.setLogLevel(silent)
    with suppress(AttributeError, OSError, ValueError):  # there may be no stderr, or one that is no file
        if sys.stderr.fileno() == 2:
            encoding, errors = sys.stderr.encoding, sys.stderr.errors
            sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=encoding, errors=errors)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)

"""Files as they come from the world, and what a scan must make of each: the table `FILES`.

Nearly all show the same scene, of 48 x 32 pixels in four colours: red and green above, blue and white below. So a
result can be read at a glance: "RGBW" are the colours of the quarters, from the left above to the right below.
"""

import io
import struct
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
SCENE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
"""RGB."""
SCENE[:16, :24, 0] = SCENE[:16, 24:, 1] = SCENE[16:, :24, 2] = SCENE[16:, 24:] = 255
NOISE = cv2.resize(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8), (480, 320))
"""RGB, 480 x 320: a file with enough in it to be cut anywhere."""


class Shown(NamedTuple):
    """The picture that a file must give: its size, and of which of RGBWK and grey, g, its quarters are (. for any)."""

    width: int
    height: int
    quarters: str = "...."


RIGHT, ON_ITS_SIDE = Shown(WIDTH, HEIGHT, "RGBW"), Shown(HEIGHT, WIDTH, "BRWG")
Wanted = Shown | str
"""A picture, or the type of the error."""


class Hostile(NamedTuple):
    """A file, how it is made, and what it must give."""

    name: str
    make: Callable[[], bytes]
    wanted: Wanted


def encode(name: str, mode: str = "RGB", image: Any = None, **options: Any) -> bytes:
    """A picture, the scene if it is not given, as Pillow writes it in a format."""
    picture = Image.fromarray(SCENE if image is None else image).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def jpeg(mode: str = "RGB", image: Any = None, **options: Any) -> bytes:
    return encode("JPEG", mode, image, **{"quality": 95, "subsampling": 0, **options})


def several(name: str, **options: Any) -> bytes:
    """The scene first, then a black one and a larger one: an animation or pages."""
    others = [Image.new("RGB", (WIDTH, HEIGHT)), Image.new("RGB", (WIDTH, HEIGHT), "white")]
    return encode(name, save_all=True, append_images=others, **options)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def hole(data: bytes, start: float = 0.5, size: float = 0.15) -> bytes:
    """Zeros in place of a part, as on a damaged disk."""
    first, length = int(len(data) * start), int(len(data) * size)
    return data[:first] + bytes(length) + data[first + length :]


def flipped(data: bytes) -> bytes:
    """One bit of the middle is the other way."""
    middle = len(data) // 2
    return patch(data, middle, bytes([data[middle] ^ 16]))


def patch(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


# JPEG


def segment(marker: int, payload: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """A segment behind the start of a JPEG."""
    return data[:2] + segment(marker, payload) + data[2:]


def exif(orientation: int, kind: int = 3, count: int = 1, entries: int = 1, following: int = 0) -> bytes:
    """EXIF with one entry, the orientation; its fields can be made to lie."""
    tag = struct.pack("<HHIHH", 0x0112, kind, count, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, entries) + tag + struct.pack("<I", following)


def with_exif(payload: bytes) -> bytes:
    return with_segment(jpeg(), 0xE1, b"Exif\0\0" + payload)


def frame_header(data: bytes) -> int:
    """Where the start-of-frame segment of a baseline JPEG lies: marker, length, precision, height, width."""
    return data.index(b"\xff\xc0")


def claiming(width: int, height: int) -> bytes:
    """A JPEG that claims a size."""
    data = jpeg()
    return patch(data, frame_header(data) + 5, struct.pack(">HH", height, width))


def without_adobe(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 16 :]


def without_jfif(data: bytes) -> bytes:
    at = data.index(b"\xff\xe0")
    return data[:at] + data[at + 18 :]


def adobe(transform: int) -> bytes:
    return b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)


def ycck() -> bytes:
    """Adobe's other four colours: CMY as YCC, and K. The same bytes with another transform say other colours."""
    ink = cv2.cvtColor(255 - SCENE, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    four = np.dstack([255 - ink, np.zeros((HEIGHT, WIDTH), np.uint8)])  # Pillow writes them inverted, as Adobe does
    buffer = io.BytesIO()
    Image.fromarray(four, "CMYK").save(buffer, "JPEG", quality=95, subsampling=0)
    data = buffer.getvalue()
    return patch(data, data.index(b"Adobe") + 11, b"\2")


ARITHMETIC = b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggL"
    "DAsKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgr/yQAR"
    "CAAgADADAREAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AOf5pm8y8XmkWjNus5P/AAoj2t5d3TDW+jrdMtYqZDHne08Cfohs"
    "Dxtkhwcb3VyjFApA/9k="
)
"""The scene by `cjpeg -arithmetic -quality 95 -sample 1x1`, which no encoder at hand in the tests writes."""


# PNG


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(
    width: int = WIDTH, height: int = HEIGHT, depth: int = 8, colour: int = 2, extra: bytes = b"", packed: Any = None
) -> bytes:
    """A PNG of the scene whose header says what one likes; `packed`: compressed rows in place of the scene's."""
    rows = b"".join(b"\0" + row.tobytes() for row in SCENE)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows) if packed is None else packed)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + body + chunk(b"IEND", b"")


@cache
def bomb() -> bytes:
    """100 MB of zeros in 100 kB."""
    return zlib.compress(bytes(100_000_000), 9)


def without_checksum(data: bytes, kind: bytes) -> bytes:
    """A PNG with the checksum of a chunk wrong."""
    at = data.index(kind)
    length = int.from_bytes(data[at - 4 : at], "big")
    return patch(data, at + 4 + length, b"\0\0\0\0")


# TIFF

BYTE, SHORT, LONG = (1, "B"), (3, "H"), (4, "I")
Field = tuple[int, tuple[int, str], list[int]]


def tiff(
    pixels: np.ndarray = SCENE,
    *changes: Field,
    kind: int = 1,
    photometric: int | None = None,
    tile: int = 0,
    big: bool = False,
    order: str = "<",
) -> bytes:
    """An uncompressed TIFF of any pixels; `changes` are fields (tag, type, values) added or put in place of others.

    `kind`: 1 unsigned, 2 signed, 3 floating point. `tile`: side of the tiles, for strips 0. `big`: BigTIFF.
    """
    height, width = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    pieces = [pixels]
    if tile:
        padded = np.zeros((-(-height // tile) * tile, -(-width // tile) * tile, *pixels.shape[2:]), pixels.dtype)
        padded[:height, :width] = pixels
        rows = [padded[y : y + tile] for y in range(0, len(padded), tile)]
        pieces = [row[:, x : x + tile] for row in rows for x in range(0, padded.shape[1], tile)]
    packed = [np.ascontiguousarray(piece).astype(piece.dtype.newbyteorder(order)).tobytes() for piece in pieces]
    start = 16 if big else 8
    places = [start + sum(map(len, packed[:index])) for index in range(len(packed))]
    lengths = list(map(len, packed))
    where = [(322, SHORT, [tile]), (323, SHORT, [tile]), (324, LONG, places), (325, LONG, lengths)]
    if not tile:
        where = [(273, LONG, places), (278, LONG, [height]), (279, LONG, lengths)]
    rgb_or_grey = 2 if samples > 1 else 1
    fields: list[Field] = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [8 * pixels.itemsize] * samples),
        (259, SHORT, [1]),
        (262, SHORT, [rgb_or_grey if photometric is None else photometric]),
        (277, SHORT, [samples]),
        (339, SHORT, [kind] * samples),
        *where,
        *changes,
    ]
    directory = start + sum(lengths)
    header = struct.pack(order + "HHHQ", 43, 8, 0, directory) if big else struct.pack(order + "HI", 42, directory)
    magic = b"II" if order == "<" else b"MM"
    return magic + header + b"".join(packed) + _directory({tag: rest for tag, *rest in fields}, directory, big, order)


def _directory(fields: dict[int, list[Any]], at: int, big: bool, order: str) -> bytes:
    counts, entry, offset, room = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
    head = struct.pack(order + counts, len(fields))
    body, tail = b"", b""
    behind = at + len(head) + len(fields) * (4 + 2 * room) + room
    for tag, ((code, letter), values) in sorted(fields.items()):
        value = struct.pack(order + letter * len(values), *values)
        if len(value) > room:
            value, tail = struct.pack(order + offset, behind + len(tail)), tail + value + b"\0" * (len(value) % 2)
        body += struct.pack(order + entry, tag, code, len(values)) + value.ljust(room, b"\0")
    return head + body + struct.pack(order + offset, 0) + tail


def endless_directories() -> bytes:
    """A TIFF whose list of pages leads back to the first."""
    data = tiff()
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    return patch(data, first + 2 + 12 * entries, struct.pack("<I", first))


# BMP


def bmp(
    width: int, height: int, bits: int, body: bytes, packing: int = 0, colours: bytes = b"", used: int = 0
) -> bytes:
    """A BMP whose header says what one likes."""
    start = 54 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, len(body), 2835, 2835, used, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + colours + body


BGR = SCENE[..., ::-1]
FOUR_COLOURS = bytes([0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0])
"""Red, green, blue and white, as in the table of a BMP."""


def run_lengths() -> bytes:
    """The scene as a BMP of 8 bits, compressed by run lengths, from the bottom up."""
    below, above = bytes([24, 2, 24, 3, 0, 0]) * 16, bytes([24, 0, 24, 1, 0, 0]) * 16
    return bmp(WIDTH, HEIGHT, 8, below + above + b"\0\1", 1, FOUR_COLOURS, 4)


# Video


def film() -> bytes:
    """A second of a real video, MJPEG in AVI."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (WIDTH, HEIGHT))
        for _ in range(5):
            writer.write(np.ascontiguousarray(BGR))
        writer.release()
        return path.read_bytes()


def grid(*rows: Iterable[tuple[str, Callable[[], bytes], Wanted]]) -> list[Hostile]:
    return [Hostile(*row) for part in rows for row in part]


def solid(width: int, height: int, name: str = "PNG") -> bytes:
    return encode(name, image=np.full((height, width, 3), (255, 0, 0), np.uint8))


DEEP, MIDDLE = SCENE.astype(np.uint16) * 257, np.full((HEIGHT, WIDTH), 32_896, np.uint16)
GREY = Shown(WIDTH, HEIGHT, "gggg")
TURNED = ("RGBW", "GRWB", "WBGR", "BWRG", "RBGW", "BRWG", "WGBR", "GWRB")
"""The quarters as a viewer shows them, by orientation from 1."""

EXACT: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}


def turned(orientation: int) -> Image.Exif:
    """EXIF as a camera writes it."""
    metadata = Image.Exif()
    metadata[0x0112] = orientation
    return metadata


def sized(index: int) -> tuple[int, int]:
    """Width and height of the scene in the orientation `index` + 1."""
    return (HEIGHT, WIDTH) if index > 3 else (WIDTH, HEIGHT)


NO_PICTURE = grid(
    [
        ("empty.jpg", lambda: b"", "empty"),
        ("one-byte.jpg", lambda: b"\xff", "not-a-picture"),
        ("magic-alone.jpg", lambda: b"\xff\xd8\xff", "truncated"),
        ("zeros.jpg", lambda: bytes(10_000), "not-a-picture"),
        ("text.png", lambda: b"Not a picture at all.\n" * 50, "not-a-picture"),
        ("page.jpg", lambda: b"<!doctype html><title>404</title>", "not-a-picture"),
        ("drawing.png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not-a-picture"),
        ("document.jpg", lambda: encode("PDF"), "not-a-picture"),
        ("begins-as-bmp.bmp", lambda: b"BM is how this text begins.\n" * 9, "not-a-picture"),
        (
            "portable.jpg",
            lambda: encode("PPM"),
            "not-a-picture",
        ),  # OpenCV reads more
        ("radiance.jpg", lambda: cv2.imencode(".hdr", SCENE.astype(np.float32))[1].tobytes(), "not-a-picture"),
        ("film.jpg", film, "not-a-picture"),
        ("photo.mp4", jpeg, "not-a-video"),
        ("text.mp4", lambda: b"Not a video.", "not-a-video"),
        ("empty.mkv", lambda: b"", "empty"),
        ("playlist.mp4", lambda: b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "not-a-video"),  # FFmpeg follows those
        ("list.mkv", lambda: b"ffconcat version 1.0\nfile film.avi\n", "not-a-video"),
        ("half-film.avi", lambda: film()[:200], "not-a-video"),
    ]
)

OTHER_NAMES = grid(
    [
        ("png-as.jpg", lambda: encode("PNG"), RIGHT),
        ("jpeg-as.png", jpeg, RIGHT),
        ("webp-as.bmp", lambda: encode("WEBP", lossless=True), RIGHT),
        ("bmp-as.tif", lambda: encode("BMP"), RIGHT),
        ("gif-as.jpg", lambda: several("GIF"), RIGHT),
        ("avif-as.jpg", lambda: encode("AVIF", quality=100, subsampling="4:4:4"), RIGHT),
        ("jpeg2000-as.jpg", lambda: encode("JPEG2000"), RIGHT),
    ]
)

DAMAGED = grid(
    [
        *[
            (f"cut-at-{share}.{suffix}", lambda name=name, share=share: cut(encode(name, image=NOISE), share), wanted)
            for name, suffix, wanted in (
                ("JPEG", "jpg", "truncated"),
                ("PNG", "png", "truncated"),
                ("WEBP", "webp", "not-a-picture"),
                ("TIFF", "tif", "not-a-picture"),
                ("BMP", "bmp", "not-a-picture"),
            )
            for share in (0.1, 0.5, 0.99)
        ],
        ("progressive-cut.jpg", lambda: cut(jpeg(image=NOISE, progressive=True), 0.5), "truncated"),
        # Whole by its ends, with the rest of the picture grey: in a viewer, and in most decoders without a word.
        ("cut-and-closed.jpg", lambda: cut(jpeg(image=NOISE), 0.5) + b"\xff\xd9", "truncated"),
        ("turned-and-closed.jpg", lambda: cut(jpeg(image=NOISE, exif=turned(6)), 0.5) + b"\xff\xd9", "truncated"),
        ("cut-and-closed.png", lambda: cut(encode("PNG", image=NOISE), 0.5) + chunk(b"IEND", b""), "not-a-picture"),
        ("hole.png", lambda: hole(encode("PNG", image=NOISE)), "not-a-picture"),
        ("hole-lossless.webp", lambda: hole(encode("WEBP", image=NOISE, lossless=True)), "not-a-picture"),
        ("hole-lzw.tif", lambda: hole(encode("TIFF", image=NOISE, compression="tiff_lzw")), "not-a-picture"),
        ("hole-deflate.tif", lambda: hole(encode("TIFF", image=NOISE, compression="tiff_deflate")), "not-a-picture"),
        ("hole-jpeg.tif", lambda: hole(encode("TIFF", image=NOISE, compression="jpeg")), "not-a-picture"),
        # Nothing in these says that they are damaged: they are what a viewer shows.
        ("hole-plain.tif", lambda: hole(encode("TIFF", image=NOISE)), Shown(480, 320)),
        ("hole.bmp", lambda: hole(encode("BMP", image=NOISE)), Shown(480, 320)),
        ("hole.jpg", lambda: hole(jpeg(image=NOISE)), Shown(480, 320)),
        ("flipped.jpg", lambda: flipped(jpeg(image=NOISE)), Shown(480, 320)),
        ("flipped.png", lambda: flipped(encode("PNG", image=NOISE)), "not-a-picture"),
        ("flipped.tif", lambda: flipped(encode("TIFF", image=NOISE, compression="tiff_deflate")), "not-a-picture"),
        ("header-checksum.png", lambda: without_checksum(encode("PNG"), b"IHDR"), "not-a-picture"),
        ("data-checksum.png", lambda: without_checksum(encode("PNG"), b"IDAT"), "not-a-picture"),
        ("length-lies.webp", lambda: patch(encode("WEBP", lossless=True), 4, b"\xff" * 4), "not-a-picture"),
    ]
)  # fmt: skip

BOMBS = grid(
    [
        ("huge.png", lambda: png(2**31 - 1, 2**31 - 1), "too-large"),
        ("too-large.png", lambda: png(20_000, 20_000), "too-large"),
        ("large-and-empty.png", lambda: png(8_000, 8_000), "not-a-picture"),
        ("no-size.png", lambda: png(0, 0), "not-a-picture"),
        ("wide.png", lambda: png(1_000_001, 1), "not-a-picture"),
        ("inflates.png", lambda: png(packed=bomb()), Shown(WIDTH, HEIGHT, "KKKK")),  # what is too much is passed over
        ("comment-inflates.png", lambda: png(extra=chunk(b"zTXt", b"a\0\0" + bomb())), RIGHT),
        ("profile-inflates.png", lambda: png(extra=chunk(b"iCCP", b"a\0\0" + bomb())), RIGHT),
        ("huge.jpg", lambda: claiming(65_500, 65_500), "too-large"),
        ("large-and-empty.jpg", lambda: claiming(8_000, 8_000), "truncated"),
        ("no-size.jpg", lambda: claiming(0, 0), "not-a-picture"),
        ("no-height.jpg", lambda: claiming(WIDTH, 0), "not-a-picture"),
        ("huge.webp", lambda: patch(encode("WEBP", lossless=True), 21, b"\xff\xff\xff\x0f"), "too-large"),
        ("huge.tif", lambda: tiff(SCENE, (256, LONG, [30_000]), (257, LONG, [30_000])), "too-large"),
        ("large-and-empty.tif", lambda: tiff(SCENE, (256, LONG, [8_000]), (257, LONG, [8_000])), "not-a-picture"),
        ("huge.bmp", lambda: bmp(2**31 - 1, 2**31 - 1, 24, b""), "too-large"),
        ("large-and-empty.bmp", lambda: bmp(8_000, 8_000, 24, b"\0" * 9), "not-a-picture"),
        ("huge-gif.jpg", lambda: patch(encode("GIF"), 6, struct.pack("<HH", 65535, 65535)), "too-large"),
    ]
)  # fmt: skip

ORIENTATION = grid(
    [
        *[
            (
                f"turned-{1 + i}.{suffix}",
                lambda name=name, i=i: encode(name, exif=turned(1 + i), **EXACT[name]),
                Shown(*sized(i), each),
            )
            for name, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"))
            for i, each in enumerate(TURNED)
        ],
        *[
            (f"turned-{1 + i}.tif", lambda i=i: tiff(SCENE, (274, SHORT, [1 + i])), Shown(*sized(i), each))
            for i, each in enumerate(TURNED)
        ],
        *[(f"turned-{value}.jpg", lambda value=value: with_exif(exif(value)), RIGHT) for value in (0, 9, 255, 65535)],
        ("turned-9.tif", lambda: tiff(SCENE, (274, SHORT, [9])), RIGHT),
    ]
)  # fmt: skip

METADATA = grid(
    [
        ("exif-empty.jpg", lambda: with_exif(b""), RIGHT),
        ("exif-no-order.jpg", lambda: with_exif(b"XX*\0" + bytes(20)), RIGHT),
        ("exif-far-away.jpg", lambda: with_exif(b"II*\0\xf0\xff\xff\xff"), RIGHT),
        ("exif-of-itself.jpg", lambda: with_exif(exif(6, following=8)), ON_ITS_SIDE),
        ("exif-many.jpg", lambda: with_exif(exif(1, entries=65535)), RIGHT),
        ("exif-as-text.jpg", lambda: with_exif(exif(6, kind=2, count=4)), ON_ITS_SIDE),  # the number is clear enough
        ("exif-as-long.jpg", lambda: with_exif(exif(6, kind=4)), ON_ITS_SIDE),
        ("exif-cut.jpg", lambda: with_exif(exif(6)[:14]), RIGHT),
        ("profile-junk.jpg", lambda: jpeg(icc_profile=b"junk" * 1000), RIGHT),
        ("profile-junk.png", lambda: encode("PNG", icc_profile=b"junk"), RIGHT),
        ("profile-junk.webp", lambda: encode("WEBP", lossless=True, icc_profile=b"junk"), RIGHT),
        ("profile-junk.tif", lambda: encode("TIFF", icc_profile=b"junk"), RIGHT),
        ("segment-too-long.jpg", lambda: patch(with_segment(jpeg(), 0xE5, b"x" * 9), 4, b"\xff\xff"), "truncated"),
    ]
)

KINDS = grid(
    [
        ("progressive.jpg", lambda: jpeg(progressive=True), RIGHT),
        ("arithmetic.jpg", lambda: ARITHMETIC, RIGHT),
        ("twelve-bits.jpg", lambda: patch(jpeg(), frame_header(jpeg()) + 4, b"\x0c"), "not-a-picture"),
        ("lossless-frame.jpg", lambda: patch(jpeg(), frame_header(jpeg()), b"\xff\xc3"), "not-a-picture"),
        ("restarts.jpg", lambda: jpeg(restart_marker_blocks=1), RIGHT),
        ("fill-bytes.jpg", lambda: jpeg()[:2] + b"\xff" * 50 + jpeg()[2:], RIGHT),
        ("appendix.jpg", lambda: jpeg() + b"\xff\xd8\xffanother picture, or a film" * 400, RIGHT),
        ("appendix.png", lambda: encode("PNG") + b"PK\3\4" * 4000, RIGHT),
        ("grey.jpg", lambda: jpeg("L"), Shown(WIDTH, HEIGHT, "...W")),
        ("cmyk.jpg", lambda: jpeg("CMYK"), RIGHT),
        ("cmyk-without-adobe.jpg", lambda: without_adobe(jpeg("CMYK")), RIGHT),  # taken for Adobe's, as everywhere
        ("ycck.jpg", ycck, RIGHT),
        ("adobe-unknown-transform.jpg", lambda: with_segment(without_jfif(jpeg()), 0xEE, adobe(9)), RIGHT),
        ("adobe-ycc.jpg", lambda: with_segment(without_jfif(jpeg()), 0xEE, adobe(1)), RIGHT),
        ("adobe-cut.jpg", lambda: with_segment(jpeg(), 0xEE, b"Adobe"), RIGHT),
        ("bits.png", lambda: encode("PNG", "1"), Shown(WIDTH, HEIGHT, "...W")),
        ("palette-transparent.png", lambda: encode("PNG", "P", transparency=0), RIGHT),
        ("palette-missing.png", lambda: png(colour=3, packed=zlib.compress(bytes(33 * 49))), "not-a-picture"),
        ("no-such-depth.png", lambda: png(depth=3), "not-a-picture"),
        ("alpha.png", lambda: encode("PNG", "RGBA"), RIGHT),
        ("invisible.png", lambda: encode("PNG", "RGBA", np.dstack([SCENE, 0 * SCENE[..., :1]])), RIGHT),
        ("grey-alpha.png", lambda: encode("PNG", "LA"), Shown(WIDTH, HEIGHT, "...W")),
        ("16-bit.png", lambda: cv2.imencode(".png", np.ascontiguousarray(DEEP[..., ::-1]))[1].tobytes(), RIGHT),
        ("16-bit-grey.png", lambda: cv2.imencode(".png", MIDDLE)[1].tobytes(), GREY),
        ("animated.png", lambda: several("PNG"), RIGHT),
        ("animated.webp", lambda: several("WEBP", lossless=True), RIGHT),
        ("animated.avif", lambda: several("AVIF", quality=100, subsampling="4:4:4"), RIGHT),
        ("alpha.webp", lambda: encode("WEBP", "RGBA", lossless=True), RIGHT),
        ("pages.tif", lambda: several("TIFF"), RIGHT),
        ("pages-in-a-circle.tif", endless_directories, RIGHT),
        ("tiles.tif", lambda: tiff(tile=32), RIGHT),
        ("small-tiles.tif", lambda: tiff(tile=16), RIGHT),
        ("big.tif", lambda: tiff(big=True), RIGHT),
        ("big-endian.tif", lambda: tiff(order=">"), RIGHT),
        ("16-bit.tif", lambda: tiff(DEEP), RIGHT),
        ("16-bit-big-endian.tif", lambda: tiff(DEEP, order=">"), RIGHT),
        ("16-bit-grey.tif", lambda: tiff(MIDDLE), GREY),
        ("white-is-zero.tif", lambda: tiff(255 - SCENE[..., 0], photometric=0), Shown(WIDTH, HEIGHT, "WKKW")),
        ("alpha.tif", lambda: tiff(np.dstack([SCENE, 0 * SCENE[..., :1]]), (338, SHORT, [2])), RIGHT),
        ("palette.tif", lambda: encode("TIFF", "P"), RIGHT),
        ("bits.tif", lambda: encode("TIFF", "1", compression="group4"), Shown(WIDTH, HEIGHT, "...W")),
        ("cmyk.tif", lambda: encode("TIFF", "CMYK"), RIGHT),
        ("jpeg.tif", lambda: encode("TIFF", compression="jpeg", quality=95), RIGHT),
        # Floating point has no range that all programs agree on; better no picture than one too dark or too light.
        ("float.tif", lambda: tiff((SCENE / 255).astype(np.float32), kind=3), "not-a-picture"),
        ("float-grey.tif", lambda: tiff((SCENE[..., 0] / 255).astype(np.float32), kind=3), "not-a-picture"),
        ("float-nan.tif", lambda: tiff(np.full((32, 48, 3), np.nan, np.float32), kind=3), "not-a-picture"),
        ("float-inf.tif", lambda: tiff(np.full((32, 48), np.inf, np.float32), kind=3), "not-a-picture"),
        ("half.tif", lambda: tiff((SCENE / 255).astype(np.float16), kind=3), "not-a-picture"),
        ("32-bit.tif", lambda: tiff(SCENE.astype(np.uint32) * 0x01010101), "not-a-picture"),
        ("hundred-channels.tif", lambda: tiff(SCENE, (277, SHORT, [100])), "not-a-picture"),
        ("no-width.tif", lambda: tiff(SCENE, (256, LONG, [0])), "not-a-picture"),
        ("strip-outside.tif", lambda: tiff(SCENE, (273, LONG, [2**31])), "not-a-picture"),
        ("strip-length-zero.tif", lambda: tiff(SCENE, (279, LONG, [0])), RIGHT),
        ("rows-per-strip-huge.tif", lambda: tiff(SCENE, (278, LONG, [2**32 - 1])), RIGHT),
        ("top-down.bmp", lambda: bmp(WIDTH, -HEIGHT, 24, BGR.tobytes()), RIGHT),
        ("negative-width.bmp", lambda: bmp(-WIDTH, HEIGHT, 24, BGR.tobytes()), ("too-large")),
        ("least-height.bmp", lambda: bmp(WIDTH, -(2**31), 24, BGR.tobytes()), "too-large"),
        ("no-size.bmp", lambda: bmp(0, 0, 24, b""), "not-a-picture"),
        ("13-bits.bmp", lambda: bmp(WIDTH, HEIGHT, 13, BGR.tobytes()), "not-a-picture"),
        ("64-bits.bmp", lambda: bmp(WIDTH, HEIGHT, 64, BGR.tobytes() * 3), "not-a-picture"),
        ("run-lengths.bmp", run_lengths, RIGHT),
        ("run-lengths-cut.bmp", lambda: run_lengths()[:-150], "not-a-picture"),
        ("packed-as-jpeg.bmp", lambda: bmp(WIDTH, HEIGHT, 24, BGR.tobytes(), 4), "not-a-picture"),
        ("colours-without-end.bmp", lambda: bmp(WIDTH, HEIGHT, 8, bytes(1536), used=2**31), "not-a-picture"),
        ("alpha.bmp", lambda: encode("BMP", "RGBA"), RIGHT),
        ("one-pixel.png", lambda: solid(1, 1), Shown(1, 1, "RRRR")),
        ("one-column.png", lambda: solid(1, 20_000), Shown(1, 20_000, "RRRR")),
        ("one-row.jpg", lambda: solid(65_500, 1, "JPEG"), Shown(65_500, 1, "RRRR")),
    ]
)  # fmt: skip

NAMES = grid(
    [
        (name, lambda: encode("PNG"), RIGHT)
        for name in (
            "æøå.png",
            "写真 🐑.png",
            "two\nlines.png",
            "tab\tand\rreturn.png",
            "\x1b[31mred.png",
            "-rf.png",
            " .png",
            "%d%n%s.png",
            "[a-z]*?.png",
            "'; drop table.png",
            '"><img src=x onerror=alert(1)>.png',
            "undecodable-\udce9.png",
            "n" * 251 + ".png",
            "UPPER.PNG",
        )
    ]
)

FILES = [*NO_PICTURE, *OTHER_NAMES, *DAMAGED, *BOMBS, *ORIENTATION, *METADATA, *KINDS, *NAMES]

"""What pictures go through between the camera and who looks at them: JPEG files, scaling, blur, noise, edits, films.

Everything is drawn from the generator that is passed in: the same generator state gives the same picture.
"""

import io
import tempfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""A picture, H x W x 3 BGR, or a mask, H x W."""

BLOCK = 16
"""Side in pixels of what a JPEG file codes together when its colours are subsampled: 2 x 2 of its 8x8 blocks."""
FILTERS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)
CHROMA_SAMPLINGS = (
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)
PILLOW_SAMPLINGS = (2, 1, 0)
"""The same in Pillow's terms."""
OWN_TABLES = 0.5
"""Share of the JPEG files whose quantisation tables are not libjpeg's."""
CAMERA_TILT, EDITOR_TILT = (-0.8, 0.8), (-3.0, -1.2)
"""How the logarithms of their steps rise with the frequency, compared to the standard's, from lowest to highest.

Photoshop's steps are large for low frequencies and small for high ones: -1.7 to -2.9, by a line through its tables.
"""
PUBLISHED_QUALITY = 50, 100
"""JPEG qualities at which finished pictures are saved."""
FILMED = 0.06
"""Share of the finished pictures that are a frame of a film."""
FILM_CODECS = ("XVID", "VP80")
"""Those that OpenCV's wheels write quickly: MPEG-4, and VP8, which smooths its blocks as H.264 does."""


def publish(image: Image, rng: np.random.Generator) -> Image:
    """What happens to the finished picture as a whole before anybody looks at it."""
    image = wear(image, rng)
    if rng.random() < FILMED:
        image = filmed(image, rng)
    return saved(image, *PUBLISHED_QUALITY, rng) if rng.random() < 0.75 else image


def sent_on(image: Image, rng: np.random.Generator) -> Image:
    """The picture saved once more: four times in ten cropped before, so that the blocks of the two files differ.

    Its own pixels are given back: the first `BLOCK` of the file begins somewhere before them.
    """
    top, left = (int(side) for side in rng.integers(0, BLOCK, 2)) if rng.random() < 0.4 else (0, 0)
    padded = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT_101)
    return saved(padded, *PUBLISHED_QUALITY, rng)[top:, left:]


def wear(image: Image, rng: np.random.Generator) -> Image:
    """The finished picture, now and then edited as a whole, a little blurred or noisier, before it is saved."""
    if rng.random() < 0.25:
        image = edited(image, rng)
    if rng.random() < 0.2:
        image = blurred(image, 0.3, 0.9, rng)
    return noisy(image, 0.5, 4.0, rng) if rng.random() < 0.2 else image


def saved(image: Image, low: int, high: int, rng: np.random.Generator) -> Image:
    """The picture as it comes back from a JPEG file."""
    return cv2.imdecode(np.frombuffer(jpeg(image, low, high, rng), np.uint8), cv2.IMREAD_COLOR)


def jpeg(image: Image, low: int, high: int, rng: np.random.Generator) -> bytes:
    """A JPEG file of the picture, at a quality from `low` to `high` and any of the usual chroma samplings.

    Its quantisation tables are libjpeg's, or others of about that quality, as cameras and photo editors have them.
    """
    quality, sampling = int(rng.integers(low, high + 1)), int(rng.integers(3))
    if rng.random() < OWN_TABLES:
        file = io.BytesIO()
        tilt = CAMERA_TILT if rng.random() < 0.5 else EDITOR_TILT
        tables = [_own_table(table, quality, tilt, rng) for table in _standard_tables()]
        rgb = PIL.Image.fromarray(image[..., ::-1])
        rgb.save(file, "JPEG", qtables=tables, subsampling=PILLOW_SAMPLINGS[sampling])
        return file.getvalue()
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, CHROMA_SAMPLINGS[sampling]]
    return bytes(cv2.imencode(".jpg", image, options)[1])


def resized(image: Image, size: tuple[int, int], rng: np.random.Generator) -> Image:
    """The picture at another size (width, height), by any of the usual filters."""
    return cv2.resize(image, size, interpolation=int(rng.choice(FILTERS)))


def blurred(image: Image, least: float, most: float, rng: np.random.Generator) -> Image:
    """Gaussian blur of a sigma from `least` to `most`, pixels."""
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(least, most))


def recoloured(image: Image, rng: np.random.Generator) -> Image:
    """Each channel brighter or darker, and all colours stronger or paler, as cameras and their owners differ."""
    gains, brighter, stronger = rng.uniform(0.8, 1.2, 3), rng.uniform(-25, 25), rng.uniform(0.7, 1.5)
    mixed = stronger * np.eye(3) + (1 - stronger) / 3  # a channel and the grey of all three
    return cv2.transform(image, np.column_stack([mixed * gains, np.full(3, brighter)]))


def shallow(image: Image, subject: Image, rng: np.random.Generator) -> Image:
    """All out of focus but the `subject`, H x W of 0 and 1, or now and then the subject alone; often with new grain.

    As lenses do, and telephones: what is sharp before a blurred ground is no splice.
    """
    near = cv2.GaussianBlur(subject.astype(np.float32), (0, 0), np.exp(rng.uniform(-0.5, 2.5)))[..., None]
    sharp = near if rng.random() < 0.8 else 1 - near
    image = (sharp * image + (1 - sharp) * blurred(image, 0.8, 4.0, rng) + 0.5).astype(np.uint8)
    return noisy(image, 0.5, 4.0, rng) if rng.random() < 0.5 else image


def noisy(image: Image, least: float, most: float, rng: np.random.Generator) -> Image:
    """Gaussian grain of a sigma from `least` to `most`, grey levels."""
    grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(least, most))
    return np.clip(image + grain + 0.5, 0, 255).astype(np.uint8)


def edited(image: Image, rng: np.random.Generator) -> Image:
    """Sharpened, given another tone curve or cleaned of its grain: what is done to photos that nobody forges."""
    match rng.integers(5):
        case 0 | 1:
            strength = rng.uniform(0.3, 1.5)
            return cv2.addWeighted(image, 1 + strength, blurred(image, 0.6, 2.0, rng), -strength, 0)
        case 2 | 3:
            gamma, contrast = rng.uniform(0.65, 1.5), rng.uniform(0.85, 1.2)
            curve = 127.5 + contrast * (255 * np.linspace(0, 1, 256) ** gamma - 127.5)
            return cv2.LUT(image, np.clip(curve + 0.5, 0, 255).astype(np.uint8))
        case _:
            return cv2.medianBlur(image, 3) if rng.random() < 0.5 else cv2.bilateralFilter(image, 5, 25, 2)


def filmed(image: Image, rng: np.random.Generator) -> Image:
    """The picture as the last of a few frames of a compressed film, in which all of it moves or a part."""
    height, width = image.shape[:2]
    moves = np.ones((height, width), np.uint8) if rng.random() < 0.5 else random_shape(height, width, rng)
    speed = rng.uniform(-6, 6, 2)
    codec = cv2.VideoWriter.fourcc(*str(rng.choice(FILM_CODECS)))
    even = (width + width % 2, height + height % 2)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "film.avi")
        film = cv2.VideoWriter(path, cv2.CAP_FFMPEG, codec, 25, even)
        frames = int(rng.integers(1, 6))
        for back in reversed(range(frames)):
            shift = np.array([[1, 0, back * speed[0]], [0, 1, back * speed[1]]])
            moved = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
            frame = np.where(moves[..., None], moved, image) if back else image
            film.write(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge"))
        film.release()
        player = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
        for _ in range(frames):
            player.grab()
        there, seen = player.retrieve()
        player.release()
    return seen[:height, :width] if there else image  # an OpenCV may have been built without these codecs


def random_shape(h: int, w: int, rng: np.random.Generator) -> Image:
    """A polygon, an ellipse or a box of 1 in an array of 0, H x W."""
    kind = rng.random()
    shape = np.zeros((h, w), np.uint8)
    if kind < 0.55:
        corners = int(rng.integers(4, 11))
        angles, radii = np.sort(rng.random(corners)) * 2 * np.pi, rng.uniform(0.4, 1.0, corners)
        points = np.stack([w / 2 * (1 + radii * np.cos(angles)), h / 2 * (1 + radii * np.sin(angles))], axis=1)
        cv2.fillPoly(shape, [points.astype(np.int32)], 1)
    elif kind < 0.8:
        axes = (max(0, w // 2 - 1), max(0, h // 2 - 1))
        cv2.ellipse(shape, (w // 2, h // 2), axes, 0, 0, 360, 1, -1)
    else:
        shape[:] = 1
    return shape


def _own_table(
    standard: NDArray[np.float64], quality: int, tilt: tuple[float, float], rng: np.random.Generator
) -> list[int]:
    """A quantisation table of 64, like the standard one at that quality: tilted towards some frequencies, rougher."""
    scale = 50 / quality if quality < 50 else 2 - quality / 50  # libjpeg's rule
    frequency = np.add.outer(np.arange(8), np.arange(8)).ravel() / 14
    change = rng.uniform(*tilt) * (frequency - 0.3) + rng.normal(0, 0.1, 64)
    return np.clip(standard * scale * np.exp(change) + 0.5, 1, rng.integers(24, 256)).astype(int).tolist()


@cache
def _standard_tables() -> list[NDArray[np.float64]]:
    """The JPEG standard's tables of luma and chroma (ITU-T T.81, annex K): libjpeg's at quality 50."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(file, "JPEG", quality=50)
    with PIL.Image.open(file) as image:
        return [np.array(table, float) for table in image.quantization.values()]

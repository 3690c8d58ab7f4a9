"""Contact sheets: pictures side by side in a grid, with captions and a legend, on white."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
"""H x W x 3 RGB."""
Colour = tuple[int, int, int]

GAP = 8
HEAD = 60
"""Height of the captions above a grid, pixels."""
INK = (25, 25, 25)
FRAME = (205, 205, 205)


def resized(tile: Picture, side: int) -> Picture:
    """A tile of another size, each of its pixels the mean of what it covers."""
    return np.array(Image.fromarray(tile).resize((side, side), Image.Resampling.BOX))


def grid(tiles: Sequence[Sequence[Picture]], captions: Sequence[str]) -> Picture:
    """Tiles, square and of one size, in rows under a caption for each column, on white."""
    side = len(tiles[0][0])
    canvas = np.full(shape(len(tiles), len(captions), side), 255, np.uint8)
    for column, caption in enumerate(captions):
        lettering = text(caption, side // 8)
        left = place(0, column, side)[1].start + (side - lettering.shape[1]) // 2
        paste(canvas, lettering, HEAD - 6 - len(lettering), left)
        for row, line in enumerate(tiles):
            down, across = place(row, column, side)
            canvas[down.start - 1 : down.stop + 1, across.start - 1 : across.stop + 1] = FRAME
            canvas[down, across] = line[column]
    return canvas


def place(row: int, column: int, side: int) -> tuple[slice, slice]:
    """Where in a grid a tile is."""
    top, left = HEAD + row * (side + GAP), GAP + column * (side + GAP)
    return slice(top, top + side), slice(left, left + side)


def shape(rows: int, columns: int, side: int) -> tuple[int, int, int]:
    """Of a grid."""
    return HEAD + rows * (side + GAP), GAP + columns * (side + GAP), 3


def legend(colours: Mapping[str, Colour], height: int) -> Picture:
    """What colours mean, in a line."""
    size = height // 2
    parts = []
    for name, colour in colours.items():
        lettering = text(name, round(0.9 * size))
        part = np.full((height, GAP + size + size // 3 + lettering.shape[1] + size // 2, 3), 255, np.uint8)
        top = (height - size) // 2
        part[top : top + size, GAP : GAP + size] = FRAME
        part[top + 1 : top + size - 1, GAP + 1 : GAP + size - 1] = colour
        paste(part, lettering, (height - len(lettering)) // 2, GAP + size + size // 3)
        parts.append(part)
    return np.concatenate(parts, axis=1)


def text(words: str, size: int) -> Picture:
    """Lettering on white, `size` pixels to the line; a letter that ^ follows wears it as its hat."""
    font = ImageFont.load_default(size)
    plain = words.replace("^", "")
    canvas = Image.new("RGB", (math.ceil(font.getlength(plain)) + 2, math.ceil(1.6 * size)), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((1, 0.3 * size), plain, INK, font)
    for hatted in re.finditer(r"(.)\^", words):
        before = font.getlength(words[: hatted.start()].replace("^", ""))
        overhang = font.getlength(hatted[1]) - font.getlength("^")
        pen.text((1 + before + overhang / 2, 0), "^", INK, font)
    return np.array(canvas)


def paste(canvas: Picture, part: Picture, top: int, left: int) -> None:
    """Put a part on a canvas, cut where it does not fit at the right or below."""
    room = canvas[top : top + part.shape[0], left : left + part.shape[1]]
    room[:] = part[: room.shape[0], : room.shape[1]]

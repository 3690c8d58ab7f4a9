"""Masks, overlays and thumbnails: a finding as pictures."""

import hashlib
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.findings import Finding
from mag_rt.pictures import Picture, map_back, shrink, shrunk
from mag_rt.sinks.jsonl import seen_from
from mag_rt.sinks.whole import whole

OVERLAY_SIDE = 2048
"""Longest side of an overlay's picture, pixels: enough to look at, quick to open."""
OVERLAY_QUALITY = 90
MASK_OPTIONS = (
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
)
"""Smooth as an enlarged mask is, it is written a fifth faster than by OpenCV's own choice, and a fifth smaller."""
STRONGEST_HEAT = 0.65
"""Opacity of the heat colour where the probability is 1."""
HEAT = cv2.COLORMAP_INFERNO
"""Perceptually even, told apart by the colour-blind, and still in order when printed in grey."""
LIGHT, GREY_EDGE, DARK = (255, 255, 255), (110, 110, 110), (0, 0, 0)

THUMBNAIL_SIDE = 384
"""Longest side of a thumbnail, pixels."""
THUMBNAIL_QUALITY = 70
THUMBNAIL_MASK_QUALITY = 50
"""Of the mask, which is smooth: as PNG it takes seven times the bytes, and 5,000 of them go into one report."""

NAME_BYTES = 96
"""Of a source's name in the names of its pictures: with all that is added, any file system takes them."""
NARROWEST_LEGEND = 200
"""Width of a picture, pixels, below which the letters of a legend could not be read and are left out."""


class ImageSink:
    """Writes the pictures of findings below a folder.

    `masks`: `masks/NAME.png`, 8-bit probability at the picture's own size. `overlays`: `overlays/NAME.jpg`, see
    `draw_overlay`. `thumbnails`: `thumbnails/NAME.jpg` and `thumbnails/NAME-mask.jpg`, photo and 8-bit grey mask of at
    most `THUMBNAIL_SIDE` pixels, for the report.
    """

    def __init__(self, folder: Path, masks: bool = True, overlays: bool = True, thumbnails: bool = True) -> None:
        self.folder = folder
        self.masks, self.overlays, self.thumbnails = masks, overlays, thumbnails
        for name, wanted in (("masks", masks), ("overlays", overlays), ("thumbnails", thumbnails)):
            if wanted:
                (folder / name).mkdir(parents=True, exist_ok=True)

    def write(self, finding: Finding) -> tuple[str | None, str | None]:
        """Paths of mask and overlay relative to the folder; None for what is not written. Raises OSError.

        May be called by several threads at the same time.
        """
        if finding.mask is None or finding.picture is None:
            return None, None
        name = file_name(finding, self.folder)
        mask = f"masks/{name}.png" if self.masks else None
        overlay = f"overlays/{name}.jpg" if self.overlays else None
        if mask:
            self._write(mask, finding.mask, *MASK_OPTIONS)
        picture = shrink(finding.picture, OVERLAY_SIDE)
        fitted = _fitted(finding.mask, picture)
        if overlay:
            self._write(overlay, draw_overlay(finding, picture, fitted), cv2.IMWRITE_JPEG_QUALITY, OVERLAY_QUALITY)
        if self.thumbnails:
            photo, small_mask = _thumbnails(name)
            self._write(photo, _thumbnail(picture), cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY)
            self._write(small_mask, _thumbnail(fitted), cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_MASK_QUALITY)
        return mask, overlay

    def _write(self, name: str, pixels: NDArray[np.uint8], *parameters: int) -> None:
        path = self.folder / name
        with whole(path) as partial:
            partial.write_bytes(cv2.imencode(path.suffix, pixels, parameters)[1].tobytes())


def file_name(finding: Finding, folder: Path) -> str:
    """A name for the finding's pictures below a folder that a person recognises and that no other source has.

    It stays the same when photos and results are moved together.
    """
    source = finding.source or ""
    stem = re.sub(r"[^\w.-]+", "_", Path(source).stem)[:60] or "picture"
    stem = stem.encode()[:NAME_BYTES].decode(errors="ignore")
    digest = hashlib.sha256(os.fsencode(seen_from(folder, source))).hexdigest()[:10]
    frame = "" if finding.frame is None else f"-{finding.frame:06d}"
    return f"{stem}-{digest}{frame}"


def thumbnail_paths(line: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """Where the thumbnails, photo and mask, of a line of findings.jsonl below `folder` are, relative to it."""
    if drawn := line["mask"] or line["overlay"]:
        return _thumbnails(Path(drawn).stem)
    return _thumbnails(file_name(Finding(os.path.join(folder, line["source"]), line["frame"]), folder))


def _thumbnails(name: str) -> tuple[str, str]:
    return f"thumbnails/{name}.jpg", f"thumbnails/{name}-mask.jpg"


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most `THUMBNAIL_SIDE` pixels wide and high."""
    halved = _halved(pixels, THUMBNAIL_SIDE)
    return cv2.resize(halved, shrunk(halved.shape[:2], THUMBNAIL_SIDE)[::-1], interpolation=cv2.INTER_LINEAR)


def _halved(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Halved for as long as the longer side stays `side` or more: four times as fast as shrinking at once."""
    while max(pixels.shape[:2]) >= 2 * side and min(pixels.shape[:2]) > 1:
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = cv2.resize(pixels[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return pixels


def draw_overlay(finding: Finding, picture: Picture, mask: NDArray[np.uint8]) -> Picture:
    """The picture under the heat of its splice probability (eq. 1, probability as attention), regions outlined.

    `picture`, h x w x 3 BGR, and `mask`, h x w: the finding's own, at the size to draw at; they are not drawn on.
    Regions have numbers, as their order in findings.jsonl, where there are several. Below the picture lies a strip with
    the legend, unless it is narrower than `NARROWEST_LEGEND`.
    """
    assert finding.width and finding.height
    height, width = picture.shape[:2]
    hot, kept = _heat()
    overlay = cv2.add(cv2.multiply(picture, cv2.applyColorMap(mask, kept), scale=1 / 255), cv2.applyColorMap(mask, hot))
    scale = (width / finding.width, height / finding.height)
    outlines = [(np.array(region.polygon) * scale).round().astype(np.int32) for region in finding.regions]
    thickness = max(1, round(max(height, width) / 500))
    for colour, wide in ((DARK, 3 * thickness), (LIGHT, thickness)):  # seen on bright ground and on dark
        cv2.polylines(overlay, outlines, True, colour, wide, cv2.LINE_AA)
    if len(outlines) > 1:
        _number(overlay, outlines)
    return overlay if width < NARROWEST_LEGEND else np.vstack([overlay, _legend(finding, width)])


@cache
def _heat() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """For every grey level of a mask: the heat that is added, and how much of the picture is kept, 256 x 1 x 3 each."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    opacity = STRONGEST_HEAT * levels[..., None] / 255
    hot = cv2.applyColorMap(levels, HEAT) * opacity
    kept = np.broadcast_to(255 * (1 - opacity), hot.shape)
    return hot.round().astype(np.uint8), kept.round().astype(np.uint8)


def _number(overlay: Picture, outlines: list[NDArray[np.int32]]) -> None:
    """Put each region's number, from 1, on a dark plate above the top of its outline, and inside of the picture."""
    size = max(overlay.shape[:2]) / 2400 + 0.2
    stroke, margin = max(1, round(2 * size)), round(8 * size)
    for number, outline in enumerate(outlines, 1):
        (wide, high), _ = cv2.getTextSize(str(number), cv2.FONT_HERSHEY_SIMPLEX, size, stroke)
        x, y = outline[outline[:, 1].argmin()]
        left = int(np.clip(x - wide // 2, margin, max(margin, overlay.shape[1] - wide - margin)))
        base = max(y - 2 * margin, high + margin)
        cv2.rectangle(overlay, (left - margin, base - high - margin), (left + wide + margin, base + margin), DARK, -1)
        cv2.putText(overlay, str(number), (left, base), cv2.FONT_HERSHEY_SIMPLEX, size, LIGHT, stroke, cv2.LINE_AA)


def _legend(finding: Finding, width: int) -> Picture:
    """The strip below an overlay: what its colours mean at the left, score and verdict at the right."""
    size = min(width / 1150, 1.0)
    height, margin, stroke = round(46 * size), round(16 * size), max(1, round(1.5 * size))
    strip = np.zeros((height, width, 3), np.uint8)
    base = round(30 * size)

    def put(text: str, x: int) -> int:
        """Write with the left edge at x, or the right edge at -x; gives the other edge."""
        wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.75 * size, stroke)[0][0]
        left = x if x > 0 else width + x - wide
        cv2.putText(strip, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.75 * size, LIGHT, stroke, cv2.LINE_AA)
        return left + wide if x > 0 else left

    bar = put("0", margin) + margin // 2
    ramp = np.linspace(0, 255, round(220 * size)).astype(np.uint8)
    strip[height // 4 - 1 : height * 3 // 4 + 1, bar - 1 : bar + ramp.size + 1] = GREY_EDGE
    strip[height // 4 : height * 3 // 4, bar : bar + ramp.size] = cv2.applyColorMap(ramp[None], HEAT)
    put("1  splice probability", bar + ramp.size + margin // 2)
    put(f"score {finding.score or 0:.2f}: {finding.verdict}", -margin)
    return strip


def _fitted(mask: NDArray[np.uint8], picture: Picture) -> NDArray[np.uint8]:
    """The mask at the size of the picture, which may be decoded or drawn smaller.

    From less than twice the size on a linear look between its pixels passes over none of them, in a tenth of the time.
    """
    height, width = picture.shape[:2]
    return map_back(_halved(mask, max(height, width)), (height, width))

"""Masks and overlays: a finding as pictures."""

import hashlib
import os
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.findings import Finding
from mag_rt.pictures import Picture, shrink

OVERLAY_SIDE = 2048
"""Longest side of an overlay, pixels: enough to look at, quick to open."""
OVERLAY_QUALITY = 90
STRONGEST_HEAT = 0.65
"""Opacity of the heat colour where the probability is 1."""
OUTLINE = (255, 255, 255)


class ImageSink:
    """Writes below a folder `masks/NAME.png`, 8-bit probability at the picture's own size, and `overlays/NAME.jpg`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("masks", "overlays"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def write(self, finding: Finding) -> tuple[str | None, str | None]:
        """Paths of mask and overlay relative to the folder; None where there is no picture. Raises OSError.

        May be called by several threads at the same time.
        """
        if finding.mask is None:
            return None, None
        name = file_name(finding)
        mask, overlay = f"masks/{name}.png", f"overlays/{name}.jpg"
        _write(self.folder / mask, cv2.imencode(".png", finding.mask)[1])
        drawn = draw_overlay(finding)
        _write(self.folder / overlay, cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, OVERLAY_QUALITY])[1])
        return mask, overlay


def draw_overlay(finding: Finding) -> Picture:
    """The picture under the heat of its splice probability (eq. 1, probability as attention), regions outlined.

    Drawn at the size at which the picture was decoded, shrunk to `OVERLAY_SIDE`.
    """
    assert finding.mask is not None and finding.picture is not None
    picture = shrink(finding.picture, OVERLAY_SIDE)
    height, width = picture.shape[:2]
    mask = finding.mask
    if mask.shape != (height, width):
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    heat = cv2.applyColorMap(mask, cv2.COLORMAP_INFERNO)
    opacity = mask * np.float32(STRONGEST_HEAT / 255)
    overlay = cv2.blendLinear(heat, picture, opacity, 1 - opacity)
    scale = (width / finding.mask.shape[1], height / finding.mask.shape[0])
    outlines = [(np.array(region.polygon) * scale).round().astype(np.int32) for region in finding.regions]
    cv2.polylines(overlay, outlines, True, OUTLINE, max(1, round(max(height, width) / 500)), cv2.LINE_AA)
    return overlay


def file_name(finding: Finding) -> str:
    """A name for the finding's pictures that a person recognises and that no other source has."""
    source = finding.source or ""
    stem = re.sub(r"[^\w.-]+", "_", Path(source).stem)[:60] or "picture"
    digest = hashlib.sha256(os.fsencode(os.path.abspath(source))).hexdigest()[:10]
    frame = "" if finding.frame is None else f"-{finding.frame:06d}"
    return f"{stem}-{digest}{frame}"


def _write(path: Path, encoded: NDArray[np.uint8]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(encoded.tobytes())
    os.replace(partial, path)

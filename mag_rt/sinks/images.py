"""Masks and overlays: a finding as pictures."""

import hashlib
import os
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.findings import Finding
from mag_rt.pictures import Picture

OVERLAY_QUALITY = 90
STRONGEST_HEAT = 0.65
"""Opacity of the heat colour where the probability is 1."""
OUTLINE = (255, 255, 255)


class ImageSink:
    """Writes `masks/NAME.png` (8-bit probability) and `overlays/NAME.jpg` below a folder, at the picture's own size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("masks", "overlays"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def write(self, finding: Finding) -> tuple[str | None, str | None]:
        """Paths of mask and overlay relative to the folder; None where there is no picture. Raises OSError."""
        if finding.picture is None or finding.probability is None:
            return None, None
        name = file_name(finding)
        mask, overlay = f"masks/{name}.png", f"overlays/{name}.jpg"
        _write(self.folder / mask, cv2.imencode(".png", as_grey(finding.probability))[1])
        drawn = draw_overlay(finding.picture, finding)
        _write(self.folder / overlay, cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, OVERLAY_QUALITY])[1])
        return mask, overlay


def as_grey(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probability in [0, 1] to 8 bits, rounded."""
    return (probability * 255 + 0.5).astype(np.uint8)


def draw_overlay(picture: Picture, finding: Finding) -> Picture:
    """The picture under the heat of its splice probability (eq. 1, probability as attention), regions outlined."""
    assert finding.probability is not None
    grey = as_grey(finding.probability)
    heat = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)
    opacity = STRONGEST_HEAT * finding.probability
    overlay = cv2.blendLinear(heat, picture, opacity, 1 - opacity)
    thickness = max(1, round(max(picture.shape[:2]) / 500))
    outlines = [np.array(region.polygon, np.int32) for region in finding.regions]
    cv2.polylines(overlay, outlines, True, OUTLINE, thickness, cv2.LINE_AA)
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

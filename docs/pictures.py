"""Draw the pictures of the README and the model card anew, by the annotator that ships: python docs/pictures.py

Needs Debian's chromium, for the report.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

from mag_train.contact_sheet import GAP, Picture, paste

DOCS = Path(__file__).parent
PHOTOS = DOCS.parent / "examples/photos"
FOUND = "spliced-sheep-meadow"
SHOWN = (FOUND, "spliced-fig-coffee"), ("authentic-astronaut", "authentic-bee")
"""Rows of failures.jpg: a splice that was found, one that was not; false alarms on authentic photos."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        magrt = Path(sys.executable).with_name("magrt")
        scan = [str(magrt), "scan", str(PHOTOS), "--out", str(out), "--overwrite"]
        subprocess.run(scan, check=True)
        overlays = {name: cv2.imread(str(next((out / "overlays").glob(f"{name}-*")))) for row in SHOWN for name in row}
        write("failures.jpg", laid_out([[overlays[name] for name in row] for row in SHOWN], 1000))
        photo = cv2.imread(str(PHOTOS / f"{FOUND}.jpg"))
        write("finding.jpg", laid_out([[photo, overlays[FOUND][: len(photo)]]], 1400))
        photograph_report(out / "report.html")


def laid_out(rows: Sequence[Sequence[Picture]], width: int) -> Picture:
    """Pictures in rows of `width` pixels, those of a row of one height, on white."""
    parts = []
    for row in rows:
        height = int((width - GAP * (len(row) - 1)) / sum(each.shape[1] / each.shape[0] for each in row))
        part, left = np.full((height + GAP, width, 3), 255, np.uint8), 0
        for each in row:
            across = int(each.shape[1] * height / each.shape[0])
            paste(part, cv2.resize(each, (across, height), interpolation=cv2.INTER_AREA), 0, left)
            left += across + GAP
        parts.append(part)
    return np.vstack(parts)[:-GAP]


def photograph_report(page: Path) -> None:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"))
        shown = chromium.new_page(viewport={"width": 1280, "height": 820})
        shown.goto(page.as_uri())
        shown.locator(".card img[src]").first.wait_for()
        shown.wait_for_timeout(1000)
        shown.screenshot(path=str(DOCS / "report.jpg"), type="jpeg", quality=85)
        chromium.close()


def write(name: str, picture: Picture) -> None:
    cv2.imwrite(str(DOCS / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()

"""Draw the pictures of the README and the model card anew, by the annotator that ships: python docs/pictures.py

Needs Debian's chromium, for the report.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
PHOTOS = DOCS.parent / "examples/photos"
FOUND = "spliced-sheep-meadow"
SHOWN = (FOUND, "spliced-dog-stream"), ("authentic-astronaut", "authentic-bee")
"""Rows of failures.jpg: a splice that was found, one that was not; false alarms on authentic photos."""
WHITE = (255, 255, 255)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        magrt = Path(sys.executable).with_name("magrt")
        scan = [str(magrt), "scan", str(PHOTOS), "--out", str(out), "--overwrite"]
        subprocess.run(scan, check=True)
        overlays = {name: cv2.imread(str(next((out / "overlays").glob(f"{name}-*")))) for row in SHOWN for name in row}
        write("failures.jpg", stacked([beside([overlays[name] for name in row], 1000) for row in SHOWN]))
        photo = cv2.imread(str(PHOTOS / f"{FOUND}.jpg"))
        write("finding.jpg", beside([photo, overlays[FOUND][: len(photo)]], 1400))
        photograph_report(out / "report.html")


def beside(pictures: list[NDArray[np.uint8]], width: int, gap: int = 10) -> NDArray[np.uint8]:
    """Pictures of one height, in a row of `width` pixels."""
    height = (width - gap * (len(pictures) - 1)) / sum(each.shape[1] / each.shape[0] for each in pictures)
    sizes = [(round(each.shape[1] * height / each.shape[0]), round(height)) for each in pictures]
    row = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each, size in zip(pictures, sizes, strict=True)]
    apart = [cv2.copyMakeBorder(each, 0, 0, 0, gap, cv2.BORDER_CONSTANT, value=WHITE) for each in row]
    return cv2.copyMakeBorder(np.hstack(apart), 0, 0, 0, gap, cv2.BORDER_CONSTANT, value=WHITE)[:, :width]


def stacked(rows: list[NDArray[np.uint8]], gap: int = 10) -> NDArray[np.uint8]:
    apart = [cv2.copyMakeBorder(row, 0, gap, 0, 0, cv2.BORDER_CONSTANT, value=WHITE) for row in rows]
    return np.vstack(apart)[:-gap]


def photograph_report(page: Path) -> None:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"))
        shown = chromium.new_page(viewport={"width": 1280, "height": 820})
        shown.goto(page.as_uri())
        shown.locator(".card img[src]").first.wait_for()
        shown.wait_for_timeout(1000)
        shown.screenshot(path=str(DOCS / "report.jpg"), type="jpeg", quality=85)
        chromium.close()


def write(name: str, picture: NDArray[np.uint8]) -> None:
    cv2.imwrite(str(DOCS / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()

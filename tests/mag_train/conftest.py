"""A small folder of labelled photos to train on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import save


def labelled_photo(seed: int, height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Blurred noise with an ellipse of class 1 and an unlabelled rim around it."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), dtype=np.uint8), (0, 0), 2)
    labels = np.zeros((height, width), np.uint8)
    centre, axes = (width // 2, height // 2), (width // 4, height // 4)
    cv2.ellipse(image, centre, axes, 0, 0, 360, (40, 90, 200), -1)
    cv2.ellipse(labels, centre, axes, 0, 0, 360, 1, -1)
    cv2.ellipse(labels, centre, axes, 0, 0, 360, 255, 2)
    return image, labels


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos in `images/`, eleven label maps in `labels/`."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(12):
        image, labels = labelled_photo(index)
        save(folder / "images" / f"{index:02d}.jpg", image)
        if index != 5:
            save(folder / "labels" / f"{index:02d}.png", labels)
    return folder

"""Your own pictures: `images/`, `masks/` with the same names (white where spliced), and perhaps `authentic/`."""

from pathlib import Path

from mag_train.data.tampered.picture import AUTHENTIC, Tampered, by_stem, pictures_in, unexpected


def read(folder: Path) -> list[Tampered]:
    """Rows are named after the folder. A picture in `images` without a mask is not taken for authentic."""
    dataset = folder.resolve().name
    images, masks = pictures_in(folder / "images"), by_stem(pictures_in(folder / "masks"))
    if not images or not masks:
        raise unexpected(folder, "pair", "images/, masks/ and perhaps authentic/", "masks" if images else "images")
    found = [
        Tampered(image, masks.get(image.stem, folder / "masks" / f"{image.stem}.png"), dataset, "tampered")
        for image in images
    ]
    return found + [Tampered(image, None, dataset, AUTHENTIC) for image in pictures_in(folder / "authentic")]

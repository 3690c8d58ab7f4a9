"""COVERAGE (Wen et al., 2016): `image/1.tif` is authentic, `image/1t.tif` copy-moved, `mask/1forged.tif` its mask."""

from pathlib import Path

from mag_train.data.tampered.picture import AUTHENTIC, Tampered, by_stem, pictures_in, unexpected


def read(folder: Path) -> list[Tampered]:
    """100 copy-moved and 100 authentic pictures; 9 masks are of another size."""
    images = pictures_in(folder / "image")
    masks = by_stem(pictures_in(folder / "mask"))
    tampered = [image for image in images if image.stem.endswith("t")]
    if not tampered or not masks:
        missing = "image/1t.tif and so on" if not tampered else "mask/1forged.tif and so on"
        raise unexpected(folder, "coverage", "image/, mask/", missing)
    found = []
    for image in tampered:
        name = f"{image.stem.removesuffix('t')}forged"
        found.append(Tampered(image, masks.get(name, folder / "mask" / f"{name}.tif"), "coverage", "copymove"))
    return found + [Tampered(image, None, "coverage", AUTHENTIC) for image in images if image not in tampered]

"""Carvalho et al.: DSO-1 and DSI-1, as in tifs-database.zip.

`DSO-1/splicing-01.png` has its mask, black where spliced, in `DSO-1-Fake-Images-Masks/splicing-01.png`;
`DSO-1/normal-01.png` is authentic. DSI-1 is read by the same pattern. The paper's "Carvalho" is this.
"""

from pathlib import Path

from mag_train.data.tampered.picture import AUTHENTIC, Tampered, black, by_stem, pictures_in, unexpected


def read(folder: Path) -> list[Tampered]:
    """DSO-1 (100 spliced, 100 authentic) and DSI-1 (25 and 25), as far as they are there."""
    found: list[Tampered] = []
    for part in ("DSO-1", "DSI-1"):
        masks = by_stem(pictures_in(folder / f"{part}-Fake-Images-Masks"))
        for image in pictures_in(folder / part):
            if image.stem.startswith("splicing"):
                mask = masks.get(image.stem, folder / f"{part}-Fake-Images-Masks" / image.name)
                found.append(Tampered(image, mask, part, "spliced", black))
            elif image.stem.startswith("normal"):
                found.append(Tampered(image, None, part, AUTHENTIC))
    spliced = [each for each in found if each.mask]
    if not any(each.mask and each.mask.is_file() for each in spliced):
        missing = "pictures splicing-*" if not spliced else "their masks"
        raise unexpected(folder, "carvalho", "DSO-1/, DSO-1-Fake-Images-Masks/ (or DSI-1 for DSO-1)", missing)
    return found

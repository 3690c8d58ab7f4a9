"""FantasticReality (Kniaz et al., 2019): `ColorFakeImages/`, `ColorRealImages/`, `SegmentationFake/`.

A mask has its picture's name and is a PNG or BMP, or, in the mirror that everyone uses, an .npz. Whatever is not black,
or not 0, is spliced.
"""

from pathlib import Path

from mag_train.data.tampered.picture import AUTHENTIC, Tampered, by_stem, not_black, pictures_in, unexpected
from mag_train.data.writing import RECIPE


def read(folder: Path) -> list[Tampered]:
    """The "Rough" splices and the real photos, where they are there.

    What `magtrain synthesize` wrote in this layout is called synthesized: it is not what the paper measured on.
    """
    dataset = "synthesized" if (folder / RECIPE).is_file() else "fantastic-reality"
    fakes = pictures_in(folder / "ColorFakeImages")
    segmentation = folder / "SegmentationFake"
    masks = by_stem([*pictures_in(segmentation), *sorted(segmentation.glob("*.npz"))])
    if not fakes or not masks:
        missing = "pictures in ColorFakeImages" if not fakes else "masks in SegmentationFake"
        raise unexpected(
            folder, "fantastic-reality", "ColorFakeImages/, SegmentationFake/ and perhaps ColorRealImages/", missing
        )
    found = []
    for image in fakes:
        mask = masks.get(image.stem, segmentation / f"{image.stem}.png")
        found.append(Tampered(image, mask, dataset, "spliced", not_black))
    real = pictures_in(folder / "ColorRealImages")
    return found + [Tampered(image, None, dataset, AUTHENTIC) for image in real]

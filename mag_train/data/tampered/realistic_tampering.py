"""Realistic Tampering (Korus and Huang, 2016): `CAMERA/tampered-realistic`, `CAMERA/ground-truth`, `CAMERA/pristine`.

The masks have three levels: black authentic, white changed in meaning, grey changed along with it. Both white and grey
count as tampered, as the dataset's own readme has it.
"""

from pathlib import Path

from mag_train.data.tampered.picture import AUTHENTIC, Tampered, by_stem, not_black, pictures_in, unexpected


def read(folder: Path) -> list[Tampered]:
    """220 tampered and 220 authentic pictures of four cameras, in `folder` or in `folder`/data-images."""
    found: list[Tampered] = []
    cameras = sorted(path.parent for path in folder.rglob("tampered-realistic") if path.is_dir())
    for camera in cameras:
        masks = by_stem(pictures_in(camera / "ground-truth"))
        for image in pictures_in(camera / "tampered-realistic"):
            mask = masks.get(image.stem, camera / "ground-truth" / f"{image.stem}.PNG")
            found.append(Tampered(image, mask, "realistic-tampering", "tampered", not_black))
        authentic = pictures_in(camera / "pristine")
        found += [Tampered(image, None, "realistic-tampering", AUTHENTIC) for image in authentic]
    if not any(each.mask and each.mask.is_file() for each in found):
        missing = "pictures in a folder tampered-realistic" if not cameras else "masks in ground-truth"
        expected = "CAMERA/tampered-realistic/, CAMERA/ground-truth/, CAMERA/pristine/"
        raise unexpected(folder, "realistic-tampering", expected, missing)
    return found

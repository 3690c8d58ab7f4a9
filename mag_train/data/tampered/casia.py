"""CASIA v1 and v2, with the masks of namtpham/casia1groundtruth and namtpham/casia2groundtruth.

The files' names say everything, so folders may nest as they like: `Au_ani_0001.jpg` is authentic,
`Sp_D_CND_A_pla0005_pla0023_0281.jpg` (v1; `Tp_...` and five digits in v2) is tampered, D from a different picture and S
within the same one, and `..._gt.png` is its mask. Some pictures of both were given other names than their masks (v1: 73
name their two sources in the other order), but the number at the end stayed: a picture without a mask of its name takes
the mask of its number, if that is one mask that no other picture names.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mag_train.data.tampered.picture import AUTHENTIC, Tampered, by_stem, pictures_below, unexpected

KINDS = {"D": "spliced", "S": "copymove"}


def read_v1(folder: Path) -> list[Tampered]:
    """CASIA v1: 800 authentic pictures, 921 tampered ones, one of them without a mask."""
    return _read(folder, "casia1", prefix="Sp", digits=4)


def read_v2(folder: Path) -> list[Tampered]:
    """CASIA v2: 7491 authentic pictures, 5123 tampered ones; 17 masks are of another size."""
    return _read(folder, "casia2", prefix="Tp", digits=5)


def _read(folder: Path, dataset: str, prefix: str, digits: int) -> list[Tampered]:
    files = pictures_below(folder)
    tampered = rf"{prefix}_[DS]_\w+_\d{{{digits}}}"
    images = _matching(files, tampered)
    masks = {name.rpartition("_gt")[0]: path for name, path in _matching(files, rf"{tampered}_gt\d*").items()}
    if not images or not masks:
        expected = f"pictures {prefix}_D_..._{'0' * digits}.jpg or .tif, masks of that name and _gt.png"
        raise unexpected(folder, dataset, expected, "pictures" if not images else "masks")
    renamed = _by_number(masks.keys() - images.keys())
    orphans = _by_number(images.keys() - masks.keys())
    found = []
    for name, image in images.items():
        number = name.rpartition("_")[2]
        other = renamed.get(number) if orphans.get(number) == name else None
        mask = masks.get(other or name, folder / f"{name}_gt.png")
        found.append(Tampered(image, mask, dataset, KINDS[name[3]], renamed=other is not None))
    authentic = _matching(files, rf"Au_\w+_\d{{{digits}}}").values()
    return found + [Tampered(image, None, dataset, AUTHENTIC) for image in authentic]


def _matching(files: Iterable[Path], pattern: str) -> dict[str, Path]:
    return by_stem(path for path in files if re.fullmatch(pattern, path.stem))


def _by_number(names: Iterable[str]) -> dict[str, str]:
    """The names by the number at their end, where only one has it."""
    numbers = Counter(name.rpartition("_")[2] for name in names)
    return {number: name for name in names if numbers[number := name.rpartition("_")[2]] == 1}

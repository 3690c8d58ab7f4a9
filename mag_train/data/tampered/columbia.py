"""Columbia Uncompressed Image Splicing: `4cam_splc/*.tif`, `4cam_splc/edgemask/*_edgemask.jpg`, `4cam_auth/*.tif`.

An edge mask paints what came from one camera green and the rest red, brighter near the boundary, in a lossy JPEG. Which
of the two was pasted it does not say; as everywhere here, the smaller region is the splice.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mag_train.data.tampered.picture import AUTHENTIC, Mask, Tampered, by_stem, pictures_below, unexpected


def green(pixels: NDArray[np.uint8]) -> Mask:
    """More green than red."""
    return pixels[..., 1] > pixels[..., 2]


def read(folder: Path) -> list[Tampered]:
    """180 spliced and 183 authentic pictures; unpacked archives may nest `4cam_splc` in a folder of that name."""
    files = [(path, path.relative_to(folder).parts[:-1]) for path in pictures_below(folder)]
    spliced = by_stem(path for path, parents in files if parents[-1:] == ("4cam_splc",))
    authentic = by_stem(path for path, parents in files if parents[-1:] == ("4cam_auth",))
    masks = by_stem(path for path, parents in files if parents[-1:] == ("edgemask",) and "4cam_splc" in parents)
    if not spliced or not masks:
        missing = "pictures in 4cam_splc" if not spliced else "4cam_splc/edgemask"
        raise unexpected(folder, "columbia", "4cam_splc/, 4cam_splc/edgemask/, 4cam_auth/", missing)
    found = []
    for name, image in spliced.items():
        edges = f"{name}_edgemask"
        mask = masks.get(edges, image.parent / "edgemask" / f"{edges}.jpg")
        found.append(Tampered(image, mask, "columbia", "spliced", green))
    return found + [Tampered(image, None, "columbia", AUTHENTIC) for image in authentic.values()]

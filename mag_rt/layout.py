"""Records that the kernels read and write, as kernels/layout.cuh lays them out, and what they say."""

import numpy as np

from mag_rt.findings import Counts

MOST_CHANNELS = 32

PLACEMENT = np.dtype(
    [
        ("pixels", "<u8"),
        ("pitch", "<u8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("placed_width", "<i4"),
        ("placed_height", "<i4"),
    ]
)
"""mag::Placement of kernels/layout.cuh."""

STATISTICS = np.dtype(
    [
        ("nan", "<u4"),
        ("infinite", "<u4"),
        ("suspicious", "<u4"),
        ("left", "<i4"),
        ("top", "<i4"),
        ("right", "<i4"),
        ("bottom", "<i4"),
        ("unused", "<u4"),
        ("histogram", "<u4", 256),
        ("likely", "<u4", MOST_CHANNELS),
    ]
)
"""mag::Statistics of kernels/layout.cuh."""


def counts(statistics: np.void, classes: int) -> Counts:
    """What a record of `STATISTICS` says of one picture, of a network with mask, edge and so many classes."""
    left, top, right, bottom = (int(statistics[side]) for side in ("left", "top", "right", "bottom"))
    suspicious = int(statistics["suspicious"])
    return Counts(
        levels=statistics["histogram"].astype(np.int64),
        likely=statistics["likely"][2 : 2 + classes].astype(np.int64),
        suspicious=suspicious,
        box=(left, top, right - left + 1, bottom - top + 1) if suspicious else (0, 0, 0, 0),
    )

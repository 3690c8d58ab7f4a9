"""Several datasets in one folder, listed in `manifest.tsv`: columns dataset, role, kind, image, mask."""

from pathlib import Path

from mag_train.data.photos import manifest_rows
from mag_train.data.tampered.picture import AUTHENTIC, Tampered, unexpected

COLUMNS = ("dataset", "role", "kind", "image", "mask")
ROLE = "development"
"""Rows to measure on; the others are for training and calibration."""


def read(folder: Path) -> list[Tampered]:
    """The pictures of role development; only those of kind authentic have no mask."""
    path = folder / "manifest.tsv"
    if not path.is_file():
        raise unexpected(folder, "manifest", f"manifest.tsv with columns {', '.join(COLUMNS)}", "manifest.tsv")
    rows = manifest_rows(path, COLUMNS, ROLE)
    if not rows:
        raise unexpected(folder, "manifest", f"rows of role {ROLE}", "any")
    return [
        Tampered(
            folder / row["image"],
            None if row["kind"] == AUTHENTIC else folder / row["mask"],
            row["dataset"],
            row["kind"],
        )
        for row in rows
    ]

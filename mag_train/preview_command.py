"""magtrain preview: the paper's figures 5 and 6, how retouching and annotation evolve, from the panels of a run."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # at run time only inside the functions: magtrain --help must not wait for torch
    from mag_train.contact_sheet import Picture

MOST_EPOCHS = 8
"""Columns of epochs, which with A and the truth are as many as a page bears."""
FIGURES = (
    ("Figure 5. Retouched picture B^ by epoch", "B^", "C': mask"),
    ("Figure 5, continued. Attention by epoch: white where the retoucher paints over A", "attention", "C': mask"),
    ("Figure 6. Annotation C^ of A by epoch: splice mask", "C^ on A: mask", "C': mask"),
    ("Figure 6, continued. Annotation C^ of A by epoch: objects in authentic areas", "C^ on A: classes", "C': classes"),
)
"""Title of each part, the column of the panels that it follows through the epochs, the truth that stands beside it."""
TITLE_SIZE, LEGEND, BETWEEN, MARGIN = 44, 76, 24, 24
"""Sizes on the page, pixels."""


def preview(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or still going.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Picture to write. [RUN/preview.png]", show_default=False)
    ] = None,
) -> None:
    """Draw how a run has learnt, as the paper's figures 5 and 6: A, truth, then B^, attention and C^ by epoch.

    Needs nothing but the run's folder. Of a long run eight epochs are shown, the first and the last among them.
    """
    from PIL import Image

    out = out or run / "preview.png"
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out}: the picture is a PNG, name it so")
    shown = spread(panels_of(run))
    partial = out.with_suffix(".partial")
    Image.fromarray(figures(shown)).save(partial, "PNG", dpi=(300, 300))
    os.replace(partial, out)
    typer.echo(f"{out}: epochs {', '.join(map(str, shown))}")


def panels_of(run: Path) -> dict[int, "Picture"]:
    """The panels of a run by epoch, in order. Raises ValueError when the folder is no run or has none yet."""
    from mag_train import panels

    if not (run / "config.json").is_file():
        raise ValueError(f"{run}: not the folder of a run (it has no config.json)")
    found = {}
    for epoch in panels.epochs(run):
        with suppress(FileNotFoundError):  # a run that is going on may just have thinned it out
            found[epoch] = panels.read(run, epoch)
    if not found:
        raise ValueError(f"{run}: no panels yet; the first is drawn at the end of an epoch")
    return found


def spread(panels: dict[int, "Picture"]) -> dict[int, "Picture"]:
    """At most `MOST_EPOCHS` of the panels: the first, the last, and between them those nearest to equal steps."""
    epochs = list(panels)
    if len(epochs) <= MOST_EPOCHS:
        return panels
    step = (epochs[-1] - epochs[0]) / (MOST_EPOCHS - 1)
    wanted = [epochs[0] + step * index for index in range(MOST_EPOCHS)]
    return {epoch: panels[epoch] for epoch in sorted({min(epochs, key=lambda each: abs(each - at)) for at in wanted})}


def figures(shown: dict[int, "Picture"]) -> "Picture":
    """All parts below each other, H x W x 3 RGB on white; without what the run has no network for."""
    import numpy as np

    from mag_train.contact_sheet import GAP, legend, paste, text
    from mag_train.panels import COLOURS

    parts = []
    for title, column, truth in FIGURES:
        if _exists("attention" if column == "B^" else column, shown):
            heading = text(title, TITLE_SIZE)
            parts.append(np.pad(heading, ((BETWEEN, 0), (GAP, 0), (0, 0)), constant_values=255))
            parts.append(_part(column, truth, shown))
    parts.append(legend(COLOURS, LEGEND))
    height, width = sum(len(part) for part in parts), max(part.shape[1] for part in parts)
    page = np.full((height + 2 * MARGIN, width + 2 * MARGIN, 3), 255, np.uint8)
    top = MARGIN
    for part in parts:
        paste(page, part, top, MARGIN)
        top += len(part)
    return page


def _exists(column: str, shown: dict[int, "Picture"]) -> bool:
    """Whether a column of the panels has had something to show in any epoch."""
    from mag_train.panels import NOTHING, tile

    return any((tile(panel, 0, column) != NOTHING).any() for panel in shown.values())


def _part(column: str, truth: str, shown: dict[int, "Picture"]) -> "Picture":
    """A row for each picture: A, the truth, and `column` of every epoch shown."""
    from mag_train.contact_sheet import grid, resized
    from mag_train.panels import PICTURES, tile

    last = shown[max(shown)]
    rows = []
    for row in range(PICTURES):
        tiles = [tile(last, row, "A"), tile(last, row, truth), *(tile(panel, row, column) for panel in shown.values())]
        rows.append([resized(each, len(tiles[0])) for each in tiles])  # a run may go on with another crop
    return grid(rows, ["A", "C'", *(f"epoch {epoch}" for epoch in shown)])

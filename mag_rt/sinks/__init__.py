"""Where findings go: one module for each form that they are written in, and all of them together."""

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path

from mag_rt.findings import Finding
from mag_rt.pipeline import ahead
from mag_rt.sinks.images import ImageSink
from mag_rt.sinks.jsonl import JsonlSink

DRAWING_THREADS = max(1, min(8, (os.cpu_count() or 1) // 2))
"""Half of the cores: for a large photo a mask takes as long to write as it takes to decode. Each takes memory."""
DRAWN_AHEAD = DRAWING_THREADS + 2
"""Findings whose pictures are being written while the next ones are read."""


def written(
    out: Path, findings: Iterable[Finding], masks: bool = True, overlays: bool = True, thumbnails: bool = True
) -> Generator[str, None, None]:
    """Append findings to findings.jsonl below `out` as they come, with their pictures beside it; gives the lines.

    The system has a line that was given, and its pictures: no end of the scan loses them, but a power cut may. Raises
    OSError when they cannot be written.
    """
    images = ImageSink(out, masks, overlays, thumbnails)

    def draw(finding: Finding) -> tuple[Finding, tuple[str | None, str | None]]:
        return finding.without_pixels(), images.write(finding)

    with closing(JsonlSink(out)) as lines, closing(ahead(draw, findings, DRAWN_AHEAD, DRAWING_THREADS)) as drawn:
        for finding, paths in drawn:
            yield lines.write(finding, *paths)

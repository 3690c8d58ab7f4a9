"""Where findings go: one module for each form that they are written in, and all of them together."""

from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path

from mag_rt.findings import Finding
from mag_rt.pipeline import ahead
from mag_rt.sinks.images import ImageSink
from mag_rt.sinks.jsonl import JsonlSink

DRAWING_THREADS = 2
DRAWN_AHEAD = 4
"""Findings whose pictures are being written while the next ones are read."""


def written(out: Path, findings: Iterable[Finding]) -> Generator[Finding, None, None]:
    """Write findings.jsonl, masks/ and overlays/ below `out` as findings come; gives them on without their pixels.

    What was given on is on disk. Raises OSError when it cannot be.
    """
    images = ImageSink(out)

    def draw(finding: Finding) -> tuple[Finding, tuple[str | None, str | None]]:
        return finding.without_pixels(), images.write(finding)

    with closing(JsonlSink(out)) as lines, closing(ahead(draw, findings, DRAWN_AHEAD, DRAWING_THREADS)) as drawn:
        for finding, paths in drawn:
            lines.write(finding, *paths)
            yield finding

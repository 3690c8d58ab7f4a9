"""findings.csv: the findings as a table for a spreadsheet, a row for each picture or frame."""

import csv
from pathlib import Path

from mag_rt.findings import Finding
from mag_rt.sinks.jsonl import findings_in, seen_from
from mag_rt.sinks.whole import whole

NAME = "findings.csv"
COLUMNS = (
    "source", "frame", "time_s", "width", "height", "score", "verdict", "regions", "area_fraction", "objects", "error",
    "sha256",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_table(folder: Path) -> None:
    """Write findings.csv from findings.jsonl, whole or not at all. Raises OSError.

    UTF-8 with a byte order mark, by which spreadsheets know it. What a spreadsheet would take for a formula has an
    apostrophe before it; bytes of a name that are no Unicode become question marks.
    """
    with (
        whole(folder / NAME) as partial,
        partial.open("w", newline="", encoding="utf-8-sig", errors="replace") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows(_row(finding, folder) for finding in findings_in(folder))


def _row(finding: Finding, folder: Path) -> list[object]:
    source = seen_from(folder, finding.source or "")
    area = sum(region.area_fraction for region in finding.regions)
    read = finding.error is None
    return [
        _as_text(source),
        finding.frame,
        finding.time_s,
        finding.width,
        finding.height,
        finding.score,
        finding.verdict,
        len(finding.regions) if read else None,
        round(area, 5) if read else None,
        _as_text(" ".join(seen.name for seen in finding.objects)),
        finding.error and finding.error.message,
        finding.sha256,
    ]


def _as_text(name: str) -> str:
    return f"'{name}" if name.startswith(_FORMULA) else name

"""What a scan found, in a few lines on the terminal: the most suspicious pictures first."""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mag_rt.findings import Finding
from mag_rt.sources import as_text
from mag_rt.video import Segment
from mag_rt.wording import clock, printable

SHOWN = 20
"""Rows of the table, and unreadable files that are named."""
VERDICT_STYLES = {"spliced": "bold red", "inconclusive": "yellow", "authentic": "green"}


@dataclass
class Summary:
    """Counts by verdict, and the few findings that are named."""

    counts: dict[str, int]
    """spliced, inconclusive, authentic, unreadable."""
    suspicious: list[Finding] = field(default_factory=list)
    """Of the highest scores, at most `SHOWN`; of a video its most suspicious frame."""
    sources: int = 0
    """Pictures and videos that could be read, and so could have been among these."""
    unreadable: list[Finding] = field(default_factory=list)
    """The first ones, at most `SHOWN`."""

    @property
    def pictures(self) -> int:
        return sum(self.counts.values())


def summed_up(findings: Iterable[Finding]) -> Summary:
    """The summary of findings, which are looked at once and not kept."""
    counts: Counter[str] = Counter()
    unreadable: list[Finding] = []
    sources = 0

    def readable() -> Iterable[Finding]:
        for finding in findings:
            counts[finding.verdict or "unreadable"] += 1
            if finding.error is None:
                yield finding
            elif len(unreadable) < SHOWN:
                unreadable.append(finding)

    def of_each_source() -> Iterable[Finding]:
        nonlocal sources
        for _, frames in groupby(readable(), key=lambda each: each.source):
            sources += 1
            yield max(frames, key=_score)

    suspicious = heapq.nlargest(SHOWN, of_each_source(), key=_score)
    named = {name: counts[name] for name in ("spliced", "inconclusive", "authentic", "unreadable")}
    return Summary(named, suspicious, sources, unreadable)


def _score(finding: Finding) -> float:
    return finding.score or 0


def show(summary: Summary, segments: list[Segment], terminal: Console) -> None:
    """The table of the most suspicious pictures and videos, and spliced stretches of videos."""
    if summary.suspicious:
        terminal.print(_table(summary.suspicious))
        if more := summary.sources - len(summary.suspicious):
            terminal.print(f"... and {more} less suspicious", highlight=False)
    for segment in segments:
        stretch = f"{clock(segment.from_s)} to {clock(segment.to_s)}"
        peak = f"most suspicious at {clock(segment.peak_s)} ({segment.peak_score:.2f})"
        terminal.print(f"{printable(segment.source)}: {stretch} spliced, {peak}", markup=False, highlight=False)


def show_end(
    summary: Summary, passed_over: Counter[str], scanned: int, out: Path, seconds: float, terminal: Console
) -> None:
    """What was passed over, and in a line how many of each verdict there are, how fast that was and where it lies."""
    if passed_over:
        terminal.print(f"passed over: {as_text(passed_over)}", markup=False, highlight=False, soft_wrap=True)
    counts = ", ".join(f"{count} {name}" for name, count in summary.counts.items() if count)
    before = f", {summary.pictures - scanned} of them before" if scanned < summary.pictures else ""
    speed = f" ({scanned / seconds:.1f} pictures/s)" if scanned else ""
    line = f"{counts}{before} in {seconds:.1f} s{speed}; results in {out}"
    terminal.print(line, markup=False, highlight=False, soft_wrap=True)


def show_unreadable(summary: Summary, out: Path, errors: Console) -> None:
    """What could not be read, and why, a line each."""
    for finding in summary.unreadable:
        assert finding.error is not None
        line = f"unreadable: {printable(finding.source or '')}: {finding.error.message}"
        errors.print(line, markup=False, highlight=False, soft_wrap=True)
    if summary.counts["unreadable"] > len(summary.unreadable):
        rest = summary.counts["unreadable"] - len(summary.unreadable)
        line = f"... and {rest} more, named in {out / 'findings.jsonl'}"
        errors.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading, justify in (("score", "right"), ("verdict", "left"), ("regions", "right"), ("area", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("picture", overflow="fold")
    for finding in findings:
        verdict = finding.verdict or ""
        area = sum(region.area_fraction for region in finding.regions)
        at = "" if finding.time_s is None else f" at {clock(finding.time_s)}"
        table.add_row(
            f"{finding.score:.2f}",
            f"[{VERDICT_STYLES[verdict]}]{verdict}[/]",
            str(len(finding.regions)),
            f"{area:.1%}",
            escape(printable(finding.source or "") + at),
        )
    return table

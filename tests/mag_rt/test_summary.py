"""What a scan says in the end: the most suspicious first, everything counted, and names that are just names."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from mag_rt.findings import Failure, Finding, Region
from mag_rt.summary import show, show_unreadable, summed_up
from mag_rt.video import segments


def finding(source: str, score: float, *areas: float, time_s: float | None = None) -> Finding:
    verdict = "spliced" if score >= 0.7 else "authentic" if score <= 0.3 else "inconclusive"
    regions = [Region((0, 0, 9, 9), area, 0.9, [(0, 0)]) for area in areas]
    return Finding(source, time_s=time_s, score=score, verdict=verdict, regions=regions)


def failed(source: str) -> Finding:
    return Finding(source, error=Failure("empty", "the file is empty"))


def said(findings: list[Finding]) -> tuple[list[str], list[str]]:
    """The lines for standard output and standard error."""
    out, errors = (Console(file=io.StringIO(), width=200, emoji=False) for _ in range(2))
    summary = summed_up(findings)
    show(summary, segments(findings), out)
    show_unreadable(summary, Path("out"), errors)
    return out.file.getvalue().splitlines(), errors.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_row_says_score_verdict_regions_and_their_area() -> None:
    rows, errors = said([finding("calm.jpg", 0.104), finding("a.jpg", 0.956, 0.1, 0.0251), finding("b.jpg", 0.5, 0.3)])
    assert [row.split() for row in rows] == [
        ["score", "verdict", "regions", "area", "picture"],
        ["0.96", "spliced", "2", "12.5%", "a.jpg"],
        ["0.50", "inconclusive", "1", "30.0%", "b.jpg"],
        ["0.10", "authentic", "0", "0.0%", "calm.jpg"],
    ]
    assert not errors


@pytest.mark.parametrize(("count", "more"), [(20, None), (21, "... and 1 less suspicious"), (50, "... and 30 less")])
def test_the_twenty_most_suspicious_are_named_and_the_others_counted(count: int, more: str | None) -> None:
    rows, _ = said([failed("x.jpg"), *(finding(f"{n}.jpg", n / 100) for n in range(count)), failed("y.jpg")])
    assert [row.split()[-1] for row in rows[1:21]] == [f"{n}.jpg" for n in range(count - 1, count - 21, -1)]
    assert len(rows) == 21 if more is None else rows[21].startswith(more)


@pytest.mark.parametrize(("count", "more"), [(20, None), (21, "... and 1 more, named in out/findings.jsonl")])
def test_the_first_twenty_that_cannot_be_read_are_named_and_the_others_counted(count: int, more: str | None) -> None:
    rows, errors = said([failed(f"{n}.jpg") for n in range(count)])
    assert not rows
    assert errors[:20] == [f"unreadable: {n}.jpg: the file is empty" for n in range(20)]
    assert errors[20:] == ([] if more is None else [more])


def test_everything_is_counted() -> None:
    summary = summed_up([finding("a", 0.9), failed("b"), finding("c", 0.1), finding("d", 0.95), finding("e", 0.5)])
    assert list(summary.counts.items()) == [("spliced", 2), ("inconclusive", 1), ("authentic", 1), ("unreadable", 1)]
    assert summary.pictures == 5


def test_a_frame_is_named_with_its_time_and_a_stretch_with_its_peak() -> None:
    rows, _ = said([finding("a.mp4", score, time_s=60.0 + n) for n, score in enumerate((0.1, 0.8, 0.9, 0.75, 0.2))])
    assert rows[1].endswith("a.mp4 at 1:02.0")
    assert rows[-1] == "a.mp4: 1:01.0 to 1:03.0 spliced, most suspicious at 1:02.0 (0.90)"


def test_a_long_video_leaves_room_for_pictures() -> None:
    film = [finding("film.mp4", 0.9 + n / 1000, time_s=float(n)) for n in range(50)]
    rows, _ = said([finding("a.jpg", 0.95), *film, *(finding(f"{n}.jpg", n / 100) for n in range(20))])
    assert [row.split()[4] for row in rows[1:4]] == ["a.jpg", "film.mp4", "19.jpg"]
    assert "film.mp4 at 0:49.0" in rows[2]
    assert rows[21] == "... and 2 less suspicious"


def test_a_name_is_just_a_name() -> None:
    names = ["[bold]x[/].jpg", "two\nlines.jpg", "\x1b[31mred.mp4"]
    rows, errors = said([*(finding(name, 0.9, time_s=1.0) for name in names), *map(failed, names)])
    for name in ("[bold]x[/].jpg", r"two\nlines.jpg", r"\x1b[31mred.mp4"):
        assert any(row.rstrip().endswith(f" {name} at 0:01.0") for row in rows)
        assert any(row.startswith(f"{name}: 0:01.0 to ") for row in rows)
        assert f"unreadable: {name}: the file is empty" in errors

"""findings.csv says in columns what findings.jsonl says, and is safe to open."""

import csv
from pathlib import Path

import pytest

from mag_rt.findings import Failure, Finding, Region, SeenObject
from mag_rt.sinks.jsonl import JsonlSink
from mag_rt.sinks.table import COLUMNS, NAME, write_table


def table(folder: Path, *findings: Finding) -> list[dict[str, str]]:
    sink = JsonlSink(folder)
    for finding in findings:
        sink.write(finding, None, None)
    sink.close()
    write_table(folder)
    assert (folder / NAME).read_bytes().startswith(b"\xef\xbb\xbf")  # by which a spreadsheet knows UTF-8
    with (folder / NAME).open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_every_column_has_what_it_is_called(tmp_path: Path) -> None:
    regions = [Region((0, 0, 9, 9), area, 0.9, [(0, 0)]) for area in (0.125, 0.00123)]
    objects = [SeenObject("dog", 0.2), SeenObject("cat", 0.1)]
    frame = Finding(str(tmp_path / "a.mp4"), 25, 1.04, 640, 480, "ab" * 32, 0.75, "spliced", regions, objects)
    failed = Finding(str(tmp_path / "b.jpg"), sha256="cd" * 32, error=Failure("empty", "the file is empty"))
    row, error = table(tmp_path, frame, failed)
    assert tuple(row) == COLUMNS
    assert list(row.values()) == [
        "a.mp4", "25", "1.04", "640", "480", "0.75", "spliced", "2", "0.12623", "dog cat", "", "ab" * 32,
    ]  # fmt: skip
    assert {name: value for name, value in error.items() if value} == {
        "source": "b.jpg", "error": "the file is empty", "sha256": "cd" * 32,
    }  # fmt: skip


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_a_name_that_a_spreadsheet_would_execute_is_text(tmp_path: Path, sign: str) -> None:
    (row,) = table(tmp_path, Finding(str(tmp_path / f"{sign}1+1.jpg"), score=0.5, objects=[SeenObject(f"{sign}1", 1)]))
    assert row["source"] == f"'{sign}1+1.jpg" and row["objects"] == f"'{sign}1"


def test_a_name_of_any_kind_keeps_the_rows_apart(tmp_path: Path) -> None:
    names = ['two\nlines, "quoted".jpg', "späße.jpg", "caf\udce9.jpg"]
    rows = table(tmp_path, *(Finding(str(tmp_path / name), score=0.5) for name in names))
    assert [row["source"] for row in rows] == [*names[:2], "caf?.jpg"]

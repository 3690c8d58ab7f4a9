"""A line of findings.jsonl is there as a whole, and its paths lead to the source."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mag_rt.findings import Finding
from mag_rt.sinks.jsonl import NAME, JsonlSink, findings_in, seen_from


class NearlyFull:
    """A file on a disk that takes a few bytes at a time."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: memoryview) -> int:
        return self.file.write(data[:7])


def test_what_is_written_in_parts_is_a_whole_line(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path)
    sink._file = NearlyFull(sink._file)  # type: ignore[assignment]
    line = sink.write(Finding(str(tmp_path / "späße.jpg"), score=0.5), None, None)
    assert (tmp_path / NAME).read_text(encoding="ascii") == f"{line}\n"
    assert json.loads(line)["source"] == "späße.jpg"
    (found,) = findings_in(tmp_path)
    assert found == Finding(str(tmp_path / "späße.jpg"), score=0.5)


def test_a_source_to_which_no_way_leads_from_the_folder_is_named_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_drive(path: str, start: Path) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    assert seen_from(Path("out"), "photo.jpg") == os.path.abspath("photo.jpg")

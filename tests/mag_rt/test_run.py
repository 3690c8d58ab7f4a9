"""Whether a scan may go on in a folder, and with what: nothing that its lines depend on may have changed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mag_rt.errors import ResultsError
from mag_rt.findings import Finding
from mag_rt.sinks.jsonl import JsonlSink
from mag_rt.sinks.run import begin, left
from mag_rt.sources import Frame

RUN: dict[str, Any] = {
    "model": {
        "annotator": "edge",
        "sha256": "ab" * 32,
        "mask_threshold": 0.5,
        "calibration": {"slope": 1.0, "intercept": -2.0, "authentic": 0.2, "spliced": 0.8},
    },
    "backend": {"name": "openvino", "precision": "int8", "reason": "it is installed"},
    "options": {
        "sources": ["inbox"],
        "save": "all",
        "report": True,
        "csv": True,
        "fail_on": None,
        "max_side": 1024,
        "tiles": False,
        "isolate": False,
        "threshold": None,
        "every": None,
        "fps": 1.0,
    },
}
RESULTS = ("report.html", "findings.csv")


def changed(part: str, name: str, value: Any) -> dict[str, Any]:
    run = copy.deepcopy(RUN)
    run[part][name] = value
    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of a scan that has come to its end."""
    begin(tmp_path, RUN, resume=False, overwrite=False)
    for name in ("findings.jsonl", *RESULTS):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value"), [("sources", ["inbox", "more"]), ("fail_on", "spliced"), ("csv", False), ("isolate", True)]
)
def test_what_no_line_depends_on_may_change(out: Path, name: str, value: Any) -> None:
    begin(out, changed("options", name, value), resume=True, overwrite=False)
    assert json.loads((out / "run.json").read_text())["options"][name] == value


@pytest.mark.parametrize(
    ("part", "name", "value", "what"),
    [
        ("model", "sha256", "cd" * 32, "model"),
        ("model", "mask_threshold", 0.4, "threshold of masks"),
        ("model", "calibration", RUN["model"]["calibration"] | {"spliced": 0.9}, "calibration"),
        ("backend", "name", "onnxruntime", "backend"),
        ("backend", "precision", "float32", "precision"),
        ("options", "save", "none", "--save"),
        ("options", "report", False, "--report"),
        ("options", "max_side", 512, "--max-side"),
        ("options", "tiles", True, "--tiles"),
        ("options", "threshold", 0.5, "--threshold"),
        ("options", "every", 5, "--every"),
        ("options", "fps", 2.0, "--fps"),
    ],
)
def test_what_a_line_depends_on_may_not(out: Path, part: str, name: str, value: Any, what: str) -> None:
    before = (out / "run.json").read_bytes()
    with pytest.raises(ResultsError, match=f"was scanned with another {what} "):
        begin(out, changed(part, name, value), resume=True, overwrite=False)
    assert (out / "run.json").read_bytes() == before and all((out / each).exists() for each in RESULTS)
    begin(out, changed(part, name, value), resume=False, overwrite=True)
    assert not any((out / each).exists() for each in ("findings.jsonl", *RESULTS))


def test_what_the_scan_will_make_anew_stays_until_then(out: Path) -> None:
    begin(out, RUN, resume=True, overwrite=False)
    assert all((out / each).exists() for each in RESULTS)
    begin(out, changed("options", "csv", False), resume=True, overwrite=False)
    assert [(out / each).exists() for each in RESULTS] == [True, False]


@pytest.mark.parametrize("name", ["run.json", *RESULTS])
def test_a_file_that_no_scan_has_written_is_in_the_way_and_never_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"mine": true}')
    with pytest.raises(ResultsError, match=f"{name} is of no scan: .* --overwrite replaces it"):
        begin(tmp_path, RUN, resume=True, overwrite=False)
    begin(tmp_path, RUN, resume=False, overwrite=True)
    assert name == "run.json" or (tmp_path / name).exists()  # until the end of the scan replaces it


def test_a_file_whose_name_the_scan_does_not_need_stays(tmp_path: Path) -> None:
    (tmp_path / "findings.csv").write_text("mine")
    for overwrite in (False, True):
        begin(tmp_path, changed("options", "csv", False), resume=True, overwrite=overwrite)
        (tmp_path / "findings.jsonl").touch()
        assert (tmp_path / "findings.csv").read_text() == "mine"
    with pytest.raises(ResultsError, match=r"findings\.csv is of no scan"):
        begin(tmp_path, RUN, resume=True, overwrite=False)


def test_results_without_their_run_json_are_overwritten_whole(out: Path) -> None:
    (out / "run.json").write_text("{")
    begin(out, changed("options", "report", False), resume=False, overwrite=True)
    assert not any((out / each).exists() for each in ("findings.jsonl", *RESULTS))


def lines(out: Path, *found: Finding) -> None:
    sink = JsonlSink(out)
    for each in found:
        sink.write(each, None, None)
    sink.close()


def test_what_has_no_line_is_left_and_the_rest_of_a_video_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = [Frame(name) for name in ("a.jpg", "b.mp4", "c.mp4", "d.jpg")]
    assert list(left(Path(), frames)) == frames
    lines(Path(), Finding("a.jpg"), Finding("b.mp4", 0, 0.0), Finding("b.mp4", 30, 1.0), Finding("c.mp4", 0, 0.0))
    assert list(left(Path(), frames)) == [Frame("c.mp4", after=0), Frame("d.jpg")]
    assert list(left(tmp_path, [Frame("new.jpg"), *frames])) == [
        Frame("c.mp4", after=0), Frame("new.jpg"), Frame("d.jpg")
    ]  # fmt: skip
    lines(Path(), Finding("c.mp4"))  # it could not be read to its end
    assert list(left(Path(), frames)) == [Frame("d.jpg")]

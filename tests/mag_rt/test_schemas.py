"""What a scan writes is what docs/*.schema.json promise to whoever reads it, and nothing else passes them."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError

from mag_rt import bundle
from mag_rt.bundle import Bundle
from tests.conftest import grey_with_red_box, save
from tests.mag_rt.running import lines, magrt

DOCS = Path(__file__).parents[2] / "docs"


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((DOCS / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


FINDINGS, RUN = validator("findings.schema.json"), validator("run.schema.json")


def film(path: Path) -> bytes:
    """A second of video, spliced in its middle."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    assert writer.isOpened()
    for index in range(10):
        writer.write(grey_with_red_box(64, 96, (20, 10, 40, 30) if 3 <= index < 7 else (0, 0, 0, 0)))
    writer.release()
    return path.read_bytes()


@pytest.fixture(scope="module")
def scanned(
    tmp_path_factory: pytest.TempPathFactory, red_bundle: Bundle
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines of findings.jsonl and run.json of a scan of all kinds of files."""
    folder = tmp_path_factory.mktemp("schemas")
    bundle.save(red_bundle, folder / "red")
    inbox = folder / "inbox"
    whole = save(inbox / "pasted.jpg", grey_with_red_box(90, 130, (20, 10, 40, 30))).read_bytes()
    save(inbox / "authentic.png", grey_with_red_box(60, 80))
    save(inbox / "one.png", np.full((1, 1, 3), (0, 0, 255), np.uint8))
    (inbox / "cut-off.jpg").write_bytes(whole[: len(whole) // 2])
    (inbox / "empty.png").touch()
    (inbox / "text.jpg").write_text("hello")
    (inbox / "phone.heic").touch()
    (inbox / "dangling.png").symlink_to("nowhere.png")
    film(inbox / "film.avi")
    (inbox / "no-film.mp4").write_text("hello")
    done = magrt("scan", inbox, "--out", folder / "out", "--model", folder / "red", "--every", 1)
    assert done.returncode == 3, done.stderr
    return lines(folder / "out"), json.loads((folder / "out" / "run.json").read_text())


def test_every_line_of_a_scan_is_as_promised(scanned) -> None:
    lines, _ = scanned
    for line in lines:
        FINDINGS.validate(line)
    assert {line["error"] and line["error"]["type"] for line in lines} == {
        None, "truncated", "empty", "not-a-picture", "unreadable", "not-a-video",
    }  # fmt: skip
    assert sum(line["frame"] is not None for line in lines) == 10


def test_the_facts_of_a_run_are_as_promised(scanned) -> None:
    lines, run = scanned
    RUN.validate(run)
    assert len(run["segments"]) == 1
    timings = run["timings"]
    assert timings["pictures"] == len(lines) and timings["scanning_seconds"] < timings["seconds"]
    assert timings["pictures_per_second"] == pytest.approx(len(lines) / timings["scanning_seconds"], rel=0.1)


def refuses(schema: Draft202012Validator, change: Callable[[Any], None], document: Any) -> None:
    """The schema takes the document, and no longer when it was changed."""
    changed = copy.deepcopy(document)
    schema.validate(changed)
    change(changed)
    with pytest.raises(ValidationError):
        schema.validate(changed)


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    change.__name__ = f"{'.'.join(map(str, path))}={value!r}"
    return change


@pytest.mark.parametrize(
    "change",
    [
        put("schema", value=2),
        put("extra", value=1),
        put("source", value=None),
        put("frame", value=0),  # without its time
        put("time_s", value=1.5),  # without its number
        put("width", value=0),
        put("width", value=None),
        put("height", value=2.5),
        put("sha256", value="abc"),
        put("score", value=1.01),
        put("score", value=None),
        put("verdict", value="fake"),
        put("verdict", value=None),
        put("regions", value=None),
        put("objects", value=None),
        put("objects", value=[{"class": "dog"}]),
        put("objects", value=[{"class": "dog", "area_fraction": 2}]),
        put("regions", 0, "bbox", value=[-1, 0, 5, 5]),
        put("regions", 0, "bbox", value=[0, 0, 0, 5]),
        put("regions", 0, "bbox", value=[0, 0, 5]),
        put("regions", 0, "bbox", value=[0, 0, 5, 5, 5]),
        put("regions", 0, "polygon", value=[]),
        put("regions", 0, "polygon", value=[[1, 2, 3]]),
        put("regions", 0, "polygon", value=[[1, 2.5]]),
        put("regions", 0, "score", value=None),
        put("regions", 0, "area_fraction", value=-0.1),
        put("mask", value="../masks/a.png"),
        put("overlay", value="overlays/a/b.jpg"),
        put("error", value={"type": "truncated", "message": "with results"}),
        lambda line: line.pop("error"),
        lambda line: line.pop("frame"),
        lambda line: line.update(regions=line["regions"] * 21),
    ],
    ids=lambda change: change.__name__,
)
def test_a_broken_line_is_refused(change, scanned) -> None:
    refuses(FINDINGS, change, next(line for line in scanned[0] if line["regions"] and line["frame"] is None))


@pytest.mark.parametrize(
    "change",
    [
        put("score", value=0.5),
        put("verdict", value="authentic"),
        put("regions", value=[]),
        put("objects", value=[]),
        put("width", value=5),
        put("mask", value="masks/a.png"),
        put("error", value=None),
        put("error", value={"type": "truncated"}),
        put("error", value={"type": "bad luck", "message": "who knows"}),
        put("error", "message", value=""),
    ],
    ids=lambda change: change.__name__,
)
def test_an_error_line_with_results_or_no_reason_is_refused(change, scanned) -> None:
    refuses(FINDINGS, change, next(line for line in scanned[0] if line["error"]))


@pytest.mark.parametrize(
    "change",
    [
        put("schema", value=2),
        put("extra", value=1),
        put("model", "sha256", value="abc"),
        put("model", "calibration", value={}),
        put("versions", value={"magrt": "1", "python": "3"}),
        put("backend", "name", value="abacus"),
        put("options", "fps", value=1),  # besides every
        put("options", "every", value=None),  # and no fps
        put("options", "colour", value="red"),
        put("options", "save", value="everything"),
        put("options", "threshold", value=2),
        put("passed_over", "heic", value=0),
        put("passed_over", ".heic", value=1),
        lambda run: run.pop("passed_over"),
        put("counts", "spliced", value=-1),
        put("counts", "spliced", value=None),
        put("counts", value=None),
        put("finished", value=False),  # and counts of all
        put("segments", value=None),
        put("segments", 0, "peak_score", value=1.5),
        put("timings", "started", value="2026-01-01T00:00:00"),
        put("timings", "seconds", value=None),
        lambda run: run["timings"].pop("seconds"),
        lambda run: run.pop("options"),
    ],
    ids=lambda change: change.__name__,
)
def test_broken_facts_are_refused(change, scanned) -> None:
    refuses(RUN, change, scanned[1])


def test_facts_of_a_scan_that_goes_on_have_nothing_of_its_end(scanned) -> None:
    run = copy.deepcopy(scanned[1])
    run.update(finished=False, counts=None, segments=None, timings={"started": run["timings"]["started"]})
    RUN.validate(run)
    for broken in ({"counts": scanned[1]["counts"]}, {"segments": []}, {"timings": scanned[1]["timings"]}):
        with pytest.raises(ValidationError):
            RUN.validate({**run, **broken})


def test_the_options_that_are_to_come_are_foreseen(scanned) -> None:
    run = copy.deepcopy(scanned[1])
    run["options"].update(save="masks", threshold=0.6, isolate=False, report=True, csv=False)
    RUN.validate(run)

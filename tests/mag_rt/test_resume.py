"""Nothing is lost and nothing is done twice: scans that are killed, run out of disk, or meet another scan."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from mag_rt import scan_command
from mag_rt.cli import app
from mag_rt.errors import ResultsError
from mag_rt.sinks import report
from mag_rt.sinks.alone import alone
from tests.conftest import grey_with_red_box, save
from tests.mag_rt.running import command, lines, magrt


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    for index in range(60):
        save(folder / f"{index:03d}.png", grey_with_red_box(64 + index, 96, (10, 5, index, 20)))
    (folder / "030.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Ten seconds at two frames a second; the later ones are spliced."""
    path = tmp_path / "inbox" / "film.mp4"
    path.parent.mkdir()
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 2, (96, 64))
    for index in range(20):
        video.write(grey_with_red_box(64, 96, (10, 10, 40, 40) if index > 8 else (0, 0, 0, 0)))
    video.release()
    save(path.with_name("z.png"), grey_with_red_box(40, 40))
    return path


def killed_after(count: int, arguments: list[object], out: Path) -> None:
    """Start the scan, and end it with SIGKILL as soon as so many lines are there."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    findings = out / "findings.jsonl"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if findings.exists() and findings.read_bytes().count(b"\n") >= count:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def without_timings(out: Path) -> dict[str, object]:
    return {name: each for name, each in json.loads((out / "run.json").read_text()).items() if name != "timings"}


def test_killed_at_random_and_resumed_a_scan_is_as_if_undisturbed(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    assert magrt("scan", inbox, "--out", undisturbed, "--model", red_model).returncode == 3
    arguments = ["scan", inbox, "--out", out, "--model", red_model, "--resume"]
    chance = random.Random(0)
    for _ in range(3):
        there = (out / "findings.jsonl").read_bytes().count(b"\n") if (out / "findings.jsonl").exists() else 0
        killed_after(there + chance.randint(1, 15), arguments, out)
        assert not json.loads((out / "run.json").read_text())["finished"]
    done = magrt(*arguments)
    assert done.returncode == 3 and "of them before" in done.stdout
    assert (out / "findings.jsonl").read_bytes() == (undisturbed / "findings.jsonl").read_bytes()
    for line in lines(out):
        for kind in ("mask", "overlay"):
            assert not line[kind] or (out / line[kind]).read_bytes() == (undisturbed / line[kind]).read_bytes()
    assert without_timings(out) == without_timings(undisturbed)
    assert not list(out.rglob("*.partial"))


def test_half_a_line_is_written_anew(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["scan", inbox, "--out", out, "--model", red_model, "--resume"]
    magrt(*arguments)
    whole = (out / "findings.jsonl").read_bytes()
    for cut in (len(whole) - 1, len(whole) - 200, 30, 0):
        (out / "findings.jsonl").write_bytes(whole[:cut])
        assert magrt(*arguments).returncode == 3
        assert (out / "findings.jsonl").read_bytes() == whole


def test_a_video_goes_on_behind_its_last_frame(film: Path, red_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["scan", film.parent, "--out", out, "--model", red_model, "--fps", "1", "--resume"]
    assert magrt(*arguments).returncode == 0
    whole = (out / "findings.jsonl").read_bytes().splitlines(keepends=True)
    segments = json.loads((out / "run.json").read_text())["segments"]
    assert len(whole) == 11 and len(segments) == 1
    for kept in (1, 6, 10):
        (out / "findings.jsonl").write_bytes(b"".join(whole[:kept]))
        assert magrt(*arguments).returncode == 0
        assert (out / "findings.jsonl").read_bytes() == b"".join(whole)
        assert json.loads((out / "run.json").read_text())["segments"] == segments  # over all parts of the scan


def test_a_video_is_finished_before_what_is_new(film: Path, red_model: Path, tmp_path: Path) -> None:
    """Or its rest would be lost by an interruption behind the first of what is new."""
    out = tmp_path / "out"
    arguments = ["scan", film.parent, "--out", out, "--model", red_model, "--fps", "1", "--resume"]
    magrt(*arguments)
    first = (out / "findings.jsonl").read_bytes().splitlines(keepends=True)[:3]
    (out / "findings.jsonl").write_bytes(b"".join(first))
    save(film.with_name("a-new.png"), grey_with_red_box(40, 40))
    assert magrt(*arguments).returncode == 0
    names = [Path(line["source"]).name for line in lines(out)]
    assert names == ["film.mp4"] * 10 + ["a-new.png", "z.png"]


def test_what_is_new_is_added(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    arguments = ["scan", inbox, "--out", tmp_path / "out", "--model", red_model, "--resume"]
    magrt(*arguments)
    before = (tmp_path / "out" / "findings.jsonl").read_bytes()
    save(inbox / "000-new.png", grey_with_red_box(40, 40))
    said = magrt(*arguments).stdout
    assert json.loads((tmp_path / "out" / "run.json").read_text())["timings"]["pictures"] == 1
    seconds, speed = map(float, re.search(r"61 of them before in (\S+) s \((\S+) pictures/s\)", said).groups())  # type: ignore[union-attr]
    assert seconds * speed < 2  # of this time's one picture
    after = (tmp_path / "out" / "findings.jsonl").read_bytes()
    assert after.startswith(before) and after[len(before) :].count(b"\n") == 1 and b"000-new" in after[len(before) :]


def test_the_report_of_before_stays_until_there_is_another(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["scan", inbox, "--out", out, "--model", red_model, "--resume", "--csv"]
    magrt(*arguments)
    before = {name: (out / name).read_bytes() for name in ("report.html", "findings.csv")}
    for index in range(100):
        save(inbox / f"new-{index}.png", grey_with_red_box(300, 300))
    killed_after(61 + 2, arguments, out)
    assert {name: (out / name).read_bytes() for name in before} == before
    magrt(*arguments)
    assert all((out / name).read_bytes() != each for name, each in before.items())
    magrt(*arguments[:-1])
    assert not (out / "findings.csv").exists()  # nobody asked for one of now


def test_results_are_not_overwritten_by_mistake(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    arguments = ["scan", inbox, "--out", tmp_path / "out", "--model", red_model]
    assert magrt(*arguments).returncode == 3
    before = (tmp_path / "out" / "findings.jsonl").stat().st_mtime_ns
    refused = magrt(*arguments)
    assert refused.returncode == 2 and "--resume" in refused.stderr and "--overwrite" in refused.stderr
    assert (tmp_path / "out" / "findings.jsonl").stat().st_mtime_ns == before
    assert magrt(*arguments, "--overwrite").returncode == 3
    assert magrt(*arguments, "--overwrite", "--resume").returncode == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--max-side", "64"], "another --max-side (256, now 64)"),
        (["--tiles"], "another --tiles"),
        (["--threshold", "0.9"], "another --threshold (None, now 0.9)"),
        (["--save", "none"], "another --save (all, now none)"),
        (["--precision", "float32", "--backend", "onnxruntime"], None),
    ],
)
def test_a_scan_does_not_go_on_with_other_options(
    changed: list[str], said: str | None, inbox: Path, red_model: Path, tmp_path: Path
) -> None:
    arguments = ["scan", inbox / "000.png", "--out", tmp_path / "out", "--model", red_model, "--backend", "onnxruntime"]
    assert magrt(*arguments).returncode == 0
    before = (tmp_path / "out" / "run.json").read_bytes()
    done = magrt(*arguments, "--resume", *changed)
    if said is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2 and said in done.stderr
        assert (tmp_path / "out" / "run.json").read_bytes() == before


def test_a_scan_does_not_go_on_with_another_model(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    arguments = ["scan", inbox / "000.png", "--out", tmp_path / "out"]
    assert magrt(*arguments, "--model", red_model, "--backend", "onnxruntime").returncode == 0
    done = magrt(*arguments, "--resume", "--backend", "onnxruntime")
    assert done.returncode == 2
    assert re.search(r"another model \(edge [0-9a-f]{12}, now edge [0-9a-f]{12}\)", done.stderr)


def test_a_folder_that_does_not_say_what_it_holds_is_not_added_to(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["scan", inbox / "000.png", "--out", out, "--model", red_model]
    magrt(*arguments)
    (out / "run.json").unlink()
    assert magrt(*arguments, "--resume").returncode == 2
    magrt(*arguments, "--overwrite")
    (out / "findings.jsonl").write_bytes(b"{}\n")
    done = magrt(*arguments, "--resume")
    assert done.returncode == 2 and "line 1" in done.stderr and "Traceback" not in done.stderr


def test_one_scan_at_a_time_writes_to_a_folder(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    with alone(tmp_path / "out", "scan"):
        done = magrt("scan", inbox, "--out", tmp_path / "out", "--model", red_model, "--resume")
    assert done.returncode == 2 and "another scan" in done.stderr


def test_others_are_kept_out_until_the_report_is_written(
    inbox: Path, red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = []

    def look(out: Path) -> None:
        with pytest.raises(ResultsError, match="another scan"), alone(out, "scan"):
            pass
        met.append(out)

    monkeypatch.setattr(report, "write_report", look)
    monkeypatch.setattr(scan_command.cv2, "setNumThreads", lambda _: None)
    CliRunner().invoke(app, ["scan", str(inbox), "--out", str(tmp_path / "out"), "--model", str(red_model)])
    assert met == [tmp_path / "out"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=5m", "none", folder], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_exits_4_and_when_there_is_space_the_scan_goes_on(
    inbox: Path, red_model: Path, tmp_path: Path, small_disk: Path
) -> None:
    undisturbed, out = tmp_path / "undisturbed", small_disk / "out"
    magrt("scan", inbox, "--out", undisturbed, "--model", red_model)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4_900_000))
    arguments = ["scan", inbox, "--out", out, "--model", red_model]
    full = magrt(*arguments)
    assert full.returncode == 4
    assert "No space left" in full.stderr and "Traceback" not in full.stderr
    ballast.unlink()
    assert magrt(*arguments, "--resume").returncode == 3
    found, expected = lines(out), lines(undisturbed)
    assert [Path(line.pop("source")).name for line in found] == [Path(line.pop("source")).name for line in expected]
    assert [line["sha256"] for line in found] == [line["sha256"] for line in expected]
    assert not list(out.rglob("*.partial"))

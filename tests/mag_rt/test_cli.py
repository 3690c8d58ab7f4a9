"""magrt scan as its user types it: what is written, what is printed, what the exit status says."""

import csv
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mag_rt import scan_command
from mag_rt.cli import app
from tests.conftest import grey_with_red_box, save
from tests.mag_rt.running import command, lines, magrt


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    save(folder / "clean.png", grey_with_red_box(60, 80))
    save(folder / "deep" / "pasted.png", grey_with_red_box(90, 50, (10, 20, 25, 30)))
    save(folder / "pasted.png", grey_with_red_box(64, 96, (30, 5, 20, 20)))
    return folder


def test_a_scan_writes_what_it_promises(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = magrt("scan", inbox, "--out", out, "--model", red_model)
    assert done.returncode == 0, done.stderr
    found = lines(out)
    assert [line["source"] for line in found] == [
        "../inbox/clean.png",
        "../inbox/pasted.png",
        "../inbox/deep/pasted.png",
    ]
    assert list(found[0]) == [
        "schema", "source", "frame", "time_s", "width", "height", "sha256", "score", "verdict", "regions", "objects",
        "mask", "overlay", "error",
    ]  # fmt: skip
    assert [line["verdict"] for line in found] == ["authentic", "spliced", "spliced"]
    assert found[1]["regions"][0]["bbox"] == [30, 5, 20, 20]
    assert found[2]["regions"][0]["bbox"] == [10, 20, 25, 30]
    for line in found:
        source, mask, overlay = (cv2.imread(str(out / line[key])) for key in ("source", "mask", "overlay"))
        assert source.shape == mask.shape == overlay.shape
        assert np.abs(mask[..., 0].astype(int) - source[..., 2]).max() <= 1  # spliced is what is red
    assert len({line["mask"] for line in found}) == 3  # two sources of the same name
    run = json.loads((out / "run.json").read_text())
    assert run["counts"] == {"pictures": 3, "spliced": 2, "inconclusive": 0, "authentic": 1, "unreadable": 0}
    assert set(run["versions"]) == {"magrt", "python", run["backend"]["name"]} and run["backend"]["reason"]
    assert len(run["model"]["sha256"]) == 64


def test_a_gpu_that_cannot_be_used_is_told_in_a_line_as_the_cpu_scans(
    inbox: Path, red_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda/__init__.py").write_text("raise ImportError('libcuda.so.1: no such file')")
    (tmp_path / "tensorrt.py").write_text("__version__ = '10.3.0'")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    scan = ("scan", inbox, "--out", tmp_path / "out", "--model", red_model, "--overwrite")
    done = magrt(*scan, env=environment)
    said = done.stderr.splitlines()[0]
    reason = json.loads((tmp_path / "out/run.json").read_text())["backend"]["reason"]
    assert done.returncode == 0 and said.startswith("magrt: scanning with ") and said.endswith(reason)
    assert "not tensorrt: pycuda finds no NVIDIA driver that it works with: libcuda.so.1" in reason
    assert magrt(*scan, "--quiet", env=environment).stderr == ""
    assert "scanning with" not in magrt(*scan, "--backend", "onnxruntime", env=environment).stderr
    refused = magrt(*scan, "--precision", "float16", env=environment)
    assert refused.returncode == 2
    assert "libcuda.so.1: no such file; " in refused.stderr and "no precision float16 on the CPU" in refused.stderr


def test_the_most_suspicious_picture_is_named_first(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    printed = magrt("scan", inbox, "--out", tmp_path / "out", "--model", red_model).stdout.splitlines()
    rows = [line for line in printed if ".png" in line]
    assert "spliced" in rows[0] and "spliced" in rows[1] and "authentic" in rows[2]
    assert "\x1b" not in "".join(printed)  # no colours off a terminal


def test_what_is_passed_over_is_said(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    for name in ("1.heic", "deep/2.HEIC", "0.cr2"):
        (inbox / name).touch()
    done = magrt("scan", inbox, "--out", tmp_path / "out", "--model", red_model)
    assert done.returncode == 0
    assert "passed over: 2 HEIC, 1 CR2, of kinds that are not read" in done.stdout.splitlines()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["passed_over"] == {"heic": 2, "cr2": 1}


def test_bad_files_get_an_error_line_and_cost_nothing_else(red_model: Path, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    scene = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), (0, 0), 2)
    save(inbox / "grey.jpg", cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY))
    save(inbox / "deep16.png", scene.astype(np.uint16) * 257)
    whole = save(inbox / "whole.jpg", scene).read_bytes()
    (inbox / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (inbox / "zero.png").touch()
    (inbox / "text.jpg").write_text("hello")
    (inbox / "cmyk.jpg").write_bytes((Path(__file__).parent / "cmyk.jpg").read_bytes())
    (inbox / "folder.jpg").mkdir()
    done = magrt("scan", inbox, "--out", out, "--model", red_model)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    found = {Path(line["source"]).name: line for line in lines(out)}
    readable = {"grey.jpg", "deep16.png", "whole.jpg", "cmyk.jpg"}
    failed = {"truncated.jpg": "truncated", "zero.png": "empty", "text.jpg": "not-a-picture"}
    assert set(found) == readable | set(failed)
    assert all(found[name]["error"] is None and found[name]["verdict"] for name in readable)
    for name, kind in failed.items():
        assert found[name]["error"]["type"] == kind and found[name]["error"]["message"]
        assert [found[name][key] for key in ("score", "verdict", "regions", "objects", "mask")] == [None] * 5
        assert f"{name}: " in done.stderr
    assert json.loads((out / "run.json").read_text())["counts"]["unreadable"] == 3


@pytest.mark.parametrize(
    "name", ["späße 写真.jpg", "new\nline.png", "[bold]x[/].png", "-dash.png", "a" * 240 + ".jpg", "𠀀" * 60 + ".jpg"]
)
def test_any_name_is_just_a_name(name: str, red_model: Path, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    save(inbox / name, grey_with_red_box(40, 40))
    done = magrt("scan", inbox, "--out", out, "--model", red_model)
    assert done.returncode == 0, done.stderr
    (line,) = lines(out)
    assert line["source"] == os.path.join("..", "inbox", name)
    assert (out / line["mask"]).is_file() and (out / line["overlay"]).is_file()


def test_a_name_that_is_no_unicode(red_model: Path, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"inbox", b"latin-\xe9.png")
    os.mkdir(os.path.dirname(path))
    Path(os.fsdecode(path)).write_bytes(cv2.imencode(".png", grey_with_red_box(40, 40))[1].tobytes())
    done = magrt("scan", tmp_path / "inbox", "--out", tmp_path / "out", "--model", red_model)
    assert done.returncode == 0, done.stderr
    assert os.fsencode(lines(tmp_path / "out")[0]["source"]).endswith(b"latin-\xe9.png")


def test_sources_stay_untouched_and_results_are_not_scanned_again(inbox: Path, red_model: Path) -> None:
    def state() -> dict[str, tuple[bytes, int]]:
        return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in inbox.rglob("*.png") if "out" not in p.parts}

    before = state()
    for again in ([], ["--overwrite"]):
        assert magrt("scan", inbox, "--out", inbox / "out", "--model", red_model, *again).returncode == 0
        assert len(lines(inbox / "out")) == 3
    assert state() == before


def test_paths_in_the_lines_lead_from_where_the_folder_lies(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "link"
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    out.symlink_to(tmp_path / "deep" / "deeper")
    for _ in range(2):
        assert magrt("scan", "inbox", "--out", out, "--model", red_model, "--resume", cwd=tmp_path).returncode == 0
        assert len(lines(out)) == 3
    assert all((out / line["source"]).is_file() for line in lines(out))


def test_the_exit_status_counts_though_nobody_reads_the_summary(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    words = command("scan", inbox, "--out", tmp_path / "out", "--model", red_model, "--fail-on", "spliced")
    done = subprocess.run(words, stdout=writes, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writes)
    assert (done.returncode, done.stderr) == (10, "")


def test_the_exit_status_counts_though_a_name_cannot_be_printed(red_model: Path, tmp_path: Path) -> None:
    photo = save(tmp_path / "写真.png", grey_with_red_box(60, 80, (10, 10, 40, 40)))
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    arguments = ("scan", photo, "--out", tmp_path / "out", "--model", red_model, "--fail-on", "spliced")
    done = magrt(*arguments, env=environment)
    assert (done.returncode, done.stderr) == (10, "")
    assert r"\u5199\u771f.png" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_summary_that_cannot_be_printed_is_one_line(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    words = command("scan", inbox, "--out", tmp_path / "out", "--model", red_model)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 4
    assert done.stderr.startswith("magrt: cannot print the summary: No space left") and done.stderr.count("\n") == 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["finished"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["doctor", "--json"], ["--version"]], ids=" ".join)
def test_whatever_cannot_be_printed_is_one_line(arguments: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, env=environment
        )
    assert (done.returncode, done.stderr) == (4, "magrt: standard output: No space left on device\n")


def test_fail_on_wins_over_unreadable(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "out", "--model", red_model, "--fail-on", "spliced", "--overwrite")
    assert magrt("scan", inbox / "clean.png", *arguments).returncode == 0
    assert magrt("scan", inbox, *arguments).returncode == 10
    (inbox / "bad.jpg").touch()
    assert magrt("scan", inbox, *arguments).returncode == 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.jpg"], "gone.jpg: no such file"),
        (["empty"], "nothing to scan"),
        (["inbox", "--model", "empty"], "bundle.json is missing"),
        (["inbox", "--max-side", "1"], "max-side"),
        (["inbox", "--fail-on", "nothing"], "fail-on"),
    ],
)
def test_usage_and_model_errors_exit_2_with_one_message(
    arguments: list[str], said: str, inbox: Path, red_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    model = [] if "--model" in arguments else ["--model", red_model]
    done = magrt("scan", *arguments, "--out", "out", *model, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_results_that_cannot_be_written_exit_4(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    done = magrt("scan", inbox, "--out", tmp_path / "out", "--model", red_model)
    assert done.returncode == 4
    assert "cannot write results" in done.stderr and "Traceback" not in done.stderr


def long_inbox(tmp_path: Path) -> Path:
    """A folder of 3,000 pictures: a scan of it lasts longer than it takes to disturb it."""
    picture = save(tmp_path / "inbox" / "0.png", grey_with_red_box(250, 250))
    for index in range(1, 3000):
        picture.with_name(f"{index}.png").hardlink_to(picture)
    return picture.parent


@pytest.fixture
def long_scan(red_model: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A scan of 3,000 pictures into `out` that has begun."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("scan", long_inbox(tmp_path), "--out", out, "--model", red_model),
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them, and whom they start, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not ((out / "findings.jsonl").exists() and lines(out)) and time.monotonic() < deadline:
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_it_gets_130_and_keeps_what_was_done(
    number: signal.Signals, long_scan: subprocess.Popen[str], tmp_path: Path
) -> None:
    long_scan.send_signal(number)
    _, said = long_scan.communicate(timeout=60)
    assert long_scan.returncode == 130
    assert "interrupted after" in said and "Traceback" not in said
    assert 0 < len(lines(tmp_path / "out")) < 3000


@pytest.mark.parametrize("milliseconds", [1, 5, 20, 50, 100])
def test_ctrl_c_once_more_changes_nothing(milliseconds: int, long_scan: subprocess.Popen[str]) -> None:
    for _ in range(3):
        long_scan.send_signal(signal.SIGINT)
        time.sleep(milliseconds / 1000)
    _, said = long_scan.communicate(timeout=60)
    assert long_scan.returncode == 130
    assert said.startswith("magrt: interrupted after") and said.count("\n") == 1


def test_version() -> None:
    assert magrt("--version").stdout.startswith("magrt 0.")


def test_the_help_says_what_an_option_that_is_left_out_means() -> None:
    said = magrt("scan", "--help").stdout
    assert said.count("[model's own]") == 2 and "[1]" in said  # brackets are not markup


def test_names_come_from_standard_input_and_one_that_is_gone_is_an_error_line(
    inbox: Path, red_model: Path, tmp_path: Path
) -> None:
    names = [inbox / "pasted.png", inbox / "gone.png", inbox / "deep"]
    arguments = ("scan", "-", "--model", red_model, "--out")
    listed = "{}\n{}\r\n{}".format(*names)  # on Windows lines end otherwise
    assert magrt(*arguments, tmp_path / "a", input=listed).returncode == 3
    found = lines(tmp_path / "a")
    assert [Path(line["source"]).name for line in found] == ["pasted.png", "gone.png", "pasted.png"]
    assert found[1]["error"]["type"] == "unreadable"
    newline = save(inbox / "zwei\nStücke.png", grey_with_red_box(40, 40))
    assert magrt(*arguments, tmp_path / "b", input=f"{newline}\0{names[0]}\0").returncode == 0
    assert Path(lines(tmp_path / "b")[0]["source"]).name == newline.name
    assert "nothing to scan" in magrt(*arguments, tmp_path / "c", input="").stderr
    assert magrt(*arguments, tmp_path / "d", input=f"{names[0]}\r\n{names[2]}\r\n").returncode == 0  # Windows' lines


def test_standard_input_that_is_closed_has_no_names(red_model: Path, tmp_path: Path) -> None:
    arguments = ("scan", "-", "--model", red_model, "--out", tmp_path / "out")
    done = magrt(*arguments, preexec_fn=lambda: os.close(0))
    assert done.returncode == 2
    assert done.stderr == "magrt: nothing to scan: no picture and no video in an empty list\n"


def test_threshold_moves_the_verdict_and_fail_on_follows(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    arguments = ("scan", inbox / "pasted.png", "--model", red_model, "--fail-on", "spliced", "--out")
    assert magrt(*arguments, tmp_path / "a", "--threshold", "0.5").returncode == 10
    score = lines(tmp_path / "a")[0]["score"]
    assert magrt(*arguments, tmp_path / "b", "--threshold", f"{score + 0.0001:.5f}").returncode == 0
    assert lines(tmp_path / "b")[0]["verdict"] == "inconclusive"
    assert magrt(*arguments, tmp_path / "c", "--threshold", "1.5").returncode == 2


@pytest.mark.parametrize(
    ("choice", "kept"), [("all", {"mask", "overlay"}), ("masks", {"mask"}), ("overlays", {"overlay"}), ("none", set())]
)
def test_save_chooses_the_pictures_that_are_written(
    choice: str, kept: set[str], inbox: Path, red_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert magrt("scan", inbox, "--out", out, "--model", red_model, "--no-report", "--save", choice).returncode == 0
    for line in lines(out):
        assert {name for name in ("mask", "overlay") if line[name]} == kept
        assert all((out / line[name]).is_file() for name in kept)
    assert {each.name for each in out.iterdir()} == {f"{name}s" for name in kept} | {"findings.jsonl", "run.json"}
    options = json.loads((out / "run.json").read_text())["options"]
    assert (options["save"], options["report"]) == (choice, False)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--every", "1"], "13/13"),
        (["--fps", "5"], "8/8"),
        (["--every", "1", "--isolate"], "13/?"),
        (["--quiet"], None),
        (["--json"], None),
    ],
    ids=str,
)
def test_progress_counts_pictures_and_frames_where_videos_may_be_opened(
    options: list[str], shown: str | None, inbox: Path, red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = cv2.VideoWriter(str(inbox / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for _ in range(10):
        video.write(grey_with_red_box(64, 96))
    video.release()
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(scan_command, "errors", screen)
    for name in ("silence_decoders", "cv2.setNumThreads"):
        monkeypatch.setattr(f"mag_rt.scan_command.{name}", lambda *_: None)
    if "--isolate" in options:
        monkeypatch.setattr(scan_command, "expected", None)  # it would open them
    arguments = ["scan", str(inbox), "--out", str(tmp_path / "out"), "--model", str(red_model), *options]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    assert (shown in said) if shown else not said


def test_json_prints_the_lines_and_quiet_errors_only(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    done = magrt("scan", inbox, "--out", tmp_path / "a", "--model", red_model, "--json")
    assert done.stdout == (tmp_path / "a" / "findings.jsonl").read_text()
    done = magrt("scan", inbox, "--out", tmp_path / "b", "--model", red_model, "--quiet")
    assert done.stdout == done.stderr == ""
    (inbox / "bad.png").touch()
    done = magrt("scan", inbox, "--out", tmp_path / "c", "--model", red_model, "--quiet")
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr == f"unreadable: {inbox / 'bad.png'}: the file is empty\n"


def test_lines_come_through_a_pipe_at_once_and_the_scan_ends_with_who_reads_them(
    red_model: Path, tmp_path: Path
) -> None:
    inbox, out = long_inbox(tmp_path), tmp_path / "out"
    words = command("scan", inbox, "--out", out, "--model", red_model, "--json")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    assert json.loads(process.stdout.readline())["verdict"] == "authentic" and process.poll() is None
    process.stdout.close()
    assert process.wait(60) == 4
    said = process.stderr.read()
    process.stderr.close()
    assert said.startswith("magrt: nobody reads the lines any more") and said.count("\n") == 1
    assert 0 < len(lines(out)) < 3000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_lines_that_cannot_be_printed_end_the_scan_with_one_line(inbox: Path, red_model: Path, tmp_path: Path) -> None:
    words = command("scan", inbox, "--out", tmp_path / "out", "--model", red_model, "--json")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, env=environment)
    assert done.returncode == 4
    assert done.stderr.startswith("magrt: cannot print the lines: No space left") and done.stderr.count("\n") == 1


def test_csv_is_a_table_that_a_spreadsheet_opens_and_does_not_execute(red_model: Path, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "inbox" / "out"
    save(inbox / "späße.png", grey_with_red_box(60, 80, (10, 10, 30, 30)))
    (inbox / "bad, worse.jpg").touch()
    out.mkdir()
    os.symlink(inbox / "späße.png", out / "=cmd()|A1.png")
    names = f"{out / '=cmd()|A1.png'}\n{inbox / 'bad, worse.jpg'}\n{inbox / 'späße.png'}\n"
    assert magrt("scan", "-", "--out", inbox / "results", "--model", red_model, "--csv", input=names).returncode == 3
    with (inbox / "results" / "findings.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["source"]).name for row in rows] == ["=cmd()|A1.png", "bad, worse.jpg", "späße.png"]
    assert rows[1]["error"] == "the file is empty" and rows[1]["score"] == rows[1]["regions"] == ""
    assert rows[2]["verdict"] == "spliced" and rows[2]["regions"] == "1" and float(rows[2]["area_fraction"]) > 0.1

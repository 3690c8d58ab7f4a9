"""Every hostile file gives a right picture or one plain error, alone and among others, and nothing else happens."""

import hashlib
import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mag_rt import Scanner
from mag_rt.errors import PictureError
from mag_rt.pictures import decode
from mag_rt.summary import SHOWN
from mag_rt.video import Sampling, is_video, shots
from tests.hostile.files import FILES, RIGHT, Hostile, Shown, encode, jpeg
from tests.mag_rt.running import command

TONES = {"R": (0, 0, 255), "G": (0, 255, 0), "B": (255, 0, 0), "W": (255,) * 3, "K": (0,) * 3, "g": (128,) * 3}
"""BGR."""


def names(case: Hostile) -> str:
    return ascii(case.name)[1:40]


def assert_shows(picture: np.ndarray, shown: Shown) -> None:
    assert picture.dtype == np.uint8 and picture.shape == (shown.height, shown.width, 3)
    quarters = [(y, x) for y in (1, 3) for x in (1, 3)]
    for tone, (y, x) in zip(shown.quarters, quarters, strict=True):
        if tone != ".":
            middle = picture[y * shown.height // 4, x * shown.width // 4]
            np.testing.assert_allclose(middle, TONES[tone], atol=12, err_msg=f"quarter {y}, {x} of {shown.quarters}")


@pytest.mark.parametrize("case", FILES, ids=names)
def test_alone(case: Hostile, tmp_path: Path) -> None:
    data = case.make()
    if is_video(case.name):
        (tmp_path / case.name).write_bytes(data)
        with pytest.raises(PictureError) as refused:
            list(shots(str(tmp_path / case.name), Sampling()))
        assert refused.value.kind == case.wanted
    elif isinstance(case.wanted, str):
        with pytest.raises(PictureError) as refused:
            decode(data)
        assert refused.value.kind == case.wanted
        assert "\n" not in str(refused.value)
    else:
        assert_shows(decode(data).picture, case.wanted)


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """A folder of them all, between two good ones."""
    folder = tmp_path / "in"
    folder.mkdir()
    for case in FILES:
        (folder / case.name).write_bytes(case.make())
    for name in ("0-first.png", "zz-last.png"):
        (folder / name).write_bytes(encode("PNG"))
    return folder


def test_in_one_folder(crowd: Path, red_model: Path) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in crowd.iterdir()}
    with Scanner(red_model) as scanner:
        findings = {Path(finding.source or "").name: finding for finding in scanner.scan([crowd])}
    wanted = {case.name: case.wanted for case in FILES} | {"0-first.png": RIGHT, "zz-last.png": RIGHT}
    for name, expected in wanted.items():
        finding = findings.pop(name)
        assert finding.sha256 == hashlib.sha256(before[name][0]).hexdigest(), name
        if isinstance(expected, str):
            assert finding.error is not None and finding.error.type == expected, name
        else:
            assert finding.error is None, (name, finding.error)
            assert (finding.width, finding.height) == expected[:2], name
            assert finding.mask is not None and finding.mask.shape == (expected.height, expected.width), name
    assert not findings
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in crowd.iterdir()} == before


def magrt(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), capture_output=True, timeout=120)


def test_from_the_command_line_nothing_is_on_stderr_but_a_line_for_each_error(
    crowd: Path, red_model: Path, tmp_path: Path
) -> None:
    done = magrt("scan", crowd, "--out", tmp_path / "out", "--model", red_model)
    assert done.returncode == 3
    lines = [json.loads(line) for line in (tmp_path / "out" / "findings.jsonl").read_text().splitlines()]
    assert len(lines) == len(FILES) + 2
    failed = [line for line in lines if line["error"]]
    said = done.stderr.decode().splitlines()
    assert len(said) == SHOWN + 1 and all(line.startswith("unreadable: ") for line in said[:-1])
    assert said[-1].startswith(f"... and {len(failed) - SHOWN} more")
    assert b"Traceback" not in done.stderr and b"\x1b" not in done.stdout + done.stderr


@pytest.fixture
def scanner(red_model: Path) -> Iterator[Scanner]:
    with Scanner(red_model) as scanner:
        yield scanner


def errors(scanner: Scanner, folder: Path) -> dict[str, str | None]:
    """Type of the error by name, None for none; the good neighbours are looked at here."""
    for name in ("0-first.png", "zz-last.png"):
        (folder / name).write_bytes(encode("PNG"))
    found = {Path(each.source or "").name: each.error and each.error.type for each in scanner.scan([folder])}
    assert found.pop("0-first.png") is None and found.pop("zz-last.png") is None
    return found


def test_links(scanner: Scanner, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.jpg").symlink_to(tmp_path / "photo.jpg")
    (folder / "dangling.jpg").symlink_to(tmp_path / "gone")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "dangling.mp4").symlink_to(tmp_path / "gone")
    (folder / "up").symlink_to(tmp_path)
    (folder / "folder.jpg").symlink_to(tmp_path)
    assert errors(scanner, folder) == {
        "link.jpg": None,
        "dangling.jpg": "unreadable",
        "dangling.mp4": "unreadable",
        "loop.jpg": "unreadable",
    }


def test_what_is_no_file(scanner: Scanner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "folder.jpg").mkdir(parents=True)
    (folder / "folder.jpg" / "inside.png").write_bytes(encode("PNG"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket.jpg"))  # its address has room for 100 characters only
    for name in ("pipe.jpg", "pipe.mp4"):
        os.mkfifo(folder / name)
    (folder / "endless.jpg").symlink_to("/dev/zero")
    (folder / "endless.mp4").symlink_to("/dev/zero")
    assert errors(scanner, folder) == {
        "inside.png": None,
        **dict.fromkeys(["socket.jpg", "pipe.jpg", "pipe.mp4", "endless.jpg", "endless.mp4"], "unreadable"),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(scanner: Scanner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "secret.jpg").write_bytes(jpeg())
    (folder / "secret.jpg").chmod(0)
    assert errors(scanner, folder) == {"secret.jpg": "unreadable"}
    assert stat.S_IMODE((folder / "secret.jpg").stat().st_mode) == 0

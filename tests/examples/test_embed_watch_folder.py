"""The folder watcher as a newsroom runs it: nothing missed, nothing twice, nothing touched."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import grey_with_red_box, save

SCRIPT = Path(__file__).parents[2] / "examples" / "embed_watch_folder.py"


class Watcher:
    """The script at work on tmp/inbox, its lines in tmp/lines.jsonl."""

    def __init__(self, folder: Path, model: Path, every: float) -> None:
        self.lines = folder / "lines.jsonl"
        command = [sys.executable, SCRIPT, folder / "inbox", self.lines, "--model", model, "--every", every]
        self.process = subprocess.Popen([str(each) for each in command], stderr=subprocess.PIPE, text=True)

    def findings(self) -> dict[str, dict[str, Any]]:
        text = self.lines.read_text() if self.lines.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        assert len({(line["source"], *line["state"]) for line in lines}) == len(lines), "a picture was repeated"
        return {line["source"]: line for line in lines}

    def until(self, reached: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
        deadline = time.monotonic() + 30
        while not reached(self.findings()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.findings()
            time.sleep(0.02)
        return self.findings()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def watch(tmp_path: Path, red_model: Path) -> Iterator[Callable[..., Watcher]]:
    (tmp_path / "inbox").mkdir()
    started: list[Watcher] = []

    def start(every: float = 0.1) -> Watcher:
        started.append(Watcher(tmp_path, red_model, every))
        return started[-1]

    yield start
    for watcher in started:
        watcher.process.kill()
        watcher.process.communicate()


def test_what_lies_there_and_what_arrives_is_scanned_and_left_alone(watch, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    first = save(inbox / "first.png", grey_with_red_box(60, 80, (10, 20, 30, 30)))
    before = first.stat().st_mtime_ns, first.read_bytes()
    watcher = watch()
    watcher.until(lambda found: len(found) == 1)
    save(inbox / "deep" / "second.jpg", grey_with_red_box(60, 80))
    (inbox / "notes.txt").write_text("no picture")
    found = watcher.until(lambda found: len(found) == 2)
    assert found["first.png"]["verdict"] == "spliced" and found["first.png"]["regions"][0]["bbox"] == [10, 20, 30, 30]
    assert found["deep/second.jpg"]["verdict"] == "authentic"
    assert "Traceback" not in watcher.stop()
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before


def test_bad_files_get_an_error_and_the_watch_goes_on(watch, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    whole = save(inbox / "good.jpg", grey_with_red_box(60, 80)).read_bytes()
    (inbox / "cut-off.jpg").write_bytes(whole[: len(whole) // 2])
    (inbox / "empty.png").touch()
    (inbox / "text.png").write_text("hello")
    (inbox / "dangling.png").symlink_to("nowhere")
    os.mkfifo(inbox / "pipe.jpg")
    watcher = watch()
    found = watcher.until(lambda found: len(found) == 5)
    errors = {name: line["error"] and line["error"]["type"] for name, line in found.items()}
    assert errors == {
        "good.jpg": None, "cut-off.jpg": "truncated", "empty.png": "empty", "text.png": "not-a-picture",
        "pipe.jpg": "unreadable",
    }  # fmt: skip
    save(inbox / "later.png", grey_with_red_box(60, 80))
    watcher.until(lambda found: "later.png" in found)


def test_a_file_is_not_read_while_it_is_being_copied(watch, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    data = save(tmp_path / "whole.png", grey_with_red_box(60, 80, (10, 20, 30, 30))).read_bytes()
    watcher = watch(every=0.5)
    with (inbox / "slow.png").open("wb", buffering=0) as file:
        for at in range(0, len(data), len(data) // 12):
            file.write(data[at : at + len(data) // 12])
            time.sleep(0.1)
    found = watcher.until(lambda found: bool(found))
    assert found["slow.png"]["error"] is None and found["slow.png"]["verdict"] == "spliced"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_restart_repeats_nothing_and_misses_nothing(how: signal.Signals, watch, tmp_path: Path) -> None:
    for index in range(40):
        save(tmp_path / "inbox" / f"{index:02d}.png", grey_with_red_box(250, 250))
    watcher = watch()
    watcher.until(lambda found: len(found) > 3)
    if how == signal.SIGKILL:
        watcher.process.kill()
        watcher.process.wait()
        with watcher.lines.open("a") as lines:
            lines.write('{"source": "torn')  # as a crash in the middle of a line leaves it
    else:
        watcher.stop(how)
        assert len(watcher.findings()) < 40  # it did not wait for all of them
    save(tmp_path / "inbox" / "03.png", grey_with_red_box(250, 250, (20, 20, 200, 200)))  # another picture by that name
    watcher = watch()
    found = watcher.until(lambda found: len(found) == 40 and found["03.png"]["verdict"] == "spliced")
    assert len(watcher.lines.read_text().splitlines()) <= 41  # one more for the file that has changed
    assert set(found) == {f"{index:02d}.png" for index in range(40)}

"""Kept engines are found again, whole or not at all, and do not fill the disk."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mag_rt.engine_cache import EngineCache, user_cache

FACTS: dict[str, Any] = {
    "annotator": "edge",
    "bundle": "00",
    "network": "11",
    "precision": "float16",
    "batch": [1, 1, 4],
    "sizes": [[32, 32], [64, 64], [96, 96]],
    "library": "tensorrt",
    "version": "10.3.0",
    "gpu": "Orin",
    "capability": "8.7",
}
OTHERS: dict[str, Any] = {
    "bundle": "01",
    "network": "12",
    "precision": "float32",
    "batch": [1, 1, 8],
    "sizes": [[32, 32], [64, 96], [96, 96]],
    "library": "tensorrt_rtx",
    "version": "10.3.1",
    "gpu": "RTX 4090",
    "capability": "8.9",
}


def sized(number: int) -> dict[str, Any]:
    return FACTS | {"batch": [number] * 3}


def test_an_engine_is_found_by_everything_that_it_depends_on(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.store(FACTS, b"engine", {"seconds": 1})
    found = cache.find(FACTS)
    assert found is not None and found.engine == b"engine" and found.notes["seconds"] == 1
    assert cache.find(dict(reversed(FACTS.items()))) == found
    for name, value in OTHERS.items():
        assert cache.find(FACTS | {name: value}) is None, name


def test_the_file_is_the_engine_alone_and_the_json_beside_it_says_what_it_is(tmp_path: Path) -> None:
    path = EngineCache(tmp_path).store(FACTS, b"engine", {"built": "today"})
    assert path.read_bytes() == b"engine"  # no header of ours: trtexec loads it
    notes = json.loads(path.with_suffix(".json").read_text())
    assert notes["facts"] == FACTS and notes["bytes"] == 6 and notes["built"] == "today"


@pytest.mark.parametrize("damage", ["engine", "cut json", "no json", "other json", "another's json"])
def test_what_was_damaged_is_not_found_and_can_be_stored_again(tmp_path: Path, damage: str) -> None:
    cache = EngineCache(tmp_path)
    path = cache.store(FACTS, b"engine", {})
    sidecar = path.with_suffix(".json")
    if damage == "engine":
        path.write_bytes(b"engima")
    elif damage == "cut json":
        sidecar.write_text(sidecar.read_text()[:40])
    elif damage == "no json":
        sidecar.unlink()
    elif damage == "another's json":
        sidecar.write_text(cache.store(FACTS | OTHERS, b"engine", {}).with_suffix(".json").read_text())
    else:
        sidecar.write_text("[1, 2]")
    assert cache.find(FACTS) is None
    cache.store(FACTS, b"engine", {})
    assert cache.find(FACTS) is not None


KILLED = """
import os, signal, sys
from pathlib import Path
from mag_rt import engine_cache
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
real = os.replace
steps = iter(int(sys.argv[2]) * [real] + [kill])
os.replace = lambda *paths: next(steps)(*paths)
engine_cache.EngineCache(Path(sys.argv[1])).store(eval(sys.argv[3]), b"new" * 1000, {})
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_while_it_is_written_leaves_no_part_of_an_engine(tmp_path: Path, renames: int) -> None:
    cache = EngineCache(tmp_path)
    cache.store(sized(2), b"old", {})
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(renames), repr(FACTS)]
    assert subprocess.run(command, check=False).returncode == -9
    assert cache.find(FACTS) is None
    kept = cache.find(sized(2))
    assert kept is not None and kept.engine == b"old"
    cache.store(FACTS, b"new", {})
    assert cache.find(FACTS) is not None


def test_writers_of_the_same_process_number_do_not_get_in_each_others_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in containers that share a cache, where each one's process is number 1."""
    cache, flush = EngineCache(tmp_path), os.fsync

    def while_another_writes(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", flush)
        cache.store(FACTS, b"another's", {})
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", while_another_writes)
    cache.store(FACTS, b"engine", {})
    found = cache.find(FACTS)
    assert found is not None and found.engine == b"engine"
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_not_filled_with_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        EngineCache(tmp_path).store(FACTS, b"engine", {})
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_cleared_away_in_time(tmp_path: Path) -> None:
    stale, fresh = tmp_path / "a.engine.1.partial", tmp_path / "b.engine.2.partial"
    for partial in (stale, fresh):
        partial.write_bytes(b"part")
    os.utime(stale, (time.time() - 2 * 24 * 3600,) * 2)
    EngineCache(tmp_path).store(FACTS, b"engine", {})
    assert not stale.exists() and fresh.exists()


def test_the_least_recently_used_engines_make_room(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, largest=30)
    for number in (1, 2, 3):
        path = cache.store(sized(number), bytes(10), {})
        os.utime(path, (number, number))
    cache.find(sized(1))  # used just now
    cache.store(sized(4), bytes(10), {})
    assert [number for number in (1, 2, 3, 4) if cache.find(sized(number))] == [1, 3, 4]
    assert len(list(tmp_path.iterdir())) == 6  # each with its JSON, and none without
    assert EngineCache().largest == 2 * 1024**3


def test_an_engine_larger_than_the_limit_is_kept_alone(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, largest=30)
    cache.store(sized(1), bytes(10), {})
    cache.store(sized(2), bytes(100), {})
    assert cache.find(sized(1)) is None and cache.find(sized(2)) is not None


def test_what_another_process_takes_away_meanwhile_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = Path.glob

    def with_one_that_goes(folder: Path, pattern: str) -> list[Path]:
        return [folder / pattern.replace("*", "gone"), *listed(folder, pattern)]

    monkeypatch.setattr(Path, "glob", with_one_that_goes)
    cache = EngineCache(tmp_path, largest=15)
    for number in (1, 2):
        cache.store(sized(number), bytes(10), {})
    assert cache.find(sized(1)) is None and cache.find(sized(2)) is not None


def test_a_refusal_takes_the_engine_away_and_keeps_the_reason(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    path = cache.store(FACTS, b"engine", {})
    cache.refuse(FACTS, "it is wrong")
    assert not path.exists()
    assert cache.find(FACTS) is None and cache.notes(FACTS)["refused"] == "it is wrong"
    cache.store(FACTS, b"better", {})
    assert cache.find(FACTS) is not None and "refused" not in cache.notes(FACTS)


def test_the_cache_is_where_the_user_says_or_else_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "magrt" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "magrt" / "engines"
    EngineCache().store(FACTS, b"engine", {})  # the folder is made, and those that it is in
    assert EngineCache().find(FACTS) is not None


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    cache = EngineCache()
    assert cache.find(FACTS) is None
    with pytest.raises(OSError, match="Not a directory"):
        cache.store(FACTS, b"engine", {})

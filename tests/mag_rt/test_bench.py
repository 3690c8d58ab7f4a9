"""magrt bench measures what works here and says why the rest does not."""

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from mag_rt import Scanner, bench_command
from mag_rt.bench_command import BATCHES, ROUNDS, Job, Key, Rates, as_facts, in_turns
from mag_rt.reading import HostReader
from mag_rt.sources import find
from tests.conftest import grey_with_red_box, save
from tests.mag_rt.running import magrt


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return magrt("bench", *arguments)


def test_every_way_that_works_is_measured_at_every_batch_and_every_stage_alone(red_model: Path, tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "in" / f"{index}.jpg", grey_with_red_box(60 + index, 80))
    done = bench(tmp_path / "in", "--model", red_model, "--count", 5, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["pictures"], set(result["stages"])) == (5, {"decode", "around", "write"})
    assert all(rate > 0 for rate in result["stages"].values())
    first, *_ = result["ways"]
    assert (first["backend"], first["precision"]) == ("onnxruntime", "float32")
    assert first["whole"]["ratio"] == first["network"][0]["ratio"] == 1
    for way in result["ways"]:
        assert [each["batch"] for each in way["network"]] == [1, 2, 4, 8]
        assert all(each["pictures_per_second"] > 0 for each in (way["whole"], *way["network"]))
    assert len(result["ways"]) + len(result["missing"]) == 6
    assert any("the bundle has no int8 network" in line for line in result["missing"])


def test_ratios_are_of_what_was_measured_in_the_same_round() -> None:
    """The machine is half as fast in the second round and a tenth in the third: it is the same for both ways."""
    load = (1.0, 0.5, 0.1)
    rates: Rates = {("decode",): [100.0, 50.0, 10.0]}
    for way, times in (("a float32", 1), ("b int8", 3)):
        rates["whole", way] = [7 * times * each for each in load]
        for batch in BATCHES:
            rates["network", way, batch] = [5 * times * batch * each for each in load]
    facts = as_facts(rates, 4, [])
    assert [way["whole"]["ratio"] for way in facts["ways"]] == [1, 3]
    assert [each["ratio"] for each in facts["ways"][1]["network"]] == [3 * batch for batch in BATCHES]
    assert facts["ways"][1]["whole"]["pictures_per_second"] == 10.5 and facts["stages"] == {"decode": 50}


def test_a_rate_is_of_pictures_a_second_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 10.0, 12.0] * ROUNDS)
    monkeypatch.setattr(bench_command, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    ran = []
    jobs: dict[Key, Job] = {(name,): Job(4, partial(ran.append, name)) for name in ("decode", "write")}
    assert in_turns(jobs) == {("decode",): [8.0] * ROUNDS, ("write",): [2.0] * ROUNDS}
    assert ran == ["decode", "write"] * ROUNDS


def test_a_job_counts_the_pictures_that_go_through_the_network(
    red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        save(tmp_path / "in" / f"{index}.jpg", grey_with_red_box(60 + index, 80))
    frames, seen = find([tmp_path / "in"]), []
    with Scanner(red_model, backend="onnxruntime") as scanner, monkeypatch.context() as patch:
        assert isinstance(scanner.reader, HostReader)
        network = scanner.reader.network

        def counted(images: NDArray[np.float32]) -> NDArray[np.uint8]:
            seen.append(len(images))
            return network(images)

        patch.setattr(scanner.reader, "network", counted)
        jobs = bench_command._by_way({"a way": scanner}, frames, tmp_path / "out")
        assert seen == list(BATCHES)  # each shape once, before anything is measured
        for key, job in jobs.items():
            seen.clear()
            job.run()
            assert sum(seen) == job.pictures >= 3 and set(seen) == {key[2] if key[0] == "network" else 1}, key
        files = [Path(frame.source).read_bytes() for frame in frames if frame.source]
        stages = bench_command._stages(scanner, files, frames, tmp_path / "out")
    assert {name: job.pictures for (name,), job in stages.items()} == {"decode": 3, "write": 3, "around": 3}


def test_pictures_are_taken_in_turns_up_to_the_number_asked_for_and_videos_left_out(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / f"{index}.jpg", grey_with_red_box(60 + index, 80))
    (tmp_path / "0.mp4").write_bytes(b"a video")
    first, second, third = ((tmp_path / f"{index}.jpg").read_bytes() for index in range(3))
    assert bench_command._given([str(tmp_path)], 5) == [first, second, third, first, second]
    assert bench_command._given([str(tmp_path)], 2) == [first, second]


def test_the_table_is_for_people(red_model: Path) -> None:
    done = bench("--model", red_model, "--count", 2)
    assert done.returncode == 0 and "onnxruntime float32" in done.stdout and "not measured:" in done.stdout
    assert "network x8" in done.stdout and "the same for all of them: decode" in done.stdout


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    done = bench(tmp_path / "nowhere")
    assert done.returncode == 2 and "no such file or folder" in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "nothing.jpg").touch()
    for name, why in (
        ("dangling.jpg", "No such file or directory"),
        ("pipe.jpg", "not a regular file"),
        ("nothing.jpg", "the file is empty"),
    ):
        done = bench(tmp_path / name)
        assert (done.returncode, done.stderr) == (2, f"magrt: {tmp_path / name}: {why}\n")
    done = bench("--count", 99_999_999_999)
    assert done.returncode == 2 and "--count" in done.stderr and "Traceback" not in done.stderr
    done = bench("--model", tmp_path / "nowhere")
    assert done.returncode == 2 and "nothing can be measured" in done.stderr and "Traceback" not in done.stderr

"""magrt bench measures what works here and says why the rest does not."""

import json
import os
import subprocess
from pathlib import Path

from mag_rt.bench_command import BATCHES, Rates, as_facts
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

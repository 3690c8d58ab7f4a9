"""magrt bench measures what works here and says why the rest does not."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import grey_with_red_box, save


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mag_rt.cli import main; main()", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_every_stage_of_every_way_that_works_is_measured(red_model: Path, tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "in" / f"{index}.jpg", grey_with_red_box(60 + index, 80))
    done = bench(tmp_path / "in", "--model", red_model, "--count", 5, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    first, *_ = result["ways"]
    assert (first["backend"], first["precision"], first["ratio"]) == ("onnxruntime", "float32", 1)
    for way in result["ways"]:
        assert all(speed > 0 for speed in way["pictures_per_second"].values())
        assert {"decode", "read", "write", "whole"} <= set(way["pictures_per_second"])
    assert len(result["ways"]) + len(result["missing"]) == 6
    assert any("the bundle has no int8 network" in line for line in result["missing"])


def test_the_table_is_for_people(red_model: Path) -> None:
    done = bench("--model", red_model, "--count", 2)
    assert done.returncode == 0 and "onnxruntime float32" in done.stdout and "not measured:" in done.stdout


def test_a_source_without_pictures_is_said(tmp_path: Path) -> None:
    done = bench(tmp_path / "nowhere")
    assert done.returncode == 2 and "no such file or folder" in done.stderr and "Traceback" not in done.stderr

"""A few hundred mutated files through real scans; benchmarks/fuzz.py does the same for hours."""

import os
import random
from pathlib import Path

import pytest

from benchmarks import fuzz
from mag_rt import Scanner
from mag_rt.video import Sampling


@pytest.mark.parametrize("isolate", [False, True])
def test_no_mutated_file_costs_more_than_its_own_line(red_model: Path, tmp_path: Path, isolate: bool) -> None:
    files, rng = fuzz.originals(), random.Random(int(isolate))
    with Scanner(red_model, max_side=64, sampling=Sampling(every=3), isolate=isolate) as scanner:
        good = fuzz.good_finding(scanner, tmp_path, files)
        open_before = len(os.listdir("/proc/self/fd"))
        for index in range(5):
            folder = tmp_path / f"in-{index}"
            folder.mkdir()
            fuzz.fill(folder, rng, files)
            assert fuzz.offences(folder, list(scanner.scan([folder])), good) == []
        assert len(os.listdir("/proc/self/fd")) <= open_before + 2  # another thread's worker


def test_an_offence_is_seen(red_model: Path, tmp_path: Path) -> None:
    """What the test above looks for would be found."""
    files = fuzz.originals()
    with Scanner(red_model, max_side=64) as scanner:
        good = fuzz.good_finding(scanner, tmp_path, files)
        folder = tmp_path / "in"
        folder.mkdir()
        fuzz.fill(folder, random.Random(0), files)
        findings = list(scanner.scan([folder]))
    assert fuzz.offences(folder, findings, good) == []
    assert "out of order" in fuzz.offences(folder, findings[::-1], good)[0]
    assert "missing" in fuzz.offences(folder, findings[:-1], good)[0]
    (folder / "000-a-good.png").write_bytes(files["grey.jpg"])
    with Scanner(red_model, max_side=64) as scanner:
        assert "000-a-good.png" in fuzz.offences(folder, list(scanner.scan([folder])), good)[0]


def test_every_original_is_good(red_model: Path, tmp_path: Path) -> None:
    for name, data in fuzz.originals().items():
        (tmp_path / name).write_bytes(data)
    with Scanner(red_model, sampling=Sampling(every=1)) as scanner:
        findings = list(scanner.scan([tmp_path]))
    assert [finding.error for finding in findings] == [None] * len(findings)
    assert len(findings) == 25 + 3 * 10

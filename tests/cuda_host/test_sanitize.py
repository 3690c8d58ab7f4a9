"""Under AddressSanitizer right programs run, and what only it can see is seen."""

import subprocess
import sys

import pytest

from tests.cuda_host import sanitize


def test_right_programs():
    done = sanitize.run("tests/cuda_host/test_kernels.py", "-k", "0 or 1")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("of_nothing", ""),
        ("of_global", "heap-buffer-overflow"),
        ("of_local", "stack-buffer-overflow"),
        ("of_shared", "global-buffer-overflow"),
        ("of_dynamic", "use-after-poison"),
        ("of_host", "heap-buffer-overflow"),
    ],
)
def test_overruns(name, words):
    command = [sys.executable, "-m", "tests.cuda_host.overrun", name]
    done = subprocess.run(command, env=sanitize.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (words == ""), done.stderr
    assert words in done.stderr

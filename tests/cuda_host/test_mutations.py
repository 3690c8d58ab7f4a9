"""Every mutation still fits the sources: one that does not would stop `make mutations` only when somebody runs it."""

import subprocess
from pathlib import Path

import pytest

from tests.cuda_host.mutate import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("path", sorted(MUTATIONS.glob("*.patch")), ids=lambda path: path.stem)
def test_it_applies_and_says_what_it_breaks(path: Path) -> None:
    command = ["git", "apply", "--check", "--unidiff-zero", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Mutation.read(path).kind

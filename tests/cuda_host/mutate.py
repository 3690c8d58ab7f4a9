"""Shows that the tests bite: applies each patch of `mutations/` to a copy of the checkout and sees a test fail.

`python -m tests.cuda_host.mutate [PATCH ...]` prints a table in Markdown; exit status 1 when a mutation survives. A
patch begins with a line `Kind: ...` and a sentence; any patch that `git apply` takes will do.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cuda_host import build

ROOT = Path(__file__).parents[2]
MUTATIONS = Path(__file__).parent / "mutations"
TESTS = ("tests/kernels", "tests/mag_rt/test_cuda.py", "tests/mag_rt/test_tensorrt.py")
# The PTX is not made again for a copy, so that what compares it with the sources would find every mutation; and the
# benchmark only launches what the others test.
LEFT_OUT = ("tests/kernels/test_build.py", "tests/kernels/test_benchmark.py")
TIMEOUT = 900
"""Seconds; what takes longer hangs, and a test that hangs has found something."""


@dataclass(frozen=True)
class Mutation:
    """A patch, and what its first lines say of it."""

    path: Path
    kind: str
    files: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "Mutation":
        text = path.read_text()
        kind = re.search(r"^Kind: (.*)$", text, re.MULTILINE)
        files = re.findall(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)
        return cls(path, kind.group(1) if kind else "", tuple(files))


@dataclass(frozen=True)
class Outcome:
    """`test`: the first that failed, None when all passed; `message`: what it said."""

    test: str | None
    message: str


def verdict(checkout: Path, mutation: Mutation | None) -> Outcome:
    """Test a copy of the checkout with the mutation, or without one. Raises BuildError when that cannot be done."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree = Path(folder) / "checkout"
        shutil.copytree(checkout, tree, symlinks=True)
        if not mutation:
            return _test(tree, [])
        command = ["git", "apply", "--unidiff-zero", str(mutation.path.resolve())]
        applied = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        if applied.returncode:
            raise build.BuildError(f"{mutation.path.name} does not apply: {applied.stderr.strip()}")
        return _test(tree, [Path(file).stem for file in mutation.files])


def _test(tree: Path, first: list[str]) -> Outcome:
    """Run the tests, those that are named after one of `first` before the others, the slow sanitizer last."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=short"]
    command += ["-p", "no:cacheprovider", "-m", "not gpu"]
    tests = [path for test in TESTS for path in sorted((tree / test).glob("test_*.py")) or [tree / test]]
    tests = [path for path in tests if path.exists() and str(path.relative_to(tree)) not in LEFT_OUT]
    names = {path: path.stem.removeprefix("test_") for path in tests}
    command += map(str, sorted(tests, key=lambda path: (names[path] == "sanitizer", names[path] not in first)))
    environment = os.environ | {"PYTHONPATH": str(tree), "CUDA_HOST_CACHE": str(tree / ".cache" / "cuda_host")}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, timeout=TIMEOUT, check=False, **output)
    except subprocess.TimeoutExpired:
        return Outcome("(timeout)", f"no end within {TIMEOUT} s")
    if done.returncode == 0:
        return Outcome(None, "")
    if done.returncode < 0:  # Python's fault handler has said where it was
        crashed = re.search(r'File ".*?(tests/\S+\.py)", line \d+ in (test_\w+)', done.stdout)
        return Outcome("::".join(crashed.groups()) if crashed else "(crash)", f"signal {-done.returncode}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if not failed:  # no test has run
        raise build.BuildError(done.stdout[-4000:])
    said = re.findall(r"^cuda_host: (.*)$", done.stdout, re.MULTILINE)
    said = said or re.findall(r"^E +(.*)$", done.stdout, re.MULTILINE)
    return Outcome(failed.group(1), said[0] if said else "")


@contextmanager
def _snapshot() -> Iterator[Path]:
    """What git knows of the checkout or would add, as it is now, with the builds of driver and pycuda."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder)
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, tree / name)
        cache = tree / ".cache" / "cuda_host"
        cache.mkdir(parents=True)
        for kind in ("driver", "pycuda"):
            (cache / kind).symlink_to(build.cache().resolve() / kind)
        yield tree


def _row(mutation: Mutation, outcome: Outcome) -> str:
    caught = f"`{outcome.test}`".replace("tests/", "") if outcome.test else "**survived**"
    return f"| {mutation.path.stem} | {mutation.kind} | {', '.join(mutation.files)} | {caught} |"


def main(arguments: list[str]) -> int:
    paths = list(map(Path, arguments)) or sorted(MUTATIONS.glob("*.patch"))
    mutations = [Mutation.read(path) for path in paths]
    build.build_driver()
    build.build_pycuda()
    with _snapshot() as checkout, ThreadPoolExecutor(os.cpu_count()) as pool:
        untouched = verdict(checkout, None)
        if untouched.test:
            print(f"without a mutation {untouched.test} fails: {untouched.message}", file=sys.stderr)
            return 2
        print("| mutation | kind | file | caught by |\n|---|---|---|---|", flush=True)
        survived = 0
        outcomes = pool.map(lambda mutation: verdict(checkout, mutation), mutations)
        for mutation, outcome in zip(mutations, outcomes, strict=True):
            survived += outcome.test is None
            print(_row(mutation, outcome), flush=True)
            print(f"{mutation.path.stem}: {outcome.message}", file=sys.stderr, flush=True)
    print(f"\n{len(mutations) - survived} of {len(mutations)} mutations are caught.")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
